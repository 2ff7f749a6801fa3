"""Who takes no bytes lives as long as it answers, and is given up when it fell silent."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.stall import (
    LEAST_UNANSWERED,
    LONGEST_STEP_S,
    SHORTEST_STEP_S,
    Signs,
    Stall,
    ahead_s,
    longest_gap_s,
    step_s,
)

TIMEOUT_S = 30.0
GONE = Signs(waiting=True, silent_s=TIMEOUT_S, unanswered=LEAST_UNANSWERED)


@pytest.mark.parametrize(("timeout_s", "step"), [(1.0, 0.0625), (8.0, 0.5), (30.0, 1.0)])
def test_looks_are_a_second_apart_at_most(timeout_s: float, step: float) -> None:
    """Short timeouts are looked after more often."""
    assert step_s(timeout_s) == step <= LONGEST_STEP_S


@pytest.mark.parametrize("timeout_s", [0.001, 0.005, 0.1])
def test_the_shortest_timeouts_leave_the_worker_in_peace(timeout_s: float) -> None:
    """A timer that is due at once would keep a worker busy that has nothing to do."""
    assert step_s(timeout_s) == SHORTEST_STEP_S
    assert ahead_s(timeout_s) >= 2 * SHORTEST_STEP_S


@pytest.mark.parametrize(("timeout_s", "gap_s"), [(1.0, 1.0), (30.0, 3.75), (7200.0, 120.0)])
def test_gaps_between_probes_are_bounded(timeout_s: float, gap_s: float) -> None:
    """By an eighth of the timeout, as far as the kernel's option goes."""
    assert longest_gap_s(timeout_s) == gap_s


def test_silence_for_the_timeout_is_the_end() -> None:
    """Nothing was heard for a timeout although the kernel asked: gone."""
    assert Stall(0.0, TIMEOUT_S).has_vanished(GONE, 40.0, TIMEOUT_S)


def test_silence_that_was_not_asked_into_proves_nothing() -> None:
    """One lost packet is no death; a kernel that probes seldom is not the peer's fault."""
    quiet = Signs(waiting=True, silent_s=3 * TIMEOUT_S, unanswered=1)
    assert not Stall(0.0, TIMEOUT_S).has_vanished(quiet, 100.0, TIMEOUT_S)


def test_an_answer_within_the_timeout_is_life() -> None:
    """However long it has taken no bytes."""
    alive = Signs(waiting=True, silent_s=TIMEOUT_S - 1, unanswered=5)
    assert not Stall(0.0, TIMEOUT_S).has_vanished(alive, 1e6, TIMEOUT_S)


def test_silence_from_before_the_stall_does_not_count() -> None:
    """A session that was idle for an hour: a network that fails for a moment does not end it."""
    stall = Stall(0.0, TIMEOUT_S)
    idle = Signs(waiting=True, silent_s=3600.0, unanswered=3)
    assert not stall.has_vanished(idle, 1.0, TIMEOUT_S)
    assert stall.has_vanished(idle, TIMEOUT_S, TIMEOUT_S)
    stall.begin(7200.0)
    assert not stall.has_vanished(idle, 7201.0, TIMEOUT_S)
    assert stall.has_vanished(idle, 7200.0 + TIMEOUT_S, TIMEOUT_S)


@given(
    timeout_s=st.floats(0.001, 3600),
    looks=st.lists(st.booleans(), min_size=1, max_size=400),
    found_late=st.floats(0, 1),
    counts_from=st.integers(0, 400),
)
def test_the_kernels_deadline_is_never_passed(
    timeout_s: float, looks: list[bool], found_late: float, counts_from: int
) -> None:
    """Whichever stall the kernel counts from, the first or a later one: two looks may be late."""
    step = step_s(timeout_s)
    stall = Stall(0.0, timeout_s)
    kernel_from = -found_late * ahead_s(timeout_s) + min(counts_from, len(looks)) * step
    for turn, again in enumerate(looks):
        now = turn * step
        if again:
            stall.begin(now)
        deadline_s = stall.kernel_timeout_s(now, timeout_s)
        assert deadline_s >= timeout_s
        assert deadline_s - (now - kernel_from) >= 2 * step * 0.999
