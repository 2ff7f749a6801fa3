"""The oldest sessions: those that are too old are cut, and those that rebalancing gives up."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Container
from time import monotonic

from gateway.core.age import OLDEST, YOUNGEST, limit_s
from gateway.core.counters import End
from gateway.sessions.session import Session
from gateway.sessions.timer import Timer

STEPS = 100
"""How many times in the longest age the oldest sessions are looked at."""

SHORTEST_STEP_S, LONGEST_STEP_S = 0.02, 1.0

IDLE_S = 1.0
"""A session on which no byte moved for so long is idle enough to be given up."""


class SessionAge:
    """Borrows ``sessions``, which are in the order of their arrival; off until it is set.

    Those that are ``scheduled`` are cut at a time of their own.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sessions: Collection[Session],
        scheduled: Container[Session],
    ) -> None:
        self._sessions = sessions
        self._scheduled = scheduled
        self._most_s = 0.0
        self._timer = Timer(loop, self._look)
        self._last_client = ""

    def set(self, most_s: float) -> None:
        """Cut sessions of this age, a tenth more or less, from now on; 0 turns it off."""
        self._most_s = most_s
        if most_s:
            self._timer.start(self._step_s)

    def is_too_old(self, session: Session, now: float) -> bool:
        """Whether its time is over."""
        age_s, most_s = now - session.started_at, self._most_s
        if not most_s or age_s < YOUNGEST * most_s:
            return False
        return age_s >= OLDEST * most_s or age_s >= limit_s(most_s, session.started_at)

    def give_up_one(self, name: str, older_than_s: float) -> None:
        """Cut the endpoint's oldest idle session, another client's than the last if there is one.

        The first order after a quiet time may find none: whether a session is idle is only known
        when it was looked at before.
        """
        now = monotonic()
        second: Session | None = None
        for session in tuple(self._sessions):
            if now - session.started_at <= older_than_s:
                break
            if session.endpoint != name or session.idle_for(now) < IDLE_S or session.waits:
                continue
            client = session.client_host()
            if client != self._last_client:
                self._give_up(session, client)
                return
            second = second or session
        if second is not None:
            self._give_up(second, self._last_client)

    def close(self) -> None:
        self._timer.stop()

    def _give_up(self, session: Session, client: str) -> None:
        self._last_client = client
        session.cut(End.REBALANCE)

    @property
    def _step_s(self) -> float:
        return min(max(self._most_s / STEPS, SHORTEST_STEP_S), LONGEST_STEP_S)

    def _look(self) -> None:
        most_s = self._most_s
        if not most_s:
            return
        now = monotonic()
        for session in tuple(self._sessions):
            if now - session.started_at < YOUNGEST * most_s:
                break
            if self.is_too_old(session, now) and session not in self._scheduled:
                session.cut(End.AGE)
        self._timer.start(self._step_s)
