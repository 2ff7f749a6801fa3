"""The metrics that have samples for each endpoint.

Each family is made for some endpoints at a time, because all samples of 3,000 endpoints at a
stretch would hold up the master.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from gateway.core.counters import DIAL_BOUNDS_S, NEVER_REACHED, DialResult, End
from gateway.core.endpoint import EndpointState
from supervisor.core.admin.sums import EndpointSum, Sums
from supervisor.core.admin.views import EndpointView
from supervisor.core.health.probing import Verdict

PREFIX = "etcd_gateway_"

Chunk = Sequence[EndpointView]
Family = Callable[[Chunk, Sums], Metric]

NOTHING = EndpointSum()
ENDS = {end.value: 0 for end in End if end not in NEVER_REACHED}


def _one_sample(
    kind: type[GaugeMetricFamily | CounterMetricFamily],
    name: str,
    text: str,
    value: Callable[[EndpointView, EndpointSum], float | None],
) -> Family:
    """A family with one sample for each endpoint; none where ``value`` gives None."""

    def make(chunk: Chunk, sums: Sums) -> Metric:
        family = kind(PREFIX + name, text, labels=["endpoint"])
        for each in chunk:
            if (sample := value(each, _traffic(each, sums))) is not None:
                family.add_metric([each.endpoint], sample)
        return family

    return make


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
        buckets = cumulate(DIAL_BOUNDS_S, traffic.dial_buckets)
        family.add_metric([each.endpoint], buckets, traffic.dial_seconds)
    return family


def sessions_ended() -> CounterMetricFamily:
    """The family of the sessions that ended, without samples."""
    return CounterMetricFamily(
        PREFIX + "sessions_ended_total",
        "Sessions that ended, by reason and endpoint; reaching none, the endpoint is empty.",
        labels=["reason", "endpoint"],
    )


def ended_by_endpoint(chunk: Chunk, sums: Sums) -> Metric:
    """Sessions that reached an endpoint; see ``metric_families`` for the others."""
    family = sessions_ended()
    for each in chunk:
        for reason, count in (ENDS | _traffic(each, sums).ended).items():
            family.add_metric([reason, each.endpoint], count)
    return family


def _addresses(chunk: Chunk, _sums: Sums) -> Metric:
    family = GaugeMetricFamily(
        PREFIX + "endpoint_addresses",
        "Addresses of an endpoint with several, by state.",
        labels=["endpoint", "state"],
    )
    for each in chunk:
        if each.address_views:
            active = sum(view.active for view in each.address_views.values())
            family.add_metric([each.endpoint, "active"], active)
            family.add_metric([each.endpoint, "inactive"], len(each.address_views) - active)
    return family


def _transitions_total(chunk: Chunk, _sums: Sums) -> Metric:
    family = CounterMetricFamily(
        PREFIX + "endpoint_transitions_total",
        "Changes of an endpoint's state, by the state it changed to.",
        labels=["endpoint", "state"],
    )
    for each in chunk:
        for state in (EndpointState.ACTIVE, EndpointState.INACTIVE):
            family.add_metric([each.endpoint, state], each.health.transitions.get(state, 0))
    return family


def _probes_total(chunk: Chunk, _sums: Sums) -> Metric:
    family = CounterMetricFamily(
        PREFIX + "probes_total", "Probes of an endpoint, by result.", labels=["endpoint", "result"]
    )
    for each in chunk:
        for result in Verdict:
            family.add_metric([each.endpoint, result.value], each.health.probes.get(result, 0))
    return family


def _probe_seconds(chunk: Chunk, _sums: Sums) -> Metric:
    family = HistogramMetricFamily(
        PREFIX + "probe_duration_seconds",
        "How long probes took that passed or failed.",
        labels=["endpoint"],
    )
    for each in chunk:
        buckets = cumulate(DIAL_BOUNDS_S, each.health.probe_buckets)
        family.add_metric([each.endpoint], buckets, each.health.probe_seconds)
    return family


def _traffic(each: EndpointView, sums: Sums) -> EndpointSum:
    return sums.endpoints.get(each.endpoint, NOTHING)


BY_ENDPOINT: tuple[Family, ...] = (
    _one_sample(
        GaugeMetricFamily,
        "sessions",
        "Sessions an endpoint has now.",
        lambda _, traffic: traffic.sessions,
    ),
    _one_sample(
        CounterMetricFamily,
        "sessions_total",
        "Sessions that reached an endpoint.",
        lambda _, traffic: traffic.sessions_total,
    ),
    _bytes_total,
    _dials_total,
    _dial_seconds,
    _one_sample(
        GaugeMetricFamily,
        "tcp_rtt_seconds",
        "Round-trip time of the connections to an endpoint, mean of recent samples.",
        lambda _, traffic: traffic.rtt_s,
    ),
    _one_sample(
        CounterMetricFamily,
        "tcp_retransmits_total",
        "Segments sent to an endpoint again, on the connections that were sampled.",
        lambda _, traffic: traffic.retransmits,
    ),
    _one_sample(
        GaugeMetricFamily,
        "endpoint_active",
        "1 if an endpoint is active, else 0.",
        lambda each, _: each.state is EndpointState.ACTIVE,
    ),
    _one_sample(
        GaugeMetricFamily,
        "endpoint_draining",
        "1 if an endpoint is under maintenance (--drain-endpoints), else 0.",
        lambda each, _: each.state is EndpointState.DRAINING,
    ),
    _one_sample(
        GaugeMetricFamily,
        "endpoint_removed",
        "1 if an endpoint is not found any more and its sessions have their grace, else 0.",
        lambda each, _: each.state is EndpointState.REMOVED,
    ),
    _addresses,
    _transitions_total,
    _probes_total,
    _probe_seconds,
    _one_sample(
        GaugeMetricFamily,
        "endpoint_certificate_not_after_timestamp_seconds",
        "When the first certificate of an endpoint ends, as TLS handshakes showed it.",
        lambda each, _: each.certificate_not_after,
    ),
    _one_sample(
        GaugeMetricFamily,
        "endpoint_priority",
        "SRV priority of an endpoint; a lower one is preferred.",
        lambda each, _: each.priority,
    ),
    _one_sample(
        GaugeMetricFamily,
        "endpoint_weight",
        "SRV weight of an endpoint within its priority.",
        lambda each, _: each.weight,
    ),
)
"""Families with samples for each endpoint; each is made for some endpoints at a time."""


def cumulate(bounds: Sequence[float], counts: Sequence[int]) -> list[tuple[str, float]]:
    """Counts per bucket as cumulative ones with their upper bounds; missing ones are 0."""
    padded = [*counts, *[0] * (len(bounds) + 1 - len(counts))]
    names = [*(str(bound) for bound in bounds), "+Inf"]
    return list(zip(names, accumulate(padded), strict=True))
