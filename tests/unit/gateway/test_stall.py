"""Who takes no bytes lives as long as it answers, and is given up when it fell silent."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.stall import AHEAD, LEAST_UNANSWERED, LONGEST_STEP_S, Signs, Stall, step_s

TIMEOUT_S = 30.0
ANSWERS = Signs(waiting=True, silent_s=0.5, unanswered=0, backoff=3)


@pytest.mark.parametrize(("timeout_s", "step"), [(1.0, 0.0625), (8.0, 0.5), (30.0, 1.0)])
def test_looks_are_a_second_apart_at_most(timeout_s: float, step: float) -> None:
    """Short timeouts are looked after more often."""
    assert step_s(timeout_s) == step <= LONGEST_STEP_S


def test_silence_for_the_timeout_is_the_end() -> None:
    """Nothing was heard for a timeout although the kernel asked: gone."""
    gone = Signs(waiting=True, silent_s=TIMEOUT_S, unanswered=LEAST_UNANSWERED, backoff=5)
    assert Stall(0.0, TIMEOUT_S).judge(gone, 40.0, TIMEOUT_S) is None


def test_silence_that_was_not_asked_into_proves_nothing() -> None:
    """One lost packet is no death; a kernel that probes seldom is not the peer's fault."""
    quiet = Signs(waiting=True, silent_s=3 * TIMEOUT_S, unanswered=1, backoff=9)
    assert Stall(0.0, TIMEOUT_S).judge(quiet, 100.0, TIMEOUT_S) is not None


@given(timeout_s=st.floats(0.1, 3600), steps=st.integers(1, 400), found_late=st.floats(0, AHEAD))
def test_the_deadline_stays_a_little_ahead_of_the_kernels_clock(
    timeout_s: float, steps: int, found_late: float
) -> None:
    """Never passed by the next look; never below the timeout; never far ahead in a long stall."""
    began_at = -found_late * timeout_s
    stall = Stall(0.0, timeout_s)
    step = step_s(timeout_s)
    for turn in range(steps):
        now = turn * step
        deadline_s = stall.judge(ANSWERS, now, timeout_s)
        assert deadline_s is not None
        left_s = deadline_s - (now - began_at)
        assert deadline_s >= timeout_s
        assert left_s >= 2 * step * 0.999
        assert deadline_s == timeout_s or left_s <= 2 * AHEAD * timeout_s * 1.001


def test_the_kernel_starting_anew_is_noticed() -> None:
    """Its backoff fell: the window was open for a moment, so this is another, younger stall."""
    stall = Stall(0.0, TIMEOUT_S)
    assert stall.judge(ANSWERS, 100.0, TIMEOUT_S) == pytest.approx(100 + 2 * AHEAD * TIMEOUT_S)
    younger = dataclasses.replace(ANSWERS, backoff=1)
    assert stall.judge(younger, 101.0, TIMEOUT_S) == TIMEOUT_S
    assert stall.judge(younger, 200.0, TIMEOUT_S) == pytest.approx(100 + AHEAD * TIMEOUT_S)
