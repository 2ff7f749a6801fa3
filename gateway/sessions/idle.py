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


class IdleTimeout:
    """Looks at all of ``sessions``, which it borrows; off, and without a timer, until it is set."""

    def __init__(self, loop: asyncio.AbstractEventLoop, sessions: Collection[Session]) -> None:
        self._sessions = sessions
        self._timeout_s = 0.0
        self._timer = Timer(loop, self._look)

    def set(self, timeout_s: float) -> None:
        """Cut sessions that are idle for ``timeout_s`` from now on; 0 turns it off."""
        self._timeout_s = timeout_s
        if timeout_s:
            self._timer.start(self._step_s)

    def close(self) -> None:
        self._timer.stop()

    @property
    def _step_s(self) -> float:
        return min(max(self._timeout_s / STEPS, SHORTEST_STEP_S), LONGEST_STEP_S)

    def _look(self) -> None:
        if not self._timeout_s:
            return
        now = monotonic()
        for session in tuple(self._sessions):
            if session.idle_for(now) >= self._timeout_s:
                session.cut(End.IDLE)
        self._timer.start(self._step_s)
