"""How many clients this worker may take: by its descriptors, and by the gateway's limit.

The limit of the whole gateway is kept on the scoreboard. A worker first counts the new client as
its own, then adds up the rows of all workers. Two workers that race for the last place may both see
one session too many, and then both undo their claim. A client that was accepted too early is held
back; for the client this is the same as waiting in the kernel's queue.

A place that becomes free belongs to the worker where clients have waited longest, wherever the
session ended: a busy worker would otherwise serve its own queue for ever while others wait.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sized
from time import monotonic
from typing import Any

from gateway.core.counters import PauseReason, WorkerCounters
from gateway.core.descriptor_budget import PER_SESSION, DescriptorBudget
from gateway.scoreboard import Scoreboard

NEAR = 64
"""Places that are left when clients on their way between workers begin to count: asking for them
is a system call per worker."""

QUIET_NS = 60_000_000_000
"""The log says that clients have to wait once a minute, from one worker."""


class Quota:
    """Admits clients; owns those that it holds back.

    ``max_sessions`` is of the whole gateway, 0 for none of ours.
    ``serve(fd, peer)`` starts a session and takes ``fd`` over, also if it raises; ``peer`` is None
    if another worker accepted the client.
    ``over()``: sessions that are over and still have their place.
    ``closing``: descriptors that are not in use any more but not closed yet.
    ``in_flight()``: clients that are on their way from one worker to another.
    ``reclaim()``: close what is only kept for later use. ``close_client(fd)``: turn one away.
    """

    def __init__(
        self,
        scoreboard: Scoreboard,
        *,
        row: int,
        counters: WorkerCounters,
        budget: DescriptorBudget,
        serve: Callable[[int, Any], None],
        over: Callable[[], int] = lambda: 0,
        closing: Sized = (),
        in_flight: Callable[[], int] = lambda: 0,
        reclaim: Callable[[], None] = lambda: None,
        close_client: Callable[[int], None] = os.close,
    ) -> None:
        self._scoreboard = scoreboard
        self._row = row
        self._counters = counters
        self._budget = budget
        self._serve = serve
        self._over = over
        self._closing = closing
        self._in_flight = in_flight
        self._reclaim = reclaim
        self._close_client = close_client
        self._held_back: deque[tuple[int, Any, float]] = deque()
        """Descriptors, peers, and since when each is held back."""
        self._serving = False
        self.closed = False
        """Nobody is served any more: whoever comes waits for :meth:`close`."""
        self.max_sessions = 0
        self.rate_limited = False
        self.rate_reached = False
        """No further client may be accepted just now, because of --max-session-rate."""
        self.shortage = PauseReason.LIMIT
        """What there is too little of, if :meth:`room` said 0."""

    @property
    def shared(self) -> bool:
        """Whether what other workers do changes :meth:`room`, so that each client has to ask."""
        return bool(self.max_sessions) or self.rate_limited

    @property
    def held_back(self) -> int:
        return len(self._held_back)

    def clients_held_back(self) -> tuple[tuple[int, float], ...]:
        """Their descriptors, which stay ours, and since when each waits; the oldest first."""
        return tuple((fd, began_at) for fd, _, began_at in self._held_back)

    def room(self) -> int:
        """How many more clients may be accepted as things stand."""
        room = self.room_by_descriptors()
        if not room:
            self.shortage = PauseReason.DESCRIPTORS
        elif self.rate_reached:
            room, self.shortage = 0, PauseReason.LIMIT
        elif self.max_sessions:
            places = self.max_sessions - self._scoreboard.total_sessions() - len(self._held_back)
            if 0 < places <= NEAR:
                places -= self._in_flight()
            room = min(room, max(places, 0))
            self.shortage = PauseReason.LIMIT
        return room

    def room_by_descriptors(self) -> int:
        """How many more clients could be accepted and dialed for."""
        free = self._budget.free - len(self._closing)
        if free < PER_SESSION:
            self._reclaim()
            free = self._budget.free - len(self._closing)
        return max(free // PER_SESSION, 0)

    def note(self, waiting: bool, now_ns: int) -> None:
        """Whether clients wait here for a place; who waits already keeps its place in the line."""
        since_ns = self._scoreboard.waiting_since_ns(self._row)
        if (waiting or bool(self._held_back)) != bool(since_ns):
            self._scoreboard.set_waiting(self._row, 0 if since_ns else now_ns)

    def served(self) -> None:
        """We used a place: whoever still waits here is last in the line."""
        if self.max_sessions:
            self._scoreboard.set_waiting(self._row, 0)

    def next_in_line(self, now_ns: int) -> int | None:
        """The slot that a place that became free here belongs to; None: us.

        A worker that leaves cannot be offered one: whoever took its slot would hear of it, and the
        line would stand still. Nor can one that hangs, which would not use it.
        """
        if not self.max_sessions:
            return None
        own, scoreboard = self._row, self._scoreboard
        line = [
            (since_ns, row)
            for row, since_ns in enumerate(scoreboard.waiting())
            if since_ns and (row == own or scoreboard.takes_clients(row, now_ns))
        ]
        first = min(line)[1] if line else own
        return None if first == own else scoreboard.slot(first)

    def give_up_held_back(self, hand_over: Callable[[int], bool]) -> None:
        """Let another worker have the clients held back; ``hand_over(fd)`` says whether it has."""
        while self._held_back and hand_over(self._held_back[0][0]):
            self._budget.give_back()
            self._held_back.popleft()

    def may_tell(self, now_ns: int) -> bool:
        """Whether the log should hear from us that clients have to wait."""
        told_ns = self._scoreboard.told_ns()
        if told_ns and now_ns - told_ns < QUIET_NS:  # 0: nobody did, on a host just booted
            return False
        self._scoreboard.tell(self._row, now_ns)
        return True

    def admit(self, fd: int, peer: Any = None) -> None:
        """Serve the client now, or hold it back until there is room.

        Takes ``fd`` over, also if it raises.
        """
        try:
            if held_back := bool(self._held_back) or not self._has_place():
                self._held_back.append((fd, peer, monotonic()))
        except Exception:
            self._close_client(fd)
            raise
        if held_back:
            self._budget.spend()
        else:
            self._serve(fd, peer)
            self.served()

    def serve_held_back(self) -> None:
        """Serve as many of the clients held back as there is room for, oldest first.

        A session that ends at once makes room as well: whoever then comes back here leaves the next
        one to the loop of the first call, or hundreds of them would be as many calls deep.
        """
        if self._serving:
            return
        self._serving = True
        try:
            while self._held_back and self._budget.free > 0 and self._has_place():
                self._budget.give_back()
                fd, peer, _ = self._held_back.popleft()
                self._serve(fd, peer)
                self.served()
        finally:
            self._serving = False

    def close(self) -> None:
        while self._held_back:
            self._budget.give_back()
            self._close_client(self._held_back.popleft()[0])

    def _has_place(self) -> bool:
        """Whether the limit allows one more; if so it is ours, and serving it counts the same."""
        if self.closed or not self.max_sessions:
            return not self.closed
        own = self._counters.sessions + self._over()
        return self._scoreboard.claim(self._row, own + 1, self.max_sessions)
