"""--max-session-rate as one worker sees it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.rate import RateLimit


def test_the_first_client_is_taken_and_the_next_waits() -> None:
    """Ten a second is one every tenth of a second, after a quiet time too."""
    rate = RateLimit(10, total=7)
    assert rate.wait_s(7, 100.0) == 0.0
    assert rate.wait_s(8, 100.0, own=1) == pytest.approx(0.1)
    assert rate.wait_s(8, 100.1) == 0.0
    assert rate.wait_s(9, 500.0, own=1) == pytest.approx(0.1)


def test_high_rates_have_bursts() -> None:
    """A thousand a second may be a hundred at once, or the timer would be the limit."""
    rate = RateLimit(1000, total=0)
    assert rate.wait_s(99, 5.0, own=99) == 0.0
    assert rate.wait_s(100, 5.0, own=1) == pytest.approx(0.001)


def test_clients_of_other_workers_count() -> None:
    """What the others took too many is waited for."""
    rate = RateLimit(10, total=0)
    assert rate.wait_s(0, 0.1) == 0.0
    assert rate.wait_s(8, 0.1) == pytest.approx(0.8)


def test_what_others_took_in_a_long_time_is_no_burst() -> None:
    """A worker that had no client for long waits no longer than the one that had them all."""
    busy, idle = RateLimit(10, total=0), RateLimit(10, total=0)
    assert idle.wait_s(1, 0.1, own=1) == pytest.approx(0.1)
    for n in range(1, 100):
        assert busy.wait_s(n + 1, n * 1.0, own=1, marks=[idle.mark]) == pytest.approx(0.1)
    assert idle.wait_s(101, 99.5, own=1, marks=[busy.mark]) == pytest.approx(0.1)


def test_all_workers_wait_until_the_same_moment() -> None:
    """Else the one that may go on first would be first for ever, and the others' clients wait."""
    first, second, third = limits = [RateLimit(10, total=0) for _ in range(3)]
    assert first.wait_s(1, 1.0, own=1) == pytest.approx(0.1)
    assert second.wait_s(2, 1.08, own=1, marks=[first.mark]) == pytest.approx(0.12)
    assert third.wait_s(2, 1.15, marks=[first.mark, second.mark]) == pytest.approx(0.05)
    marks = [each.mark for each in limits]
    assert [each.wait_s(3, 1.2, marks=marks) for each in limits] == [pytest.approx(0.1)] * 3


def test_a_worker_without_a_mark_says_nothing() -> None:
    """It has accepted nobody under this rate yet."""
    rate = RateLimit(10, total=0)
    assert rate.wait_s(1, 1.0, own=1, marks=[0]) == pytest.approx(0.1)


def test_a_rate_beyond_all_measure_has_marks_that_fit() -> None:
    """A cell of the scoreboard has 64 bits."""
    rate = RateLimit(10**15, total=0)
    assert rate.wait_s(1, 1e9, own=1) == 0.0
    assert abs(rate.mark) < 2**63


def test_a_total_that_dips_is_not_counted_twice() -> None:
    """While the count of a worker that ended is moved, its clients are missing for a moment."""
    rate = RateLimit(10, total=1000)
    assert rate.wait_s(20, 1.0) == 0.0
    assert rate.wait_s(1001, 2.0, own=1) == pytest.approx(0.1)


@pytest.mark.slow
@given(st.integers(1, 1000), st.integers(1, 8), st.floats(5.0, 50.0))
def test_the_rate_holds_over_all_workers(per_s: int, workers: int, seconds: float) -> None:
    """Workers that are never short of clients take the rate in the mean, and no more."""
    limits = [RateLimit(per_s, 0) for _ in range(workers)]
    due = [0.0] * workers
    total = 0
    while (now := min(due)) < seconds and total < 3000:
        slot = due.index(now)
        marks = [each.mark for each in limits]
        wait_s = limits[slot].wait_s(total, now, marks=marks)
        if not wait_s:
            total += 1
            wait_s = limits[slot].wait_s(total, now, own=1, marks=marks)
        due[slot] = now + max(wait_s, 1e-4)
    assert total <= per_s * now + limits[0].burst + workers
    assert total >= min(3000, (per_s * seconds) * 0.8 - workers)
