"""Totals: nothing is lost, nothing counts twice, nothing goes back."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.messages import EndpointReport, Report
from supervisor.core.admin.sums import EndpointSum
from supervisor.core.admin.totals import LATE_REPORTS, Totals
from supervisor.core.workers.worker_id import WorkerId

A, B = "a.test:2379", "b.test:2379"


def report(*, sessions: int = 0, **endpoints: EndpointReport) -> Report:
    """A report with endpoints ``a`` and ``b``."""
    names = {"a": A, "b": B}
    return Report(
        snapshot_version=1,
        sessions=sessions,
        loop_lag_s=0.0,
        rss_bytes=1,
        endpoints={names[key]: each for key, each in endpoints.items()},
    )


def moved(total: int, *, sessions: int = 0) -> EndpointReport:
    """An endpoint that had ``total`` sessions of ten bytes in and twenty out each."""
    return EndpointReport(
        sessions=sessions,
        sessions_total=total,
        bytes_in=10 * total,
        bytes_out=20 * total,
        dials={"connected": total},
        dial_buckets=(0, total),
        dial_seconds=0.5 * total,
    )


def test_the_newest_report_of_a_worker_replaces_the_one_before() -> None:
    """Reports are cumulative: two reports of one worker do not add up."""
    totals = Totals()
    totals.report(WorkerId(0, 1), report(sessions=1, a=moved(3, sessions=1)))
    totals.report(WorkerId(0, 1), report(sessions=2, a=moved(5, sessions=2)))
    sums = totals.sums()
    assert sums.sessions == 2
    assert sums.endpoints[A] == EndpointSum(
        sessions=2,
        sessions_total=5,
        bytes_in=50,
        bytes_out=100,
        dials={"connected": 5},
        dial_buckets=[0, 5],
        dial_seconds=2.5,
    )


def ended(count: int, *, rtt_weight: float = 0.0) -> EndpointReport:
    """An endpoint all of whose sessions ended, and whose round trip takes 2 ms."""
    return EndpointReport(
        sessions_total=count,
        ended={"client": count},
        rtt_weight=rtt_weight,
        rtt_weighted_s=0.002 * rtt_weight,
        retransmits=count,
    )


def test_ends_belong_to_an_endpoint_or_to_none() -> None:
    """What ended without an endpoint is the rest, also when an endpoint or a worker is gone."""
    totals = Totals()
    first = dataclasses.replace(
        report(a=ended(3), b=ended(2)), ended={"client": 5, "dial-failed": 4}
    )
    totals.report(WorkerId(0, 1), first)

    def now() -> tuple[dict[str, int], dict[str, int]]:
        sums = totals.sums()
        return sums.ended_without_endpoint, sums.ended

    expected = {"client": 0, "dial-failed": 4}, {"client": 5, "dial-failed": 4}
    assert now() == expected
    assert totals.sums().endpoints[A].ended == {"client": 3}
    totals.retain({B})
    assert now() == expected
    assert A not in totals.sums().endpoints
    totals.report(WorkerId(0, 1), dataclasses.replace(first, endpoints={B: ended(2)}))
    assert now() == expected
    totals.gone(WorkerId(0, 1))
    assert now() == expected
    restored = Totals.restore(json.loads(json.dumps(totals.export())))
    assert restored.sums().ended_without_endpoint == expected[0]


def test_what_is_exported_is_not_copied() -> None:
    """An upgrade exports a report of thousands of endpoints for each worker, and waits for it."""
    totals, newest = Totals(), report(a=ended(1))
    totals.report(WorkerId(0, 1), newest)
    (living,) = totals.export()["living"]
    assert living["report"]["endpoints"][A]["ended"] is newest.endpoints[A].ended


def test_sessions_of_a_worker_that_died_have_ended() -> None:
    """Whoever subtracts those that ended from all that began gets those that go on."""
    totals = Totals()
    on_a = EndpointReport(sessions=2, sessions_total=3, ended={"client": 1})
    last = dataclasses.replace(report(sessions=3, a=on_a), ended={"client": 1})  # one still dials
    totals.report(WorkerId(0, 1), last)
    totals.report(WorkerId(1, 1), report(sessions=1, a=moved(1, sessions=1)))
    totals.gone(WorkerId(0, 1))
    sums = Totals.restore(json.loads(json.dumps(totals.export()))).sums()
    assert sums.endpoints[A].ended == {"client": 1, "error": 2}
    assert sums.ended_without_endpoint == {"client": 0, "error": 1}
    assert sums.endpoints[A].sessions_total - 3 == sums.endpoints[A].sessions == 1


def test_round_trips_are_of_living_workers_and_retransmissions_of_all() -> None:
    """A mean over the workers that sample now; a counter that never goes back."""
    totals = Totals()
    totals.report(WorkerId(0, 1), report(a=ended(1, rtt_weight=3.0)))
    totals.report(WorkerId(1, 1), report(a=ended(2, rtt_weight=1.0)))
    both = totals.sums().endpoints[A]
    assert (both.rtt_weight, both.retransmits) == (4.0, 3)
    assert both.rtt_weighted_s == pytest.approx(0.008)
    totals.gone(WorkerId(0, 1))
    left = totals.sums().endpoints[A]
    assert (left.rtt_weight, left.retransmits) == (1.0, 3)


def test_workers_add_up() -> None:
    """Two workers' counters, histograms and gauges are summed by endpoint and overall."""
    totals = Totals()
    totals.report(WorkerId(0, 1), report(sessions=1, a=moved(3, sessions=1)))
    totals.report(WorkerId(1, 1), report(sessions=2, a=moved(4, sessions=2), b=moved(1)))
    sums = totals.sums()
    assert (sums.endpoints[A].sessions, sums.endpoints[A].sessions_total) == (3, 7)
    assert sums.endpoints[A].dial_buckets == [0, 7]
    assert (sums.overall.sessions, sums.overall.sessions_total, sums.overall.bytes_in) == (3, 8, 80)


