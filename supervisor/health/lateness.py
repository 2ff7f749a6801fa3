"""How long the master's loop stood still: what timed out meanwhile says nothing of an endpoint.

A master that is stopped, frozen, or out of its CPU quota does not hear the answers that arrive, and
finds all its timeouts over when it goes on.
"""

from __future__ import annotations

import asyncio

STEP_S = 0.02
"""How often the loop is looked at while a probe is under way: most probes are over before that."""

TOLERATED_S = 0.005
"""A timer that is late by less was not kept waiting: loops have other things to do, too."""


class Lateness:
    """Watches the running loop from the first :meth:`begin` without its :meth:`end`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._watchers = 0
        self._lost_s = 0.0
        self._due_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> float:
        """Start to watch; a mark for :meth:`since`."""
        self._watchers += 1
        if self._timer is None:
            self._set_timer()
        return self._lost_s + self._overdue_s()

    def since(self, mark: float) -> float:
        """Seconds that the loop stood still since the mark."""
        return self._lost_s + self._overdue_s() - mark

    def end(self) -> None:
        """One who watched does so no more."""
        self._watchers -= 1
        if not self._watchers and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set_timer(self) -> None:
        self._due_at = self._loop.time() + STEP_S
        self._timer = self._loop.call_at(self._due_at, self._look)

    def _look(self) -> None:
        self._lost_s += self._overdue_s()
        self._set_timer()

    def _overdue_s(self) -> float:
        """How late the timer is that has not been called yet."""
        late_s = self._loop.time() - self._due_at if self._timer is not None else 0.0
        return late_s if late_s > TOLERATED_S else 0.0
