"""The idle timeout: sessions on which no byte moved for too long are cut."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from time import monotonic

from gateway.core.counters import End
from gateway.sessions.session import Session
from gateway.sessions.timer import Timer

STEPS = 10
"""How many times in one timeout the sessions are looked at."""

SHORTEST_STEP_S, LONGEST_STEP_S = 0.01, 5.0

AT_ONCE = 64
"""Sessions cut before the others have their turn: about 3 ms. Clients that came together, and say
nothing, are idle together."""

LATE_S = 0.1
"""A look that is late by more was kept back: the worker was stopped, or got no CPU."""


class IdleTimeout:
    """Looks at all of ``sessions``, which it borrows; off, and without a timer, until it is set."""

    def __init__(self, loop: asyncio.AbstractEventLoop, sessions: Collection[Session]) -> None:
        self._sessions = sessions
        self._timeout_s = 0.0
        self._timer = Timer(loop, self._look)
        self._due_at = 0.0
        self._idle: list[Session] = []
        """What is left of a look that is under way."""

    def set(self, timeout_s: float) -> None:
        """Cut sessions that are idle for ``timeout_s`` from now on; 0 turns it off."""
        self._timeout_s = timeout_s
        if timeout_s and not self._timer.running:
            self._start()

    def close(self) -> None:
        self._timer.stop()

    @property
    def _step_s(self) -> float:
        return min(max(self._timeout_s / STEPS, SHORTEST_STEP_S), LONGEST_STEP_S)

    def _start(self) -> None:
        self._due_at = monotonic() + self._step_s
        self._timer.start(self._step_s)

    def _look(self) -> None:
        """Cut who is idle, AT_ONCE of them before the loop goes on."""
        if not self._timeout_s:
            self._idle.clear()
            return
        now = monotonic()
        if not self._idle:
            self._gather(now)
        for _ in range(min(len(self._idle), AT_ONCE)):
            session = self._idle.pop()
            if session.idle_for(now) >= self._timeout_s:  # still
                session.cut(End.IDLE)
        if self._idle:
            self._timer.start(0.0)
        else:
            self._start()

    def _gather(self, now: float) -> None:
        late_s = now - self._due_at
        if late_s > LATE_S:
            self._forgive(late_s, now)
        timeout_s = self._timeout_s
        self._idle = [each for each in self._sessions if each.idle_for(now) >= timeout_s]

    def _forgive(self, late_s: float, now: float) -> None:
        """The loop stood still for so long: bytes that came meanwhile were not moved yet."""
        for session in self._sessions:
            session.moved_at = min(session.moved_at + late_s, now)