def test_a_dead_worker_keeps_counting_but_holds_no_session() -> None:
    """Its counters stay, its sessions and its memory of being alive do not."""
    totals = Totals()
    totals.report(WorkerId(0, 1), report(sessions=1, a=moved(3, sessions=1)))
    totals.gone(WorkerId(0, 1))
    totals.report(WorkerId(0, 2), report(a=moved(1)))
    sums = totals.sums()
    assert (sums.sessions, sums.endpoints[A].sessions, sums.endpoints[A].sessions_total) == (
        0,
        0,
        4,
    )
    assert totals.worker_sessions_total(WorkerId(0, 1)) == 0
    assert totals.worker_sessions_total(WorkerId(0, 2)) == 1


def test_totals_are_complete_once_each_former_worker_has_reported_or_is_gone() -> None:
    """A worker that has reported to the master before, over an upgrade, is not waited for."""
    totals = Totals()
    assert totals.complete
    totals.report(WorkerId(0, 1), report(sessions=1, a=moved(3, sessions=1)))
    totals.expect({WorkerId(0, 1), WorkerId(1, 1), WorkerId(2, 1)})
    totals.report(WorkerId(1, 1), report())
    totals.report(WorkerId(3, 1), report())
    assert not totals.complete
    totals.gone(WorkerId(2, 1))
    assert totals.complete


def test_sessions_that_are_known_before_a_worker_has_reported() -> None:
    """They count until it has; those of one that reported to the master before are as it said."""
    totals = Totals()
    totals.report(WorkerId(0, 1), report(sessions=1, a=moved(3, sessions=1)))
    known = {WorkerId(slot, 1): 10 for slot in range(2)}
    totals.expect({*known, WorkerId(2, 1)}, known)
    assert [totals.worker_sessions(WorkerId(slot, 1)) for slot in range(4)] == [1, 10, 0, 0]
    assert totals.sums().sessions == totals.live_sessions == 11
    totals.report(WorkerId(1, 1), report(sessions=2))
    assert totals.sums().sessions == totals.live_sessions == 3


