"""How many sessions this worker may hold: its descriptors, and its part of the gateway's limit.

The limit of the whole gateway is kept on the scoreboard. A worker first counts the new client as
its own, then adds up the cells of all slots. Two workers that race for the last place both see one
session too many, and both undo their claim. A client that was accepted too early is held back; for
the client this is the same as waiting in the kernel's queue.

A place that becomes free belongs to the slot where clients have waited longest, wherever the
session ended: a busy worker would otherwise serve its own queue for ever while others wait.
"""

from __future__ import annotations

import os
import resource
from collections import deque
from collections.abc import Callable

from gateway.scoreboard import Scoreboard

SPARE_FDS = 12
"""Kept free for dials that are hedged, handed sockets in flight, a pipe pair, the log."""

FDS_PER_SESSION = 2

QUIET_NS = 60_000_000_000
"""The log hears of a limit that stays reached once a minute, from one worker."""


class Quota:
    """Admits clients; owns the held_back ones.

    ``max_sessions`` is of the whole gateway, 0 for none of ours. ``own()`` says how many sessions
    this worker holds; ``serve(fd)`` starts one.
    """

    def __init__(
        self,
        scoreboard: Scoreboard,
        *,
        slot: int,
        slots: int,
        own: Callable[[], int],
        serve: Callable[[int], None],
    ) -> None:
        self._scoreboard = scoreboard
        self._slot = slot
        self._slots = slots
        self._own = own
        self._serve = serve
        self._held_back: deque[int] = deque()
        self.max_sessions = 0
        self.most_by_descriptors = _most_by_descriptors()

    def set_slots(self, slots: int) -> None:
        """The gateway has this many slots now."""
        self._slots = max(self._slots, slots)

    @property
    def held_back(self) -> int:
        return len(self._held_back)

    @property
    def limit(self) -> int | None:
        """The most sessions that the acceptor may let us reach as things stand; None: any."""
        if not self.max_sessions:
            return self.most_by_descriptors
        scoreboard, slots = self._scoreboard, self._slots
        taken = sum(scoreboard.sessions(slots)) + scoreboard.in_flight(slots) + len(self._held_back)
        most = max(self._own() + self.max_sessions - taken, 0)
        return most if self.most_by_descriptors is None else min(most, self.most_by_descriptors)

    def note(self, waiting: bool, now_ns: int) -> None:
        """Whether clients wait here for a place; who waits already keeps its place in the line."""
        since_ns = self._scoreboard.waiting(self._slot + 1)[self._slot]
        if (waiting or bool(self._held_back)) != bool(since_ns):
            self._scoreboard.set_waiting(self._slot, 0 if since_ns else now_ns)

    def served(self) -> None:
        """We had our turn: whoever still waits here is last in the line."""
        self._scoreboard.set_waiting(self._slot, 0)

    def next_in_line(self) -> int | None:
        """The slot that a place that became free here belongs to; None: us."""
        if not self.max_sessions:
            return None
        waiting = self._scoreboard.waiting(self._slots)
        line = [(since_ns, slot) for slot, since_ns in enumerate(waiting) if since_ns]
        first = min(line)[1] if line else self._slot
        return None if first == self._slot else first

    def may_tell(self, now_ns: int) -> bool:
        """Whether the log should hear from us that the limit is reached."""
        if now_ns - self._scoreboard.told_ns(self._slots) < QUIET_NS:
            return False
        self._scoreboard.tell(self._slot, now_ns)
        return True

    def admit(self, fd: int) -> None:
        """Serve the client now, or hold back it until there is room; takes ``fd`` over."""
        if not self.max_sessions:
            self._serve(fd)
        elif self._held_back or not self._claim():
            self._held_back.append(fd)
        else:
            self._serve(fd)

    def serve_held_back(self) -> None:
        """Serve as many of the clients held back as there is room for, oldest first."""
        while self._held_back and (not self.max_sessions or self._claim()):
            self._serve(self._held_back.popleft())

    def close(self) -> None:
        while self._held_back:
            os.close(self._held_back.popleft())

    def _claim(self) -> bool:
        """Count one more as ours if the limit allows; serving it sets the cell to the same."""
        own = self._own()
        self._scoreboard.set_sessions(self._slot, own + 1)
        if sum(self._scoreboard.sessions(self._slots)) <= self.max_sessions:
            return True
        self._scoreboard.set_sessions(self._slot, own)
        return False


def _most_by_descriptors() -> int | None:
    """What RLIMIT_NOFILE leaves for sessions after everything that is open now; None: any."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return None
    used = len(os.listdir("/proc/self/fd"))
    return max((soft - used - SPARE_FDS) // FDS_PER_SESSION, 1)
