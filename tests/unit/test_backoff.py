"""Waits double, are capped, and are jittered downwards only."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from supervisor.core.backoff import STEPS, around_s, delay_s, doubled_s


def test_doubles_up_to_the_cap() -> None:
    """Without jitter: 0.1, 0.2, 0.4, ... and then the cap for ever."""
    waits = [delay_s(n, first_s=0.1, most_s=1.0, draw=lambda _: 0) for n in (1, 2, 3, 4, 5, 10_000)]
    assert waits == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]


@given(st.integers(1, 10_000), st.floats(0.001, 10), st.floats(0.001, 1000), st.integers(0))
def test_jitter_takes_at_most_a_quarter(
    failures: int, first_s: float, most_s: float, dice: int
) -> None:
    """Any draw gives between three quarters of the wait and all of it."""
    wait_s = delay_s(failures, first_s=first_s, most_s=most_s, draw=lambda n: dice % n)
    full_s = delay_s(failures, first_s=first_s, most_s=most_s, draw=lambda _: 0)
    assert 0.75 * full_s <= wait_s <= full_s <= most_s


def test_without_jitter_the_wait_is_exact() -> None:
    """Doubled from the first wait, the cap after that, and no overflow for any number."""
    waits = [doubled_s(n, first_s=1.0, most_s=30.0) for n in (1, 2, 5, 6, 10**9)]
    assert waits == [1.0, 2.0, 16.0, 30.0, 30.0]


def test_around() -> None:
    """An interval is spread over a tenth less to a tenth more."""
    assert around_s(10.0, lambda _: 0) == 9.0
    assert 10.9 < around_s(10.0, lambda n: n - 1) < 11.0
    assert around_s(10.0, lambda _: STEPS // 2) == 10.0