def test_the_last_report_may_come_with_the_exit() -> None:
    """gone() takes a final report, also from a worker that never sent one before."""
    totals = Totals()
    totals.gone(WorkerId(0, 1), report(a=moved(2)))
    totals.gone(WorkerId(1, 1))
    assert totals.sums().overall.sessions_total == 2


def test_a_report_after_the_exit_counts_once() -> None:
    """A line that was still in the socket when the worker was reaped changes nothing."""
    totals = Totals()
    totals.report(WorkerId(0, 1), report(a=moved(2)))
    totals.gone(WorkerId(0, 1))
    totals.report(WorkerId(0, 1), report(a=moved(2)))
    assert totals.sums().overall.sessions_total == 2
    for gen in range(2, LATE_REPORTS + 2):
        totals.gone(WorkerId(0, gen))
    assert totals.sums().overall.sessions_total == 2


def test_what_belongs_to_no_endpoint_adds_up_too() -> None:
    """Ends, refusals, durations and the worker's own counts survive it."""
    totals = Totals()
    counted = Report(
        snapshot_version=1,
        sessions=0,
        loop_lag_s=0.0,
        rss_bytes=1,
        cpu_s=1.5,
        ended={"client": 2, "reset": 1},
        refused={"no-endpoint": 1},
        session_buckets=(1, 2),
        session_seconds=3.0,
        accept_paused={"limit": 4},
        log_dropped=5,
        handed_over=6,
    )
    totals.report(WorkerId(0, 1), counted)
    totals.gone(WorkerId(0, 1))
    totals.report(WorkerId(0, 2), counted)
    sums = totals.sums()
    assert sums.ended == {"client": 4, "reset": 2}
    assert sums.refused == {"no-endpoint": 2}
    assert (sums.session_buckets, sums.session_seconds) == ([2, 4], 6.0)
    assert sums.cpu_s == {"0": 3.0}
    assert Totals.restore(totals.export()).sums().cpu_s == {"0": 3.0}
    assert (sums.log_dropped, sums.handed_over) == (10, 12)
    assert sums.accept_paused == {"limit": 8}


def test_lines_that_the_master_lost_count_too_over_an_upgrade() -> None:
    """Each process says how many it has lost since it began, and the next one begins at 0."""
    totals = Totals()
    totals.count_dropped(3)
    totals.count_dropped(5)
    totals = Totals.restore(totals.export())
    totals.count_dropped(2)
    assert totals.sums().log_dropped == 7


def test_a_worker_may_drop_an_endpoint_and_begin_anew() -> None:
    """Counters that vanish from a report, or start again from zero, are kept."""
    totals = Totals()
    totals.report(WorkerId(0, 1), report(a=moved(3), b=moved(1)))
    totals.report(WorkerId(0, 1), report(b=moved(1)))
    totals.report(WorkerId(0, 1), report(a=moved(2), b=moved(1)))
    totals.report(WorkerId(0, 1), report(a=moved(1), b=moved(1)))
    sums = totals.sums()
    assert (sums.endpoints[A].sessions_total, sums.endpoints[B].sessions_total) == (6, 1)
    assert totals.worker_sessions_total(WorkerId(0, 1)) == 7


