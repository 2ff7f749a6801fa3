"""The status document: what the master knows of itself, first as typed views, then as JSON.

The master fills a :class:`GatewayView`; the admin address, the metrics, the status page, the
status command and USR1 all read the same one. Instants are seconds since the epoch, as people
read them; durations are seconds.
"""

from __future__ import annotations

import datetime
import enum
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.core.counters import DialResult
from gateway.core.endpoint import EndpointState
from gateway.core.messages import Report
from supervisor.core.admin.totals import EndpointSum, Sums

NOT_THE_ENDPOINTS_FAULT = (DialResult.CONNECTED, DialResult.LOCAL, DialResult.ABANDONED)


class GatewayState(enum.StrEnum):
    """``state`` of the status document."""

    STARTING = "starting"
    READY = "ready"
    DEGRADED = "degraded"
    """No active endpoint, or a slot without a live worker."""
    DRAINING = "draining"


class WorkerStatus(enum.StrEnum):
    """``state`` of a worker in the status document."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    BACKOFF = "backoff"


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscoveryView:
    """What resolution did last. ``results`` counts resolutions by result; ``refused`` says why."""

    srv: str | None = None
    last_success_at: float | None = None
    last_error: str | None = None
    next_refresh_s: float | None = None
    results: Mapping[str, int] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    """Endpoints that were found and not taken (TLS check, our own address), with the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReloadView:
    """``last_result`` is ``complete`` or ``failed``; ``results`` counts reloads by it."""

    last_at: float | None = None
    last_result: str | None = None
    last_error: str | None = None
    results: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointView:
    """One endpoint as roster and prober hold it; its traffic is in ``GatewayView.sums``."""

    endpoint: str
    addresses: tuple[str, ...] = ()
    priority: int = 0
    weight: int = 0
    state: EndpointState = EndpointState.ACTIVE
    since: float | None = None
    """When it came into this state."""
    last_error: str | None = None
    probe_failures: int = 0
    probes: Mapping[str, int] = field(default_factory=dict)
    """Probes by result, ever."""
    transitions: Mapping[str, int] = field(default_factory=dict)
    """Changes of state by the state it changed to, ever."""
    hold_s: float = 0.0
    """How long flap damping still keeps it inactive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerView:
    """One worker, or a slot that waits for one (``state`` backoff, ``pid`` None)."""

    slot: int
    gen: int
    pid: int | None
    state: str
    snapshot_version: int = 0
    heartbeat_age_s: float | None = None
    """None before the first heartbeat."""
    hangs: bool = False
    """It was ready and its loop does not turn; ``state`` has no word of its own for that."""
    report: Report | None = None
    sessions_total: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayView:
    """All of it at one moment.

    ``started``: was ready once. ``slots``: how many workers are wanted. ``events``: the last log
    lines, oldest first. ``limits``: figures such as ``max_sessions`` and ``open_files``.
    """

    version: str
    pid: int
    started_at: float
    uptime_s: float
    started: bool
    draining: bool
    slots: int
    listen: tuple[str, ...]
    snapshot_version: int
    discovery: DiscoveryView = field(default_factory=DiscoveryView)
    reload: ReloadView = field(default_factory=ReloadView)
    endpoints: tuple[EndpointView, ...] = ()
    workers: tuple[WorkerView, ...] = ()
    sums: Sums = field(default_factory=Sums)
    worker_restarts: Mapping[str, int] = field(default_factory=dict)
    """Workers replaced, by reason, ever."""
    events: tuple[Mapping[str, Any], ...] = ()
    limits: Mapping[str, int] = field(default_factory=dict)
    foreign_listeners: tuple[Mapping[str, Any], ...] = ()
    """Sockets of other programs that listen where we do."""


def gateway_state(view: GatewayView) -> GatewayState:
    """The one word for the whole."""
    if view.draining:
        return GatewayState.DRAINING
    if not view.started:
        return GatewayState.STARTING
    return GatewayState.DEGRADED if _shortcomings(view) else GatewayState.READY


def unreadiness(view: GatewayView) -> tuple[str, ...]:
    """Why clients should be sent elsewhere, as ``/readyz`` says it; empty if they should not."""
    if view.draining:  # whatever is missing, it will not come again
        return ("draining",)
    reasons = _shortcomings(view)
    return reasons if view.started else ("starting", *reasons)


def summary(view: GatewayView) -> str:
    """The line for the service manager: ``3/3 endpoints active, 8 workers, 412 sessions``."""
    return summary_of(
        (each.state for each in view.endpoints),
        view.workers,
        view.sums.sessions,
        foreign_listeners=bool(view.foreign_listeners),
    )


def summary_of(
    states: Iterable[EndpointState],
    workers: Iterable[WorkerView],
    sessions: int,
    *,
    foreign_listeners: bool,
) -> str:
    """The same from its parts: a whole view every second would be dear with 3,000 endpoints."""
    counts = Counter(states)
    active = counts[EndpointState.ACTIVE]
    present = active + counts[EndpointState.INACTIVE]
    live = len(_live_slots(workers))
    beside = ", another program listens here too" if foreign_listeners else ""
    return (
        f"{active}/{present} endpoints active, {live} worker{'s' * (live != 1)}, "
        f"{sessions} session{'s' * (sessions != 1)}{beside}"
    )


def document(view: GatewayView) -> dict[str, Any]:
    """The status document, ready for JSON; what people look at first comes first."""
    overall = view.sums.overall
    return {
        "version": view.version,
        "pid": view.pid,
        "started_at": instant(view.started_at),
        "uptime_s": round(view.uptime_s, 3),
        "state": gateway_state(view).value,
        "listen": list(view.listen),
        "snapshot_version": view.snapshot_version,
        "discovery": _discovery(view.discovery),
        "reload": {
            "last_at": instant(view.reload.last_at),
            "last_result": view.reload.last_result,
            "last_error": view.reload.last_error,
        },
        "endpoints": [
            _endpoint(each, view.sums.endpoints.get(each.endpoint) or EndpointSum())
            for each in view.endpoints
        ],
        "workers": [_worker(each) for each in view.workers],
        "totals": {
            "sessions": view.sums.sessions,
            "sessions_total": overall.sessions_total,
            "bytes_in": overall.bytes_in,
            "bytes_out": overall.bytes_out,
            "refused": sum(view.sums.refused.values()),
        },
        "unready": list(unreadiness(view)),
        "slots": view.slots,
        "worker_restarts": dict(view.worker_restarts),
        "ended": dict(view.sums.ended),
        "log_dropped": view.sums.log_dropped,
        "handed_over": view.sums.handed_over,
        "accept_paused": view.sums.accept_paused,
        "limits": dict(view.limits),
        "foreign_listeners": [dict(each) for each in view.foreign_listeners],
        "events": [dict(each) for each in view.events],
    }


def log_lines(view: GatewayView) -> Iterator[tuple[str, dict[str, Any]]]:
    """The document as log lines of bounded length: message and fields, for USR1.

    First the whole without its lists, then one line for each worker and endpoint; the events are
    in the log already.
    """
    whole = document(view)
    del whole["events"]
    lists = {"status worker": whole.pop("workers"), "status endpoint": whole.pop("endpoints")}
    yield "status", whole
    for msg, entries in lists.items():
        yield from ((msg, entry) for entry in entries)


def instant(at: float | None) -> str | None:
    """Seconds since the epoch as RFC 3339 in UTC, to the millisecond; None stays None."""
    if at is None:
        return None
    moment = datetime.datetime.fromtimestamp(at, datetime.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def dial_failures(traffic: EndpointSum) -> int:
    """Dials that speak against the endpoint."""
    return sum(n for result, n in traffic.dials.items() if result not in NOT_THE_ENDPOINTS_FAULT)


def _live_slots(workers: Iterable[WorkerView]) -> set[int]:
    return {each.slot for each in workers if each.state == WorkerStatus.READY}


def _shortcomings(view: GatewayView) -> tuple[str, ...]:
    reasons: list[str] = []
    if not any(each.state is EndpointState.ACTIVE for each in view.endpoints):
        reasons.append("no endpoint is active")
    live = _live_slots(view.workers)
    if waiting := [str(slot) for slot in range(view.slots) if slot not in live]:
        reasons.append(f"no live worker in slot {', '.join(waiting)}")
    return tuple(reasons)


def _discovery(view: DiscoveryView) -> dict[str, Any]:
    left = view.next_refresh_s
    return {
        "srv": view.srv or None,
        "last_success_at": instant(view.last_success_at),
        "last_error": view.last_error or None,
        "next_refresh_s": None if left is None else round(left, 3),
        "results": dict(view.results),
        "refused": dict(view.refused),
    }


def _endpoint(view: EndpointView, traffic: EndpointSum) -> dict[str, Any]:
    return {
        "endpoint": view.endpoint,
        "addresses": list(view.addresses),
        "priority": view.priority,
        "weight": view.weight,
        "state": view.state.value,
        "sessions": traffic.sessions,
        "sessions_total": traffic.sessions_total,
        "bytes_in": traffic.bytes_in,
        "bytes_out": traffic.bytes_out,
        "dial_failures": dial_failures(traffic),
        "probe_failures": view.probe_failures,
        "last_error": view.last_error or None,
        "since": instant(view.since),
        "hold_s": round(view.hold_s, 3),
    }


def _worker(view: WorkerView) -> dict[str, Any]:
    report, age = view.report, view.heartbeat_age_s
    return {
        "slot": view.slot,
        "gen": view.gen,
        "pid": view.pid,
        "state": str(view.state),
        "hangs": view.hangs,
        "snapshot_version": view.snapshot_version,
        "sessions": report.sessions if report else 0,
        "sessions_total": view.sessions_total,
        "heartbeat_age_s": None if age is None else round(age, 3),
        "loop_lag_s": round(report.loop_lag_s, 6) if report else 0.0,
        "rss_bytes": report.rss_bytes if report else 0,
    }
