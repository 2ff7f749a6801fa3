"""How long the master's loop stood still: what timed out meanwhile says nothing of an endpoint.

A master that is stopped, frozen, or out of its CPU quota does not hear the answers that arrive, and
finds all its timeouts over when it goes on.
"""

from __future__ import annotations

import asyncio

from gateway.core.records import dataclass

STEP_S = 0.02
"""How often the loop is looked at while a probe is under way: most probes are over before that."""

LEAST_TOLERATED_S = 0.005
"""A timer that is late by less was not kept waiting: loops have other things to do, too."""


@dataclass(slots=True, eq=False)
class Mark:
    """When somebody began to watch, and the standstills since: long ones together, the longest."""

    began_at: float
    tolerated_s: float
    lost_s: float = 0.0
    longest_s: float = 0.0


class Lateness:
    """Watches the running loop from the first :meth:`begin` without its :meth:`end`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._marks: set[Mark] = set()
        self._due_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, tolerated_s: float = 0.0) -> Mark:
        """Start to watch. Standstills up to ``tolerated_s`` are not added up, however many."""
        if self._timer is None:
            self._set_timer()
        mark = Mark(self._loop.time(), max(tolerated_s, LEAST_TOLERATED_S))
        self._marks.add(mark)
        return mark

    def since(self, mark: Mark) -> float:
        """Seconds that the loop stood still since the mark, all long standstills together."""
        late_s = self._overdue_s(mark)
        return mark.lost_s + (late_s if late_s > mark.tolerated_s else 0.0)

    def longest(self, mark: Mark) -> float:
        """Seconds of the longest standstill since the mark."""
        return max(mark.longest_s, self._overdue_s(mark))

    def end(self, mark: Mark) -> None:
        """One who watched does so no more."""
        self._marks.discard(mark)
        if not self._marks and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set_timer(self) -> None:
        self._due_at = self._loop.time() + STEP_S
        self._timer = self._loop.call_at(self._due_at, self._look)

    def _look(self) -> None:
        for mark in self._marks:
            mark.lost_s, mark.longest_s = self.since(mark), self.longest(mark)
        self._set_timer()

    def _overdue_s(self, mark: Mark) -> float:
        """How late the timer is that has not been called yet, since the mark."""
        return max(self._loop.time() - max(self._due_at, mark.began_at), 0.0)
