"""A worker's counters as the message that carries them up."""

from __future__ import annotations

from gateway.core.counters import EndpointCounters, WorkerCounters
from gateway.core.messages import EndpointReport, Report


def report_of(
    counters: WorkerCounters,
    *,
    snapshot_version: int,
    loop_lag_s: float,
    rss_bytes: int,
    cpu_s: float,
) -> Report:
    """Everything counted so far; costs by endpoints, never by sessions."""
    return Report(
        snapshot_version=snapshot_version,
        sessions=counters.sessions,
        loop_lag_s=loop_lag_s,
        rss_bytes=rss_bytes,
        cpu_s=cpu_s,
        ended=dict(counters.ended),
        refused=dict(counters.refused),
        session_buckets=tuple(counters.session_seconds.counts),
        session_seconds=counters.session_seconds.total,
        accept_paused=dict(counters.accept_paused),
        turned_away=dict(counters.turned_away),
        last_turned_away=dict(counters.last_turned_away),
        log_dropped=counters.log_dropped,
        handed_over=counters.handed_over,
        endpoints={name: _endpoint(each) for name, each in counters.endpoints.items()},
    )


def _endpoint(counters: EndpointCounters) -> EndpointReport:
    trips = counters.round_trips
    shown = trips.fades or counters.sessions > 0
    return EndpointReport(
        sessions=counters.sessions,
        sessions_total=counters.sessions_total,
        bytes_in=counters.bytes_in,
        bytes_out=counters.bytes_out,
        addresses=dict(counters.addresses),
        dials=dict(counters.dials),
        dial_buckets=tuple(counters.dial_seconds.counts),
        dial_seconds=counters.dial_seconds.total,
        ended=dict(counters.ended),
        rtt_weight=trips.weight if shown else 0.0,
        rtt_weighted_s=trips.weighted_s if shown else 0.0,
        retransmits=counters.retransmits,
    )
