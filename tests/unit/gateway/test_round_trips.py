"""The round-trip time to an endpoint as a mean of samples."""

from __future__ import annotations

import pytest

from gateway.core.counters import EndpointCounters, WorkerCounters
from gateway.core.reports import report_of
from gateway.core.round_trips import LEAST, RoundTrips


def mean(trips: RoundTrips) -> float:
    return trips.weighted_s / trips.weight


def test_the_mean_is_of_all_samples() -> None:
    """Samples of one report count the same."""
    trips = RoundTrips()
    trips.add(0.001)
    trips.add(0.003)
    assert mean(trips) == pytest.approx(0.002)


def test_recent_samples_outweigh_old_ones() -> None:
    """A path that became slow is seen within seconds, however many samples were fast."""
    trips = RoundTrips()
    for _ in range(64):
        trips.add(0.001)
    for _ in range(30):
        trips.fade()
    for _ in range(64):
        trips.add(0.1)
    assert mean(trips) > 0.09


def test_a_quiet_endpoint_keeps_its_figure() -> None:
    """Nothing new is no reason to know nothing; but one new sample outweighs it all."""
    trips = RoundTrips()
    for _ in range(64):
        trips.add(0.001)
    while trips.fades:
        trips.fade()
    trips.fade()
    assert trips.weight == pytest.approx(LEAST)
    assert mean(trips) == pytest.approx(0.001)
    trips.add(0.1)
    assert mean(trips) > 0.09


def test_without_samples_there_is_nothing_to_fade() -> None:
    """An endpoint that was never sampled has no figure."""
    trips = RoundTrips()
    trips.fade()
    assert (trips.weight, trips.fades) == (0, False)


@pytest.mark.parametrize("sessions", [0, 1])
def test_a_figure_is_reported_while_it_is_fresh_or_there_are_sessions(sessions: int) -> None:
    """An endpoint that nobody uses any more has no round-trip time."""
    counters = WorkerCounters(endpoints={"a": EndpointCounters(sessions=sessions)})
    trips = counters.endpoints["a"].round_trips
    trips.add(0.001)

    def reported() -> float:
        report = report_of(counters, snapshot_version=1, loop_lag_s=0, rss_bytes=0, cpu_s=0)
        return report.endpoints["a"].rtt_weight

    assert reported() == 1
    while trips.fades:
        trips.fade()
    assert (reported() > 0) == (sessions > 0)