def test_seconds_add_up_to_the_same_in_any_order() -> None:
    """Of 0.1 + 0.2 + 0.3 the last bit depends on the order, and a counter that loses it went back.

    Whoever ends moves from the living to the dead, which are added up first.
    """
    totals = Totals()

    def now() -> list[float]:
        sums = totals.sums()
        dials = sums.endpoints[A].dial_seconds
        return [sums.overall.dial_seconds, dials, sums.session_seconds, sums.cpu_s["0"]]

    for gen, seconds in enumerate((0.1, 0.2, 0.3), 1):
        part = EndpointReport(sessions_total=1, dial_seconds=seconds)
        counted = dataclasses.replace(
            report(a=part, b=part), session_seconds=seconds, cpu_s=seconds
        )
        totals.report(WorkerId(0, gen), counted)
    before = now()
    for gen in (2, 3, 1):
        totals.gone(WorkerId(0, gen))
        assert now() == before
    assert before == pytest.approx([1.2, 0.6, 0.6, 0.6], abs=0.003)
    totals.retain([A])
    assert now() == before


def test_an_endpoint_that_is_gone_has_no_series_but_stays_in_the_overall_figures() -> None:
    """retain() drops it by name, living and dead parts alike; the sum does not go back."""
    totals = Totals()
    totals.report(WorkerId(0, 1), report(a=moved(3), b=moved(1)))
    totals.gone(WorkerId(0, 1))
    totals.report(WorkerId(0, 2), report(a=moved(2), b=moved(1)))
    totals.retain([B])
    assert set(totals.sums().endpoints) == {B}
    assert totals.sums().overall.sessions_total == 7
    totals.gone(WorkerId(0, 2))
    assert set(totals.sums().endpoints) == {B}
    assert totals.sums().overall.sessions_total == 7


def test_an_endpoint_that_comes_back_starts_a_new_series() -> None:
    """What was forgotten stays forgotten; the overall figures still do not go back."""
    totals = Totals()
    totals.report(WorkerId(0, 1), report(a=moved(3)))
    totals.gone(WorkerId(0, 1))
    totals.retain([])
    totals.retain([A])
    totals.report(WorkerId(0, 2), report(a=moved(1)))
    assert totals.sums().endpoints[A].sessions_total == 1
    assert totals.sums().overall.sessions_total == 4


def test_an_endpoint_that_comes_back_at_once_goes_on() -> None:
    """Live workers list one that left for a moment more: what the others counted belongs to it.

    A series of a part of the figures would be a counter that went back.
    """
    totals = Totals()
    for slot, gen in ((0, 1), (0, 2), (1, 1)):
        totals.report(WorkerId(slot, gen), report(a=moved(3)))
    totals.gone(WorkerId(0, 1))
    totals.retain([])
    assert A not in totals.sums().endpoints
    totals.report(WorkerId(0, 2), report())  # has dropped it; worker 1 has not yet
    totals.retain([A])
    assert totals.sums().endpoints[A].sessions_total == 9
    totals.retain([])
    totals.report(WorkerId(1, 1), report())
    totals.retain([])
    totals.retain([A])
    totals.report(WorkerId(1, 1), report(a=moved(1)))
    assert totals.sums().endpoints[A].sessions_total == 1
    assert totals.sums().overall.sessions_total == 10


def test_sessions_of_one_endpoint_over_all_workers() -> None:
    """The gauge the roster asks for, 0 for an unknown endpoint."""
    totals = Totals()
    totals.report(WorkerId(0, 1), report(a=moved(3, sessions=2)))
    totals.report(WorkerId(1, 1), report(a=moved(3, sessions=1), b=moved(1)))
    assert totals.traffic()[A].sessions == 3
    assert totals.live_sessions == totals.sums().sessions


def test_sessions_of_each_worker() -> None:
    """Rebalancing asks which worker has how many of them."""
    totals = Totals()
    totals.report(WorkerId(0, 1), report(a=moved(3, sessions=2)))
    totals.report(WorkerId(1, 4), report(a=moved(3, sessions=1), b=moved(1)))
    by_worker = totals.sessions_by_worker()
    assert by_worker[WorkerId(0, 1)] == {A: 2}
    assert by_worker[WorkerId(1, 4)][A] == 1


