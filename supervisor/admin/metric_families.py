"""The metrics of the whole gateway and of its workers, made from the gateway's view."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from gateway.core.counters import SESSION_BOUNDS_S, End, PauseReason
from supervisor.admin.endpoint_metrics import PREFIX, cumulate, sessions_ended
from supervisor.core.admin.sums import Sums
from supervisor.core.admin.views import DiscoveryView, GatewayView, WorkerStatus, WorkerView

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
        _discoveries(view.discovery),
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
            int(not view.reload.refused),
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
    durations.add_metric([], cumulate(SESSION_BOUNDS_S, sums.session_buckets), sums.session_seconds)
    return (
        durations,
        _counts(
            "refused_total",
            "Clients closed without an endpoint, by reason.",
            "reason",
            (End.NO_ENDPOINT, End.DIAL_FAILED),
            sums.refused,
        ),
        _counts(
            "accept_paused_total",
            "Times a worker left clients in the kernel's queue, by reason.",
            "reason",
            PauseReason,
            sums.accept_paused,
        ),
        _counter(
            "log_dropped_total",
            "Log lines that could not be written in time, by the master and by workers.",
            sums.log_dropped,
        ),
        _counter(
            "handed_over_total",
            "Clients that a worker handed to one with fewer sessions.",
            sums.handed_over,
        ),
    )


def ended_without_endpoint(sums: Sums) -> Metric:
    """Sessions that ended and had reached no endpoint: those whose endpoint is empty."""
    family = sessions_ended()
    for reason, count in (dict.fromkeys(End, 0) | sums.ended_without_endpoint).items():
        family.add_metric([reason, ""], count)
    return family


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
        sessions.add_metric(label, sum(each.sessions for each in gens))
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


def _discoveries(view: DiscoveryView) -> Metric:
    family = CounterMetricFamily(
        PREFIX + "discovery_total",
        "How often endpoints were looked for, by source (flag, srv, members) and result.",
        labels=["result", "source"],
    )
    for source, results in view.by_source.items():
        for result, count in ({"success": 0, "failure": 0} | dict(results)).items():
            family.add_metric([result, source], count)
    return family


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
