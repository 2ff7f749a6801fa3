"""The limit on sessions holds for the whole gateway, and nobody who waits is lost."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

from gateway.core.counters import PauseReason, WorkerCounters
from gateway.core.descriptor_budget import RESERVE, DescriptorBudget
from gateway.ingress.quota import NEAR, QUIET_NS, Quota
from gateway.scoreboard import STALE_NS, Scoreboard

NOW_NS = 100 * STALE_NS


class Worker:
    """One worker's quota with sessions that the test ends."""

    def __init__(self, scoreboard: Scoreboard, most: int, *, slot: int = 0) -> None:
        self.held: list[int] = []
        self._scoreboard = scoreboard
        self.row = scoreboard.open_row(slot, 1)
        self.counters = WorkerCounters()
        self.budget = DescriptorBudget(self.counters)
        self.in_flight = self.reclaimed = 0
        self.closing: list[int] = []
        scoreboard.enter(self.row, 1000 + self.row)
        scoreboard.set_accepting(self.row, True)
        scoreboard.beat(self.row, NOW_NS)
        self.quota = Quota(
            scoreboard,
            row=self.row,
            counters=self.counters,
            budget=self.budget,
            serve=self._serve,
            closing=self.closing,
            in_flight=lambda: self.in_flight,
            reclaim=self._reclaim,
        )
        self.quota.max_sessions = most

    def _serve(self, fd: int, _peer: object) -> None:
        self.held.append(fd)
        self._publish()

    def _reclaim(self) -> None:
        self.reclaimed += 1

    def end_one(self) -> None:
        self.held.pop()
        self._publish()

    def _publish(self) -> None:
        self.counters.sessions = len(self.held)
        self._scoreboard.set_sessions(self.row, len(self.held))


@pytest.fixture
def scoreboard() -> Iterator[Scoreboard]:
    made = Scoreboard()
    yield made
    made.close()


def test_the_limit_is_of_all_workers_together(scoreboard: Scoreboard) -> None:
    """What one holds the other may not; a place that is free anywhere is free for both."""
    first, second = Worker(scoreboard, 3, slot=0), Worker(scoreboard, 3, slot=1)
    for fd in (1, 2):
        first.quota.admit(fd)
    second.quota.admit(3)
    assert (first.held, second.held) == ([1, 2], [3])
    assert (first.quota.room(), second.quota.room()) == (0, 0)
    assert first.quota.shortage is PauseReason.LIMIT
    first.end_one()
    assert (first.quota.room(), second.quota.room()) == (1, 1)


def test_a_client_too_many_is_held_back_and_served_in_its_turn(scoreboard: Scoreboard) -> None:
    """Accepted too early is as good as queued: it waits, and in order."""
    first, second = Worker(scoreboard, 1, slot=0), Worker(scoreboard, 1, slot=1)
    first.quota.admit(1)
    second.quota.admit(2)
    second.quota.admit(3)
    assert second.held == []
    assert second.quota.held_back == 2
    assert scoreboard.row_sessions() == [1, 0]
    first.end_one()
    second.quota.serve_held_back()
    assert second.held == [2]
    second.end_one()
    second.quota.serve_held_back()
    assert second.held == [3]
    assert second.quota.held_back == 0


def test_who_is_held_back_is_not_overtaken(scoreboard: Scoreboard) -> None:
    """A client that comes as a place is free waits behind those that were held back before."""
    first, second = Worker(scoreboard, 1, slot=0), Worker(scoreboard, 1, slot=1)
    first.quota.admit(1)
    second.quota.admit(2)
    first.end_one()
    second.quota.admit(3)
    assert second.held == []
    second.quota.serve_held_back()
    assert second.held == [2]
    assert second.quota.held_back == 1


def test_a_limit_that_was_lifted_lets_everybody_in(scoreboard: Scoreboard) -> None:
    """After a reload without --max-sessions the held_back are served at once."""
    worker = Worker(scoreboard, 1, slot=0)
    worker.quota.admit(1)
    worker.quota.admit(2)
    worker.quota.max_sessions = 0
    worker.quota.serve_held_back()
    worker.quota.admit(3)
    assert worker.held == [1, 2, 3]
    assert worker.quota.room() > 1000