def test_the_books_survive_a_new_image_of_the_master() -> None:
    """export() goes through JSON, restore() takes fields of another release with good grace."""
    totals = Totals()
    totals.report(WorkerId(0, 1), report(a=moved(3), b=moved(1)))
    totals.gone(WorkerId(0, 1))
    totals.report(WorkerId(0, 2), report(sessions=1, a=moved(2, sessions=1)))
    totals.report(WorkerId(0, 2), report(sessions=1))
    totals.report(WorkerId(1, 2), report(a=moved(1)))
    totals.retain([A])
    document = json.loads(json.dumps(totals.export()))
    document["dead"]["unheard_of"] = 1
    document["living"][0]["report"]["unheard_of"] = 1
    again = Totals.restore(document)
    again.retain([A])
    assert again.sums() == totals.sums()
    assert again.worker_sessions_total(WorkerId(0, 2)) == 2
    again.report(WorkerId(0, 2), report(a=moved(4)))
    again.gone(WorkerId(0, 2))
    assert again.sums().overall.sessions_total == totals.sums().overall.sessions_total + 4


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["count", "report", "die", "retain", "drop", "exec"]),
        st.integers(0, 2),
        st.sampled_from([A, B]),
        st.integers(1, 5),
    ),
    max_size=60,
)


@given(STEPS)
def test_the_overall_count_is_exact_and_never_goes_back(
    steps: list[tuple[str, int, str, int]],
) -> None:
    """Whatever lives and dies, the total is what was reported, to the session."""
    totals, gens, truth, seen = Totals(), [1, 1, 1], 0, 0
    counted: list[dict[str, int]] = [{}, {}, {}]
    told: list[dict[str, int]] = [{}, {}, {}]

    for what, slot, name, number in steps:
        match what:
            case "count":
                counted[slot][name] = counted[slot].get(name, 0) + number
            case "report":
                told[slot] = dict(counted[slot])
                parts = {n: moved(count) for n, count in told[slot].items()}
                totals.report(WorkerId(slot, gens[slot]), Report(1, 0, 0.0, 0, endpoints=parts))
            case "die":
                totals.gone(WorkerId(slot, gens[slot]))
                gens[slot] += 1
                truth += sum(told[slot].values())
                counted[slot], told[slot] = {}, {}
            case "retain":
                totals.retain([name])
            case "drop" if told[slot].get(name) == counted[slot].get(name):
                truth += told[slot].pop(name, 0)
                counted[slot].pop(name, None)
                parts = {n: moved(count) for n, count in told[slot].items()}
                totals.report(WorkerId(slot, gens[slot]), Report(1, 0, 0.0, 0, endpoints=parts))
            case "exec":
                totals = Totals.restore(json.loads(json.dumps(totals.export())))
        overall = totals.sums().overall
        assert overall.sessions_total == truth + sum(sum(each.values()) for each in told)
        assert overall.bytes_in == 10 * overall.sessions_total
        assert overall.sessions_total >= seen
        seen = overall.sessions_total


def test_sessions_by_address_are_added_up_over_workers() -> None:
    """Only endpoints with several addresses are listed."""
    totals = Totals()
    totals.report(WorkerId(0, 1), report(a=EndpointReport(addresses={"10.0.0.1": 2}), b=moved(1)))
    totals.report(
        WorkerId(1, 1), report(a=EndpointReport(addresses={"10.0.0.1": 1, "10.0.0.2": 4}))
    )
    assert totals.sessions_by_address() == {A: {"10.0.0.1": 3, "10.0.0.2": 4}}


def test_pauses_without_reasons_are_left_out() -> None:
    """An image of before the reasons wrote one number."""
    totals = Totals()
    totals.report(WorkerId(0, 1), report(a=moved(1)))
    left = json.loads(json.dumps(totals.export()))
    left["dead"]["accept_paused"] = 7
    assert Totals.restore(left).sums().accept_paused == {}
