"""The limit on sessions holds for the whole gateway, and nobody who waits is lost."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator

import pytest

from gateway.ingress.quota import QUIET_NS, Quota
from gateway.scoreboard import Scoreboard


class Worker:
    """One worker's quota with a count of sessions that the test moves."""

    def __init__(self, scoreboard: Scoreboard, slot: int, most: int) -> None:
        self.held: list[int] = []
        self._scoreboard, self._slot = scoreboard, slot
        scoreboard.enter(slot, 1000 + slot)
        self.quota = Quota(
            scoreboard, slot=slot, slots=2, own=lambda: len(self.held), serve=self._serve
        )
        self.quota.max_sessions = most

    def _serve(self, fd: int) -> None:
        self.held.append(fd)
        self._scoreboard.set_sessions(self._slot, len(self.held))

    def end_one(self) -> None:
        self.held.pop()
        self._scoreboard.set_sessions(self._slot, len(self.held))


@pytest.fixture
def scoreboard() -> Iterator[Scoreboard]:
    made = Scoreboard()
    yield made
    made.close()


def test_the_limit_is_of_all_workers_together(scoreboard: Scoreboard) -> None:
    """What one holds the other may not; a place that is free anywhere is free for both."""
    first, second = Worker(scoreboard, 0, 3), Worker(scoreboard, 1, 3)
    for fd in (1, 2):
        first.quota.admit(fd)
    second.quota.admit(3)
    assert (first.held, second.held) == ([1, 2], [3])
    assert (first.quota.limit, second.quota.limit) == (2, 1)
    first.end_one()
    assert (first.quota.limit, second.quota.limit) == (2, 2)


def test_a_client_too_many_is_held_back_and_served_in_its_turn(scoreboard: Scoreboard) -> None:
    """Accepted too early is as good as queued: it waits, and in order."""
    first, second = Worker(scoreboard, 0, 1), Worker(scoreboard, 1, 1)
    first.quota.admit(1)
    second.quota.admit(2)
    second.quota.admit(3)
    assert second.held == []
    assert second.quota.held_back == 2
    assert scoreboard.sessions(2) == [1, 0]
    first.end_one()
    second.quota.serve_held_back()
    assert second.held == [2]
    second.end_one()
    second.quota.serve_held_back()
    assert second.held == [3]
    assert second.quota.held_back == 0


def test_a_limit_that_was_lifted_lets_everybody_in(scoreboard: Scoreboard) -> None:
    """After a reload without --max-sessions the held_back are served at once."""
    worker = Worker(scoreboard, 0, 1)
    worker.quota.admit(1)
    worker.quota.admit(2)
    worker.quota.max_sessions = 0
    worker.quota.serve_held_back()
    worker.quota.admit(3)
    assert worker.held == [1, 2, 3]
    assert worker.quota.limit == worker.quota.most_by_descriptors != 0


def test_held_back_clients_are_closed_at_the_end(scoreboard: Scoreboard) -> None:
    """A worker that leaves leaves no descriptor."""
    worker = Worker(scoreboard, 0, 1)
    worker.quota.admit(1)
    fd = os.dup(0)
    worker.quota.admit(fd)
    worker.quota.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_more_slots_count_when_they_come(scoreboard: Scoreboard) -> None:
    """A third worker's sessions count for the limit once it exists."""
    first = Worker(scoreboard, 0, 2)
    scoreboard.set_sessions(2, 2)
    assert first.quota.limit == 2
    first.quota.set_slots(3)
    assert first.quota.limit == 0


def test_no_place_is_not_no_limit(scoreboard: Scoreboard) -> None:
    """A worker without sessions accepts nobody while others hold every place."""
    first, second = Worker(scoreboard, 0, 1), Worker(scoreboard, 1, 1)
    first.quota.admit(1)
    assert second.quota.limit == 0


def test_without_any_limit(scoreboard: Scoreboard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unlimited descriptors and no --max-sessions: everybody is accepted."""
    infinity = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    monkeypatch.setattr(resource, "getrlimit", lambda _: infinity)
    worker = Worker(scoreboard, 0, 0)
    assert worker.quota.limit is None
    worker.quota.max_sessions = 5
    assert worker.quota.limit == 5


def test_sockets_on_their_way_hold_a_place(scoreboard: Scoreboard) -> None:
    """Nobody is accepted for the place of a client that was just handed over."""
    first = Worker(scoreboard, 0, 2)
    scoreboard.put(0, 1)
    assert first.quota.limit == 1
    scoreboard.took(1)
    assert first.quota.limit == 2


def test_a_free_place_goes_to_who_waited_longest(scoreboard: Scoreboard) -> None:
    """Wherever a session ends, the slot first in the line is next; after its turn it is last."""
    first, second = Worker(scoreboard, 0, 1), Worker(scoreboard, 1, 1)
    assert first.quota.next_in_line() is None
    second.quota.note(True, 10)
    first.quota.note(True, 20)
    second.quota.note(True, 30)
    assert first.quota.next_in_line() == 1
    assert second.quota.next_in_line() is None
    second.quota.served()
    second.quota.note(True, 40)
    assert first.quota.next_in_line() is None
    assert second.quota.next_in_line() == 0
    first.quota.note(False, 50)
    assert first.quota.next_in_line() == 1
    first.quota.max_sessions = 0
    assert first.quota.next_in_line() is None


def test_held_back_clients_stand_in_the_line(scoreboard: Scoreboard) -> None:
    """A client that was accepted too early waits like those in the kernel's queue."""
    first, second = Worker(scoreboard, 0, 1), Worker(scoreboard, 1, 1)
    first.quota.admit(1)
    second.quota.admit(2)
    second.quota.note(False, 10)
    assert first.quota.next_in_line() == 1


def test_the_log_hears_of_the_limit_once_a_minute_from_one_worker(scoreboard: Scoreboard) -> None:
    """Eight workers that reach the limit together are one line."""
    first, second = Worker(scoreboard, 0, 1), Worker(scoreboard, 1, 1)
    assert first.quota.may_tell(QUIET_NS)
    assert not second.quota.may_tell(QUIET_NS + 1)
    assert not first.quota.may_tell(QUIET_NS + 1)
    assert second.quota.may_tell(2 * QUIET_NS)
