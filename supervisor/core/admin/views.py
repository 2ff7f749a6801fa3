"""The typed views of the gateway: what the master knows of itself at one moment.

The master fills one :class:`GatewayView`. The admin address, the metrics, the status page, the
status command and USR1 all read it. Instants are seconds since the epoch, as people read them;
durations are seconds.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Any

from gateway.core.endpoint import EndpointState
from gateway.core.messages import Report
from gateway.core.records import dataclass
from supervisor.core.admin.sums import Sums
from supervisor.core.discovery.endpoints import Source
from supervisor.core.health.health_view import UNWATCHED, HealthView
from supervisor.core.roster_member import Member


class WorkerStatus(enum.StrEnum):
    """``state`` of a worker in the status document."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    BACKOFF = "backoff"


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberSyncView:
    """What the cluster last said of its members.

    ``cluster_id`` and ``members`` (name and endpoint) are of the adopted list; ``confirmed``: the
    last answer agreed with it. ``left_out``: members that are not used, with the reason.
    """

    interval_s: float = 0.0
    last_success_at: float | None = None
    last_error: str | None = None
    last_asked: str | None = None
    """Who answered last."""
    next_ask_s: float | None = None
    cluster_id: str | None = None
    confirmed: bool = False
    members: Sequence[tuple[str, str]] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    results: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscoveryView:
    """What resolution did last. ``results`` counts resolutions by result; ``refused`` says why.

    ``by_source`` counts what was asked of each source (flag, srv, members) by result.
    ``member_sync`` is None if member sync is off.
    """

    srv: str | None = None
    last_success_at: float | None = None
    last_error: str | None = None
    next_refresh_s: float | None = None
    results: Mapping[str, int] = field(default_factory=dict)
    by_source: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    """Endpoints that were found and not taken (TLS check, our own address), with the reason."""
    member_sync: MemberSyncView | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReloadView:
    """``last_result`` is ``complete`` or ``failed``; ``results`` counts reloads by it.

    ``under_way``: a reload has begun and not ended. ``asked``: one is asked for that has not begun.
    ``refused``: the configuration in use is older than the one that was read last.
    ``needs_restart``: flags whose new values, in the one that was used last, no reload can apply.
    """

    last_at: float | None = None
    last_result: str | None = None
    last_error: str | None = None
    results: Mapping[str, int] = field(default_factory=dict)
    under_way: bool = False
    asked: bool = False
    refused: bool = False
    needs_restart: tuple[str, ...] = ()

    @property
    def number(self) -> int:
        """How many reloads have ended; ``last_*`` is about the reload of this number."""
        return sum(self.results.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointView:
    """One endpoint as roster and prober hold it; its traffic is in ``GatewayView.sums``."""

    endpoint: str
    addresses: tuple[str, ...] = ()
    source: Source = Source.FLAG
    priority: int = 0
    weight: int = 0
    state: EndpointState = EndpointState.ACTIVE
    health: HealthView = UNWATCHED
    """What the prober knows of it, of all its addresses together."""
    address_views: Mapping[str, HealthView] = field(default_factory=dict)
    """By address, of an endpoint with several."""
    retired_since: float | None = None
    """Since when it gets no new sessions, because it left DNS or is under maintenance."""
    certificate_not_after: float | None = None
    """When the first of its certificates ends; None if no handshake showed one."""


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
    """None before the first one to this master."""
    sessions: int = 0
    sessions_total: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayView:
    """All of it at one moment.

    ``started``: was ready once. ``slots``: how many workers are wanted. ``events``: the last log
    lines, oldest first. ``host``: the host's name. ``pid_namespace``: where ``pid`` counts, None if
    that is not known. ``drain_deadline_s``: after how many seconds the drain cuts sessions.
    ``configuration``: the value of each flag with its source. ``limits``: figures such as
    ``max_sessions`` and ``open_files``.
    """

    version: str
    compiled: bool
    """Whether the relay is native code (docs/adr/0039)."""
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
    host: str = ""
    pid_namespace: int | None = None
    drain_deadline_s: float | None = None
    configuration: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    limits: Mapping[str, int] = field(default_factory=dict)
    foreign_listeners: tuple[Mapping[str, Any], ...] = ()
    """Sockets of other programs that listen where we do."""


def endpoint_view(
    member: Member,
    health: HealthView | None,
    addresses: Mapping[str, HealthView] | None = None,
    certificate_not_after: float | None = None,
    retired_since: float | None = None,
) -> EndpointView:
    """One endpoint: identity and state from the roster, health from the prober."""
    found = member.found
    return EndpointView(
        endpoint=found.name,
        addresses=found.addresses,
        source=found.source,
        priority=found.priority,
        weight=found.weight,
        state=member.state,
        health=health or UNWATCHED,
        address_views=addresses or {},
        retired_since=retired_since,
        certificate_not_after=certificate_not_after,
    )
