"""What the metrics are: every family of samples, made from the gateway's view."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from gateway.core.counters import DIAL_BOUNDS_S, SESSION_BOUNDS_S, DialResult, End
from gateway.core.endpoint import EndpointState
from supervisor.core.admin.totals import EndpointSum, Sums
from supervisor.core.admin.views import EndpointView, GatewayView, WorkerStatus, WorkerView

PREFIX = "etcd_gateway_"

Chunk = Sequence[EndpointView]
NOTHING = EndpointSum()


LIMITS = {
    "max_sessions": ("--max-sessions; 0 is as many as descriptors allow.", "max_sessions"),
    "max_open_files": ("The limit of open files, of the master and of each worker.", "open_files"),
    "workers_wanted": ("How many workers there are to be.", "workers"),
}


def of_gateway(view: GatewayView) -> tuple[Metric, ...]:
    """All families but those that have samples for each endpoint."""
    return (*_gateway(view), *_sessions(view.sums), *_workers(view))


def _gateway(view: GatewayView) -> tuple[Metric, ...]:
    build = GaugeMetricFamily(
        PREFIX + "build_info", "Always 1; the label has the release.", labels=["version"]
    )
    build.add_metric([view.version], 1)
    return (
        build,
        _gauge(
            "endpoints", "Endpoints known now, those in their grace included.", len(view.endpoints)
        ),
        _gauge(
            "endpoints_refused",
            "Endpoints that were found and not taken: by the TLS check, or as our own address.",
            len(view.discovery.refused),
        ),
        _gauge("snapshot_version", "Newest version of the endpoint list.", view.snapshot_version),
        _counts(
            "discovery_total",
            "Resolutions of the targets, by result.",
            "result",
            ("success", "failure"),
            view.discovery.results,
        ),
        _gauge(
            "discovery_last_success_timestamp_seconds",
            "When the targets were last resolved, since the epoch.",
            view.discovery.last_success_at,
        ),
        _counts(
            "reloads_total",
            "Reloads, by result.",
            "result",
            ("complete", "failed"),
            view.reload.results,
        ),
        _gauge(
            "last_reload_successful",
            "1 if the configuration in use is the one that was read last, 0 if that was refused.",
            int(view.reload.last_result != "failed"),
        ),
        _gauge(
            "foreign_listeners",
            "Sockets of other programs that listen on a listen address and take clients.",
            len(view.foreign_listeners),
        ),
        *(_gauge(name, text, view.limits.get(key)) for name, (text, key) in LIMITS.items()),
    )


def _sessions(sums: Sums) -> tuple[Metric, ...]:
    durations = HistogramMetricFamily(
        PREFIX + "session_duration_seconds", "How long sessions that ended had lasted."
    )
    durations.add_metric([], _buckets(SESSION_BOUNDS_S, sums.session_buckets), sums.session_seconds)
    return (
        _counts(
            "sessions_ended_total", "Sessions that ended, by reason.", "reason", End, sums.ended
        ),
        durations,
        _counts(
            "refused_total",
            "Clients closed without an endpoint, by reason.",
            "reason",
            (End.NO_ENDPOINT, End.DIAL_FAILED),
            sums.refused,
        ),
        _counter(
            "accept_paused_total",
            "Times a worker stopped accepting for want of descriptors or memory.",
            sums.accept_paused,
        ),
        _counter(
            "log_dropped_total",
            "Log lines dropped by workers because nobody read them in time.",
            sums.log_dropped,
        ),
        _counter(
            "handed_over_total",
            "Clients that a worker handed to one with fewer sessions.",
            sums.handed_over,
        ),
    )


def _workers(view: GatewayView) -> tuple[Metric, ...]:
    states = GaugeMetricFamily(PREFIX + "workers", "Workers, by state.", labels=["state"])
    for state in WorkerStatus:
        states.add_metric([state], sum(each.state == state for each in view.workers))
    sessions = GaugeMetricFamily(
        PREFIX + "worker_sessions", "Sessions a slot holds now.", labels=["slot"]
    )
    versions = GaugeMetricFamily(
        PREFIX + "worker_snapshot_version",
        "Version of the endpoint list that a slot's worker holds.",
        labels=["slot"],
    )
    lags = GaugeMetricFamily(
        PREFIX + "worker_loop_lag_seconds",
        "How late a slot's event loop ran since its last report.",
        labels=["slot"],
    )
    memory = GaugeMetricFamily(
        PREFIX + "worker_resident_memory_bytes",
        "Resident memory of a slot's workers; pages that they share count for each.",
        labels=["slot"],
    )
    for slot, gens in sorted(_by_slot(view).items()):
        label = [str(slot)]
        newest = max(gens, key=lambda each: each.gen)
        sessions.add_metric(label, sum(each.report.sessions for each in gens if each.report))
        memory.add_metric(label, sum(each.report.rss_bytes for each in gens if each.report))
        versions.add_metric(label, newest.snapshot_version)
        lags.add_metric(label, newest.report.loop_lag_s if newest.report else 0.0)
    cpu = CounterMetricFamily(
        PREFIX + "worker_cpu_seconds_total",
        "CPU time of a slot's workers, those that ended included.",
        labels=["slot"],
    )
    for slot_text, seconds in sorted(view.sums.cpu_s.items(), key=lambda each: int(each[0])):
        cpu.add_metric([slot_text], seconds)
    restarts = _counts(
        "worker_restarts_total",
        "Workers replaced, by reason.",
        "reason",
        ("exit", "timeout", "start-timeout", "age", "upgrade"),
        view.worker_restarts,
    )
    return states, restarts, sessions, versions, lags, memory, cpu


def _by_slot(view: GatewayView) -> dict[int, list[WorkerView]]:
    slots: dict[int, list[WorkerView]] = {}
    for each in view.workers:
        slots.setdefault(each.slot, []).append(each)
    return slots


def _sessions_now(chunk: Chunk, sums: Sums) -> Metric:
    family = GaugeMetricFamily(
        PREFIX + "sessions", "Sessions an endpoint has now.", labels=["endpoint"]
    )
    for each in chunk:
        family.add_metric([each.endpoint], _traffic(each, sums).sessions)
    return family


def _sessions_total(chunk: Chunk, sums: Sums) -> Metric:
    family = CounterMetricFamily(
        PREFIX + "sessions_total", "Sessions that reached an endpoint.", labels=["endpoint"]
    )
    for each in chunk:
        family.add_metric([each.endpoint], _traffic(each, sums).sessions_total)
    return family


def _bytes_total(chunk: Chunk, sums: Sums) -> Metric:
    family = CounterMetricFamily(
        PREFIX + "bytes_total",
        "Bytes relayed; in: from client to endpoint, out: from endpoint to client.",
        labels=["endpoint", "direction"],
    )
    for each in chunk:
        traffic = _traffic(each, sums)
        family.add_metric([each.endpoint, "in"], traffic.bytes_in)
        family.add_metric([each.endpoint, "out"], traffic.bytes_out)
    return family


def _dials_total(chunk: Chunk, sums: Sums) -> Metric:
    family = CounterMetricFamily(
        PREFIX + "dials_total", "Dials of an endpoint, by result.", labels=["endpoint", "result"]
    )
    for each in chunk:
        dials = _traffic(each, sums).dials
        for result in DialResult:
            family.add_metric([each.endpoint, result], dials.get(result, 0))
    return family


def _dial_seconds(chunk: Chunk, sums: Sums) -> Metric:
    family = HistogramMetricFamily(
        PREFIX + "dial_duration_seconds",
        "How long dials that connected had taken.",
        labels=["endpoint"],
    )
    for each in chunk:
        traffic = _traffic(each, sums)
        buckets = _buckets(DIAL_BOUNDS_S, traffic.dial_buckets)
        family.add_metric([each.endpoint], buckets, traffic.dial_seconds)
    return family


def _active(chunk: Chunk, _sums: Sums) -> Metric:
    family = GaugeMetricFamily(
        PREFIX + "endpoint_active", "1 if an endpoint is active, else 0.", labels=["endpoint"]
    )
    for each in chunk:
        family.add_metric([each.endpoint], int(each.state is EndpointState.ACTIVE))
    return family


def _transitions_total(chunk: Chunk, _sums: Sums) -> Metric:
    family = CounterMetricFamily(
        PREFIX + "endpoint_transitions_total",
        "Changes of an endpoint's state, by the state it changed to.",
        labels=["endpoint", "state"],
    )
    for each in chunk:
        for state in (EndpointState.ACTIVE, EndpointState.INACTIVE):
            family.add_metric([each.endpoint, state], each.transitions.get(state, 0))
    return family


def _probes_total(chunk: Chunk, _sums: Sums) -> Metric:
    family = CounterMetricFamily(
        PREFIX + "probes_total", "Probes of an endpoint, by result.", labels=["endpoint", "result"]
    )
    for each in chunk:
        for result, count in ({"passed": 0, "failed": 0} | dict(each.probes)).items():
            family.add_metric([each.endpoint, result], count)
    return family


def _probe_seconds(chunk: Chunk, _sums: Sums) -> Metric:
    family = HistogramMetricFamily(
        PREFIX + "probe_duration_seconds",
        "How long probes took that passed or failed.",
        labels=["endpoint"],
    )
    for each in chunk:
        buckets = _buckets(DIAL_BOUNDS_S, each.probe_buckets)
        family.add_metric([each.endpoint], buckets, each.probe_seconds)
    return family


def _priority(chunk: Chunk, _sums: Sums) -> Metric:
    family = GaugeMetricFamily(
        PREFIX + "endpoint_priority",
        "SRV priority of an endpoint; a lower one is preferred.",
        labels=["endpoint"],
    )
    for each in chunk:
        family.add_metric([each.endpoint], each.priority)
    return family


def _weight(chunk: Chunk, _sums: Sums) -> Metric:
    family = GaugeMetricFamily(
        PREFIX + "endpoint_weight",
        "SRV weight of an endpoint within its priority.",
        labels=["endpoint"],
    )
    for each in chunk:
        family.add_metric([each.endpoint], each.weight)
    return family


def _traffic(each: EndpointView, sums: Sums) -> EndpointSum:
    return sums.endpoints.get(each.endpoint, NOTHING)


BY_ENDPOINT: tuple[Callable[[Chunk, Sums], Metric], ...] = (
    _sessions_now,
    _sessions_total,
    _bytes_total,
    _dials_total,
    _dial_seconds,
    _active,
    _transitions_total,
    _probes_total,
    _probe_seconds,
    _priority,
    _weight,
)
"""Families with samples for each endpoint; each is made for some endpoints at a time."""


def _gauge(name: str, text: str, value: float | None) -> Metric:
    """A gauge without labels; no sample if the value is not known."""
    family = GaugeMetricFamily(PREFIX + name, text)
    if value is not None:
        family.add_metric([], value)
    return family


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(PREFIX + name, text, value=value)


def _counts(
    name: str, text: str, label: str, known: Iterable[str], counts: Mapping[str, int]
) -> Metric:
    """A counter by one label; the known values are there from the start, at 0."""
    family = CounterMetricFamily(PREFIX + name, text, labels=[label])
    for value, count in (dict.fromkeys(known, 0) | dict(counts)).items():
        family.add_metric([value], count)
    return family


def _buckets(bounds: Sequence[float], counts: Sequence[int]) -> list[tuple[str, float]]:
    """Counts per bucket as cumulative ones with their upper bounds; missing ones are 0."""
    padded = [*counts, *[0] * (len(bounds) + 1 - len(counts))]
    names = [*(str(bound) for bound in bounds), "+Inf"]
    return list(zip(names, accumulate(padded), strict=True))
