"""How many sessions this worker may hold: its descriptors, and its part of the gateway's limit.

The limit of the whole gateway is kept over the board. A worker first counts the new client as its
own, then adds up everybody's cells: two that race for the last place both see one too many and
both step back, so the limit is never passed. A client that was accepted too early is parked: to
it that is the same as waiting in the kernel's queue.
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
    def limit(self) -> int:
        """The most sessions that the acceptor may let us reach as things stand."""
        if not self.max_sessions:
            return self.most_by_descriptors
        room = self.max_sessions - sum(self._board.sessions(self._slots))
        return max(min(self._own() + room, self.most_by_descriptors), 0)

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


def _most_by_descriptors() -> int:
    """What RLIMIT_NOFILE leaves for sessions after everything that is open now."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return 0
    used = len(os.listdir("/proc/self/fd"))
    return max((soft - used - SPARE_FDS) // FDS_PER_SESSION, 1)