def test_thousands_of_sessions_that_end_at_once_are_not_as_many_calls_deep(
    scoreboard: Scoreboard,
) -> None:
    """Each makes room for the next of those held back, while it is being served."""
    worker = Worker(scoreboard, 1)
    served = 0

    def serve_and_end(_fd: int, _peer: object) -> None:
        nonlocal served
        served += 1
        scoreboard.set_sessions(worker.row, 0)
        quota.serve_held_back()

    quota = Quota(
        scoreboard,
        row=worker.row,
        counters=worker.counters,
        budget=worker.budget,
        serve=serve_and_end,
    )
    quota.max_sessions = 1
    scoreboard.set_sessions(worker.row, 1)
    worker.counters.sessions = 1
    clients = 2 * sys.getrecursionlimit()
    for number in range(clients):
        quota.admit(number)
    assert (served, quota.held_back) == (0, clients)
    worker.counters.sessions = 0
    scoreboard.set_sessions(worker.row, 0)
    quota.serve_held_back()
    assert (served, quota.held_back) == (clients, 0)


def test_held_back_clients_are_closed_at_the_end(scoreboard: Scoreboard) -> None:
    """A worker that leaves leaves no descriptor."""
    worker = Worker(scoreboard, 1, slot=0)
    worker.quota.admit(1)
    fd = os.dup(0)
    worker.quota.admit(fd)
    worker.quota.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_a_client_that_cannot_be_counted_is_closed() -> None:
    """The quota owns whom it was given, whatever fails."""
    scoreboard = Scoreboard()
    worker = Worker(scoreboard, 1, slot=0)
    fd = os.dup(0)
    scoreboard.close()
    with pytest.raises(ValueError, match="released"):
        worker.quota.admit(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    assert worker.quota.held_back == 0


def test_workers_count_when_they_come(scoreboard: Scoreboard) -> None:
    """A third worker's sessions count for the limit once it exists, and no longer than that."""
    first = Worker(scoreboard, 2)
    assert first.quota.room() == 2
    later = scoreboard.open_row(7, 3)
    scoreboard.set_sessions(later, 2)
    assert first.quota.room() == 0
    scoreboard.close_row(later)
    assert first.quota.room() == 2


def test_a_draining_predecessor_counts(scoreboard: Scoreboard) -> None:
    """Two workers of one slot have a row each: neither overwrites the other's sessions."""
    old, new = Worker(scoreboard, 3, slot=5), Worker(scoreboard, 3, slot=5)
    old.quota.admit(1)
    old.quota.admit(2)
    new.quota.admit(3)
    new.quota.admit(4)
    assert (old.held, new.held) == ([1, 2], [3])
    assert scoreboard.total_sessions() == 3


def test_no_place_is_not_no_limit(scoreboard: Scoreboard) -> None:
    """A worker without sessions accepts nobody while others hold every place."""
    first, second = Worker(scoreboard, 1, slot=0), Worker(scoreboard, 1, slot=1)
    first.quota.admit(1)
    assert second.quota.room() == 0


def test_clients_on_their_way_hold_a_place(scoreboard: Scoreboard) -> None:
    """Nobody is accepted for the place of a client that was just handed over."""
    worker = Worker(scoreboard, 2)
    worker.in_flight = 1
    assert worker.quota.room() == 1
    worker.in_flight = 3
    assert worker.quota.room() == 0
    worker.quota.max_sessions = NEAR + 2
    assert worker.quota.room() == NEAR + 2, "far from the limit it is not worth asking"


def test_room_by_descriptors(scoreboard: Scoreboard) -> None:
    """Two for each client; those that are about to be closed are not free yet."""
    worker = Worker(scoreboard, 0)
    worker.budget.limit(100, 100 - RESERVE - 4)
    assert worker.quota.room() == 2
    worker.closing.append(7)
    assert worker.quota.room() == 1
    worker.quota.admit(1)
    assert worker.reclaimed == 0
    assert worker.quota.room() == 0
    assert worker.quota.shortage is PauseReason.DESCRIPTORS
    assert worker.reclaimed == 1


def test_clients_held_back_hold_a_descriptor(scoreboard: Scoreboard) -> None:
    """One each, until they are served; then they count as sessions."""
    worker = Worker(scoreboard, 1)
    before = worker.budget.free
    worker.quota.admit(1)
    worker.quota.admit(2)
    assert before - worker.budget.free == 3
    worker.end_one()
    worker.quota.serve_held_back()
    assert before - worker.budget.free == 2


def test_clients_held_back_wait_for_descriptors_too(scoreboard: Scoreboard) -> None:
    """A limit that is lifted lets in no more than can be dialed for."""
    worker = Worker(scoreboard, 1)
    worker.budget.limit(100, 100 - RESERVE - 5)
    for fd in (1, 2, 3):
        worker.quota.admit(fd)
    worker.quota.max_sessions = 0
    worker.quota.serve_held_back()
    assert (worker.held, worker.quota.held_back) == ([1, 2], 1)
    worker.end_one()
    worker.quota.serve_held_back()
    assert worker.quota.held_back == 0


def test_two_claims_of_the_last_place(scoreboard: Scoreboard) -> None:
    """Whoever sees one session too many takes its claim back; the scoreboard is as before."""
    first, second = scoreboard.open_row(0, 1), scoreboard.open_row(1, 1)
    assert scoreboard.claim(first, 1, 1)
    assert not scoreboard.claim(second, 1, 1)
    assert scoreboard.row_sessions() == [1, 0]


@pytest.mark.slow
def test_claims_of_many_processes_never_pass_the_limit(scoreboard: Scoreboard) -> None:
    """Eight processes claim and release as fast as they can; one in between sees no more."""
    most, workers = 3, 8
    rows = [scoreboard.open_row(slot, 1) for slot in range(workers)]
    holds_r, holds_w = os.pipe()  # one byte per place that may be held
    os.set_blocking(holds_r, False)
    os.write(holds_w, b"x" * most)
    children = []
    for row in rows:
        pid = os.fork()
        if pid == 0:
            os._exit(_claim_often(scoreboard, row, most, holds_r, holds_w))
        children.append(pid)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
    assert codes == [0] * workers
    os.close(holds_r)
    os.close(holds_w)


def _claim_often(scoreboard: Scoreboard, row: int, most: int, holds_r: int, holds_w: int) -> int:
    """0 if there was a place behind each claim."""
    got = 0
    for _ in range(20_000):
        if scoreboard.claim(row, 1, most):
            got += 1
            try:
                os.read(holds_r, 1)
            except BlockingIOError:
                return 1
            os.write(holds_w, b"x")
            scoreboard.set_sessions(row, 0)
    return 0 if got else 2


def test_a_free_place_goes_to_who_waited_longest(scoreboard: Scoreboard) -> None:
    """Wherever a session ends, the slot first in the line is next; after its turn it is last."""
    first, second = Worker(scoreboard, 1, slot=0), Worker(scoreboard, 1, slot=1)
    assert first.quota.next_in_line(NOW_NS) is None
    second.quota.note(True, 10)
    first.quota.note(True, 20)
    second.quota.note(True, 30)
    assert first.quota.next_in_line(NOW_NS) == 1
    assert second.quota.next_in_line(NOW_NS) is None
    second.quota.served()
    second.quota.note(True, 40)
    assert first.quota.next_in_line(NOW_NS) is None
    assert second.quota.next_in_line(NOW_NS) == 0
    first.quota.note(False, 50)
    assert first.quota.next_in_line(NOW_NS) == 1
    second.quota.served()
    assert second.quota.next_in_line(NOW_NS) is None, "nobody waits any more"
    second.quota.note(True, 60)
    assert first.quota.next_in_line(NOW_NS) == 1
    first.quota.max_sessions = 0
    assert first.quota.next_in_line(NOW_NS) is None


def test_no_place_is_offered_to_a_worker_that_leaves(scoreboard: Scoreboard) -> None:
    """Its successor reads the inbox of the slot, and would take one place after the other."""
    first, second = Worker(scoreboard, 1, slot=0), Worker(scoreboard, 1, slot=1)
    second.quota.note(True, 10)
    first.quota.note(True, 20)
    scoreboard.set_accepting(second.row, False)
    assert first.quota.next_in_line(NOW_NS) is None
    assert second.quota.next_in_line(NOW_NS) is None
    first.quota.note(False, 30)
    scoreboard.set_accepting(first.row, False)
    assert first.quota.next_in_line(NOW_NS) is None


def test_no_place_is_offered_to_a_worker_that_hangs(scoreboard: Scoreboard) -> None:
    """It would not use it; it keeps its place in the line for when it goes on."""
    first, second, third = (Worker(scoreboard, 1, slot=slot) for slot in range(3))
    second.quota.note(True, 10)
    third.quota.note(True, 20)
    first.quota.note(True, 30)
    scoreboard.beat(second.row, NOW_NS - STALE_NS - 1)
    assert first.quota.next_in_line(NOW_NS) == 2
    assert third.quota.next_in_line(NOW_NS) is None
    assert second.quota.next_in_line(NOW_NS) is None
    scoreboard.beat(second.row, NOW_NS)
    assert first.quota.next_in_line(NOW_NS) == 1


def test_nobody_is_served_once_it_is_closed(scoreboard: Scoreboard) -> None:
    """Places of sessions that are cut are no use to who waits, with a limit and without one."""
    for most in (0, 1):
        worker = Worker(scoreboard, most)
        worker.quota.admit(1)
        worker.quota.admit(2)
        worker.quota.closed = True
        worker.end_one()
        worker.quota.serve_held_back()
        worker.quota.admit(3)
        assert 3 not in worker.held
        assert worker.quota.held_back == (2 if most else 1)
        while worker.held:
            worker.end_one()


def test_clients_held_back_are_given_up_as_long_as_somebody_takes_them(
    scoreboard: Scoreboard,
) -> None:
    """The oldest first; those that nobody takes stay, and so do their descriptors."""
    first, second = Worker(scoreboard, 1, slot=0), Worker(scoreboard, 1, slot=1)
    first.quota.admit(1)
    for fd in (2, 3, 4):
        second.quota.admit(fd)
    free = second.budget.free
    taken: list[int] = []

    def hand_over(fd: int) -> bool:
        if len(taken) == 2:
            return False
        taken.append(fd)
        return True

    second.quota.give_up_held_back(hand_over)
    assert taken == [2, 3]
    assert [fd for fd, _ in second.quota.clients_held_back()] == [4]
    assert second.budget.free == free + 2


def test_held_back_clients_stand_in_the_line(scoreboard: Scoreboard) -> None:
    """A client that was accepted too early waits like those in the kernel's queue."""
    first, second = Worker(scoreboard, 1, slot=0), Worker(scoreboard, 1, slot=1)
    first.quota.admit(1)
    second.quota.admit(2)
    second.quota.note(False, 10)
    assert first.quota.next_in_line(NOW_NS) == 1


def test_the_log_hears_of_the_limit_once_a_minute_from_one_worker(scoreboard: Scoreboard) -> None:
    """Eight workers that reach the limit together are one line."""
    first, second = Worker(scoreboard, 1, slot=0), Worker(scoreboard, 1, slot=1)
    began_ns = 1  # on a host that has just booted, too
    assert first.quota.may_tell(began_ns)
    assert not second.quota.may_tell(began_ns + 1)
    assert not first.quota.may_tell(QUIET_NS)
    assert second.quota.may_tell(began_ns + QUIET_NS)
