"""The idle timeout: sessions on which no byte moved for too long are cut."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from time import monotonic

from gateway.core.counters import End
from gateway.sessions.cuts import ScheduledCuts
from gateway.sessions.session import Session
from gateway.timer import Timer

STEPS = 10
"""How many times in one timeout the sessions are looked at."""

SHORTEST_STEP_S, LONGEST_STEP_S = 0.01, 5.0

AT_ONCE = 256
"""Sessions looked at before the others have their turn: 2 ms if the kernel is asked of all."""

LATE_S = 0.1
"""A look that is late by more was kept back: the worker was stopped, or got no CPU."""


class IdleTimeout:
    """Looks at all of ``sessions``, which it borrows; off, and without a timer, until it is set."""

    def __init__(self, loop: asyncio.AbstractEventLoop, sessions: Collection[Session]) -> None:
        self._sessions = sessions
        self._timeout_s = 0.0
        self._timer = Timer(loop, self._look)
        self._due_at = 0.0
        self._unseen: list[Session] = []
        """What is left of a look that is under way."""
        self._idle: list[Session] = []
        """Who was idle when this look came to it."""
        self._cuts = ScheduledCuts(loop, is_due=self._is_idle)

    def set(self, timeout_s: float, spread_s: float) -> None:
        """Cut sessions that are idle for ``timeout_s`` from now on; 0 turns it off.

        ``spread_s``: over how long those are cut that are found together. They are many where the
        timeout is new, or shorter, and where many clients came together and say nothing.
        """
        self._timeout_s = timeout_s
        self._cuts.spread_over(min(spread_s, timeout_s))
        if timeout_s and not self._timer.running:
            self._start()

    def close(self) -> None:
        self._timer.stop()
        self._cuts.close()

    @property
    def _step_s(self) -> float:
        return min(max(self._timeout_s / STEPS, SHORTEST_STEP_S), LONGEST_STEP_S)

    def _start(self) -> None:
        self._due_at = monotonic() + self._step_s
        self._timer.start(self._step_s)

    def _look(self) -> None:
        """Look at AT_ONCE sessions before the loop goes on, and at last cut who is idle."""
        timeout_s = self._timeout_s
        if not timeout_s:
            self._unseen, self._idle = [], []
            self._cuts.clear()
            return
        now = monotonic()
        if not self._unseen:
            late_s = now - self._due_at
            if late_s > LATE_S:
                self._forgive(late_s, now)
            self._unseen, self._idle = list(self._sessions), []
        unseen = self._unseen
        some, self._unseen = unseen[:AT_ONCE], unseen[AT_ONCE:]
        self._idle += [each for each in some if not each.over and each.is_idle(now, timeout_s)]
        if self._unseen:
            self._timer.start(0.0)
        else:
            self._cut()
            self._start()

    def _cut(self) -> None:
        """Cut who is idle: the only one at once, of several each at a moment of its own."""
        idle, self._idle = [each for each in self._idle if not each.over], []
        cuts = self._cuts
        if len(idle) == 1 and idle[0] not in cuts:
            if self._is_idle(idle[0]):
                idle[0].cut(End.IDLE)
            return
        for session in idle:
            if session not in cuts:
                cuts.add(session, End.IDLE)

    def _is_idle(self, session: Session) -> bool:
        """Still; or it ended meanwhile."""
        timeout_s = self._timeout_s
        return not session.over and timeout_s > 0 and session.is_idle(monotonic(), timeout_s)

    def _forgive(self, late_s: float, now: float) -> None:
        """The loop stood still for so long: bytes that came meanwhile were not moved yet."""
        for session in self._sessions:
            session.moved_at = min(session.moved_at + late_s, now)
