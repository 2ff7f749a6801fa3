"""The oldest sessions: those that are too old are cut, and those that rebalancing gives up."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from time import monotonic

from gateway.core.age import OLDEST, YOUNGEST, limit_s
from gateway.core.counters import End
from gateway.sessions.session import Session
from gateway.timer import Timer

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

    def give_up(self, names: Sequence[str], older_than_s: Sequence[float]) -> None:
        """Cut the oldest idle session of each of these endpoints, an endpoint as often as named.

        Another client's than the last if there is one. Those of one endpoint have the same age.
        The first order after a quiet time may find none: whether a session is idle is only known
        when it was looked at before.
        """
        now = monotonic()
        ages_s = dict(zip(names, older_than_s, strict=True))
        found = self._find_older(ages_s, now)
        candidates = {name: _Candidates(sessions, now) for name, sessions in found.items()}
        for name in names:
            if (session := candidates[name].take(self._last_client)) is not None:
                self._last_client = session.client_host()
                session.cut(End.REBALANCE)

    def _find_older(self, ages_s: Mapping[str, float], now: float) -> dict[str, list[Session]]:
        """The sessions of each of these endpoints that are older than its age, the oldest first."""
        found: dict[str, list[Session]] = {name: [] for name in ages_s}
        youngest_s = min(ages_s.values(), default=0.0)
        for session in self._sessions:
            age_s = now - session.started_at
            if age_s <= youngest_s:
                break
            name = session.endpoint
            if name in found and age_s > ages_s[name]:
                found[name].append(session)
        return found

    def close(self) -> None:
        self._timer.stop()

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


class _Candidates:
    """The sessions of one endpoint that are idle, the oldest first; each is looked at once."""

    def __init__(self, sessions: Iterable[Session], now: float) -> None:
        self._unseen = iter(sessions)
        self._now = now
        self._passed = deque[Session]()
        """Idle ones that were passed over, all of one client."""

    def take(self, unwanted: str) -> Session | None:
        """The oldest of another client than ``unwanted``; else the oldest; None: there is none."""
        if self._passed and self._passed[0].client_host() != unwanted:
            return self._passed.popleft()
        for session in self._unseen:
            if session.idle_for(self._now) < IDLE_S or session.waits:
                continue
            if session.client_host() != unwanted:
                return session
            self._passed.append(session)
        return self._passed.popleft() if self._passed else None
