"""The checker of histories finds what it is there to find."""

from __future__ import annotations

import pytest

from tests.etcd_history import Event, History, Read, find_faults

TRUTH = [Event(n + 2, "k", str(n)) for n in range(5)]


def history(**watches: list[Event]) -> History:
    return History(acknowledged=TRUTH[1:3], watches=watches, reads=[Read("k", 1, 1)])


def test_a_good_history_has_no_fault() -> None:
    """Every acknowledged write happened, and a watch saw everything in order."""
    assert list(find_faults(history(a=list(TRUTH)), TRUTH)) == []


@pytest.mark.parametrize(
    ("seen", "fault"),
    [
        ([*TRUTH[:2], *TRUTH[3:]], "a: missed 1 events, first"),
        (TRUTH[:4], "a: missed 1 events, first"),
        ([*TRUTH, TRUTH[4]], "a: 1 events twice"),
        ([TRUTH[1], TRUTH[0], *TRUTH[2:]], "a: out of order"),
        ([*TRUTH, Event(9, "k", "x")], "a: 1 events that never were"),
    ],
)
def test_a_watch_that_is_wrong_is_found(seen: list[Event], fault: str) -> None:
    """A gap, a loss at the end, a repetition, a wrong order and an invention are told apart."""
    (found,) = find_faults(history(a=seen), TRUTH)
    assert found.startswith(fault)


def test_a_lost_write_is_found() -> None:
    """An acknowledged write that etcd does not know of, or knows at another revision."""
    lost = History(acknowledged=[Event(2, "k", "1")])
    (found,) = find_faults(lost, TRUTH)
    assert found.startswith("acknowledged and lost")


def test_a_stale_read_is_found() -> None:
    """A read must not be older than what was acknowledged before it began."""
    (found,) = find_faults(History(reads=[Read("k", 3, 2)]), TRUTH)
    assert found.startswith("stale read")
