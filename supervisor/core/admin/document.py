"""The status document: the gateway's view as JSON, and as log lines."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import Any

from gateway.core.counters import DialResult
from gateway.core.endpoint import RETIRED
from supervisor.core.admin.readiness import gateway_state, unreadiness
from supervisor.core.admin.sums import EndpointSum
from supervisor.core.admin.views import (
    DiscoveryView,
    EndpointView,
    GatewayView,
    MemberSyncView,
    ReloadView,
    WorkerView,
)

NOT_THE_ENDPOINTS_FAULT = (DialResult.CONNECTED, DialResult.LOCAL, DialResult.ABANDONED)


def document(view: GatewayView) -> dict[str, Any]:
    """The status document, ready for JSON; what people look at first comes first."""
    overall = view.sums.overall
    return {
        "version": view.version,
        "compiled": view.compiled,
        "pid": view.pid,
        "started_at": instant(view.started_at),
        "uptime_s": round(view.uptime_s, 3),
        "state": gateway_state(view).value,
        "listen": list(view.listen),
        "snapshot_version": view.snapshot_version,
        "discovery": _discovery(view.discovery),
        "reload": _reload(view.reload),
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
        "host": view.host,
        "pid_namespace": view.pid_namespace,
        "drain_deadline_s": _rounded(view.drain_deadline_s),
        "limits": dict(view.limits),
        "foreign_listeners": [dict(each) for each in view.foreign_listeners],
        "configuration": dict(view.configuration),
        "events": [dict(each) for each in view.events],
    }


def log_lines(view: GatewayView) -> Iterator[tuple[str, dict[str, Any]]]:
    """The document as log lines of bounded length: message and fields, for USR1.

    First the whole without its lists, then one line for each worker and endpoint. The events are in
    the log already, and so is the configuration, at level debug.
    """
    whole = document(view)
    del whole["events"], whole["configuration"]
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


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


def _discovery(view: DiscoveryView) -> dict[str, Any]:
    return {
        "srv": view.srv or None,
        "last_success_at": instant(view.last_success_at),
        "last_error": view.last_error or None,
        "next_refresh_s": _rounded(view.next_refresh_s),
        "results": dict(view.results),
        "by_source": {source: dict(results) for source, results in view.by_source.items()},
        "refused": dict(view.refused),
        "member_sync": None if view.member_sync is None else _member_sync(view.member_sync),
    }


def _reload(view: ReloadView) -> dict[str, Any]:
    return {
        "number": view.number,
        "under_way": view.under_way,
        "refused": view.refused,
        "last_at": instant(view.last_at),
        "last_result": view.last_result,
        "last_error": view.last_error,
        "needs_restart": list(view.needs_restart),
    }


def _member_sync(view: MemberSyncView) -> dict[str, Any]:
    return {
        "interval_s": _rounded(view.interval_s),
        "last_success_at": instant(view.last_success_at),
        "last_error": view.last_error or None,
        "last_asked": view.last_asked,
        "next_ask_s": _rounded(view.next_ask_s),
        "cluster_id": view.cluster_id,
        "confirmed": view.confirmed,
        "members": [{"name": name, "endpoint": endpoint} for name, endpoint in view.members],
        "left_out": dict(view.left_out),
        "results": dict(view.results),
    }


def _endpoint(view: EndpointView, traffic: EndpointSum) -> dict[str, Any]:
    return {
        "endpoint": view.endpoint,
        "source": view.source.value,
        "addresses": list(view.addresses),
        "address_states": {address: _address(view, traffic, address) for address in view.addresses},
        "priority": view.priority,
        "weight": view.weight,
        "state": view.state.value,
        "sessions": traffic.sessions,
        "sessions_total": traffic.sessions_total,
        "bytes_in": traffic.bytes_in,
        "bytes_out": traffic.bytes_out,
        "dial_failures": dial_failures(traffic),
        "probe_failures": view.health.probe_failures,
        "last_error": view.health.last_error or None,
        "last_error_at": instant(view.health.last_error_at),
        "since": instant(view.retired_since or view.health.since),
        "hold_s": round(view.health.hold_s, 3),
        "kept": view.health.kept,
        "degraded": view.health.degraded or None,
        "etcd_version": view.health.etcd_version or None,
        "certificate_not_after": instant(view.certificate_not_after),
    }


def _address(view: EndpointView, traffic: EndpointSum, address: str) -> dict[str, Any]:
    """One address of an endpoint; the only one is as the endpoint is."""
    if len(view.addresses) == 1:
        state, sessions, error = view.state.value, traffic.sessions, view.health.last_error
    else:
        health = view.address_views.get(address)
        state = view.state.value if health is None or view.state in RETIRED else health.state.value
        sessions = traffic.addresses.get(address, 0)
        error = None if health is None else health.last_error
    return {"state": state, "sessions": sessions, "last_error": error or None}


def _worker(view: WorkerView) -> dict[str, Any]:
    report = view.report
    return {
        "slot": view.slot,
        "gen": view.gen,
        "pid": view.pid,
        "state": str(view.state),
        "hangs": view.hangs,
        "snapshot_version": view.snapshot_version,
        "sessions": view.sessions,
        "sessions_total": view.sessions_total,
        "heartbeat_age_s": _rounded(view.heartbeat_age_s),
        "loop_lag_s": round(report.loop_lag_s, 6) if report else 0.0,
        "rss_bytes": report.rss_bytes if report else 0,
        "cpu_s": round(report.cpu_s, 3) if report else 0.0,
    }
