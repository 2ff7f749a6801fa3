"""How many sessions this worker may hold: its descriptors, and its part of the gateway's limit.

The limit of the whole gateway is kept over the board. A worker first counts the new client as its
own, then adds up everybody's cells: two that race for the last place both see one too many and
both step back, so the limit is never passed. A client that was accepted too early is parked: to
it that is the same as waiting in the kernel's queue.

A place that becomes free belongs to the slot where clients have waited longest, wherever the
session ended: a busy worker would otherwise serve its own queue for ever while others wait.
"""

from __future__ import annotations

import os
import resource
from collections import deque
from collections.abc import Callable

from gateway.board import Board

SPARE_FDS = 12
"""Kept free for dials that are hedged, handed sockets in flight, a pipe pair, the log."""

FDS_PER_SESSION = 2

QUIET_NS = 60_000_000_000
"""The log hears of a limit that stays reached once a minute, from one worker."""


class Quota:
    """Admits clients; owns the parked ones.

    ``max_sessions`` is of the whole gateway, 0 for none of ours. ``own()`` says how many sessions
    this worker holds; ``serve(fd)`` starts one.
    """

    def __init__(
        self,
        board: Board,
        *,
        slot: int,
        slots: int,
        own: Callable[[], int],
        serve: Callable[[int], None],
    ) -> None:
        self._board = board
        self._slot = slot
        self._slots = slots
        self._own = own
        self._serve = serve
        self._parked: deque[int] = deque()
        self.max_sessions = 0
        self.most_by_descriptors = _most_by_descriptors()

    def set_slots(self, slots: int) -> None:
        """The gateway has this many slots now."""
        self._slots = max(self._slots, slots)

    @property
    def parked(self) -> int:
        return len(self._parked)

    @property
    def limit(self) -> int | None:
        """The most sessions that the acceptor may let us reach as things stand; None: any."""
        if not self.max_sessions:
            return self.most_by_descriptors
        board, slots = self._board, self._slots
        taken = sum(board.sessions(slots)) + board.in_flight(slots) + len(self._parked)
        most = max(self._own() + self.max_sessions - taken, 0)
        return most if self.most_by_descriptors is None else min(most, self.most_by_descriptors)

    def note(self, waiting: bool, now_ns: int) -> None:
        """Whether clients wait here for a place; who waits already keeps its place in the line."""
        since_ns = self._board.waiting(self._slot + 1)[self._slot]
        if (waiting or bool(self._parked)) != bool(since_ns):
            self._board.set_waiting(self._slot, 0 if since_ns else now_ns)

    def served(self) -> None:
        """We had our turn: whoever still waits here is last in the line."""
        self._board.set_waiting(self._slot, 0)

    def next_in_line(self) -> int | None:
        """The slot that a place that became free here belongs to; None: us."""
        if not self.max_sessions:
            return None
        waiting = self._board.waiting(self._slots)
        line = [(since_ns, slot) for slot, since_ns in enumerate(waiting) if since_ns]
        first = min(line)[1] if line else self._slot
        return None if first == self._slot else first

    def may_tell(self, now_ns: int) -> bool:
        """Whether the log should hear from us that the limit is reached."""
        if now_ns - self._board.told_ns(self._slots) < QUIET_NS:
            return False
        self._board.tell(self._slot, now_ns)
        return True

    def admit(self, fd: int) -> None:
        """Serve the client now, or park it until there is room; takes ``fd`` over."""
        if not self.max_sessions:
            self._serve(fd)
        elif self._parked or not self._claim():
            self._parked.append(fd)
        else:
            self._serve(fd)

    def admit_parked(self) -> None:
        """Sessions ended, here or elsewhere: serve as many of the parked as there is room for."""
        while self._parked and (not self.max_sessions or self._claim()):
            self._serve(self._parked.popleft())

    def close(self) -> None:
        while self._parked:
            os.close(self._parked.popleft())

    def _claim(self) -> bool:
        """Count one more as ours if the limit allows; serving it sets the cell to the same."""
        own = self._own()
        self._board.set_sessions(self._slot, own + 1)
        if sum(self._board.sessions(self._slots)) <= self.max_sessions:
            return True
        self._board.set_sessions(self._slot, own)
        return False


def _most_by_descriptors() -> int | None:
    """What RLIMIT_NOFILE leaves for sessions after everything that is open now; None: any."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return None
    used = len(os.listdir("/proc/self/fd"))
    return max((soft - used - SPARE_FDS) // FDS_PER_SESSION, 1)
