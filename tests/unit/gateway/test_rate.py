"""--max-session-rate as one worker sees it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.rate import RateLimit


def test_the_first_client_is_taken_and_the_next_waits() -> None:
    """Ten a second is one every tenth of a second, after a quiet time too."""
    rate = RateLimit(10, total=7, now=100.0)
    assert rate.wait_s(7, 100.0) == 0.0
    assert rate.wait_s(8, 100.0) == pytest.approx(0.1)
    assert rate.wait_s(8, 100.1) == 0.0
    assert rate.wait_s(9, 500.0) == pytest.approx(0.1)


def test_high_rates_have_bursts() -> None:
    """A thousand a second may be a hundred at once, or the timer would be the limit."""
    rate = RateLimit(1000, total=0, now=0.0)
    assert rate.wait_s(99, 0.0) == 0.0
    assert rate.wait_s(100, 0.0) == pytest.approx(0.001)


def test_clients_of_other_workers_count() -> None:
    """What the others took too many is waited for."""
    rate = RateLimit(10, total=0, now=0.0)
    assert rate.wait_s(8, 0.0) == pytest.approx(0.8)


def test_a_total_that_dips_is_not_counted_twice() -> None:
    """While the count of a worker that ended is moved, its clients are missing for a moment."""
    rate = RateLimit(10, total=1000, now=0.0)
    assert rate.wait_s(20, 1.0) == 0.0
    assert rate.wait_s(1001, 2.0) == pytest.approx(0.1)


@pytest.mark.slow
@given(st.integers(1, 1000), st.integers(1, 8), st.floats(5.0, 50.0))
def test_the_rate_holds_over_all_workers(per_s: int, workers: int, seconds: float) -> None:
    """Workers that are never short of clients take the rate in the mean, and no more."""
    limits = [RateLimit(per_s, 0, 0.0) for _ in range(workers)]
    due = [0.0] * workers
    total = 0
    while (now := min(due)) < seconds and total < 3000:
        slot = due.index(now)
        wait_s = limits[slot].wait_s(total, now)
        if not wait_s:
            total += 1
        due[slot] = now + max(wait_s, 1e-4)
    assert total <= per_s * now + limits[0].burst + workers
    assert total >= min(3000, (per_s * seconds) * 0.8 - workers)
