"""Scheduled cuts: sessions that have to go, each at a time of its own.

The times are drawn at random over ``--close-spread``, so that the clients of an endpoint that is
gone do not all come back at the same moment. Workers that hold a few sessions each do not cut them
together either.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from random import random
from time import monotonic

from gateway.core.counters import End
from gateway.sessions.session import Session
from gateway.timer import Timer

STEP_S = 0.02
"""How often the scheduled cuts are looked at while there are any: 0.3 ms where they are 9,000."""

AT_ONCE = 64
"""Sessions cut before the others have their turn: about 3 ms."""


class ScheduledCuts:
    """Borrows the sessions until their cut, or until :meth:`forget`.

    ``is_due(session)`` is asked when its time has come: whether it still has to go.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        is_due: Callable[[Session], bool] = lambda _: True,
    ) -> None:
        self._is_due = is_due
        self._spread_s = 1.0
        self._scheduled: dict[Session, tuple[float, End]] = {}
        self._timer = Timer(loop, self._cut_due)

    def __contains__(self, session: object) -> bool:
        return session in self._scheduled

    def __len__(self) -> int:
        return len(self._scheduled)

    def replace(self, sessions: Iterable[tuple[Session, End]]) -> None:
        """Cut exactly these. A session that was scheduled before keeps its time."""
        before, self._scheduled = self._scheduled, {}
        now = monotonic()
        for session, end in sessions:
            at, _ = before.get(session) or (self._draw(now), end)
            self._scheduled[session] = (at, end)
        self._start()

    def spread_over(self, spread_s: float) -> None:
        """Cut over so long from now on; who would wait for longer gets another moment within it."""
        hurried, self._spread_s = spread_s < self._spread_s, spread_s
        if not hurried:
            return
        now = monotonic()
        for session, (at, end) in self._scheduled.items():
            if at > now + spread_s:
                self._scheduled[session] = (self._draw(now), end)

    def clear(self) -> None:
        """Cut none of them."""
        self._scheduled.clear()

    def add(self, session: Session, end: End) -> None:
        self._scheduled[session] = (self._draw(monotonic()), end)
        self._start()

    def forget(self, session: Session) -> None:
        """The session ended; does nothing for one that was not scheduled."""
        self._scheduled.pop(session, None)

    def close(self) -> None:
        self._timer.stop()

    def _start(self) -> None:
        if self._scheduled:
            self._timer.start(STEP_S)

    def _cut_due(self) -> None:
        """Cut those whose time has come, AT_ONCE of them before the loop goes on."""
        now = monotonic()
        due = [(session, end) for session, (at, end) in self._scheduled.items() if at <= now]
        for session, end in due[:AT_ONCE]:
            self.forget(session)
            if self._is_due(session):
                session.cut(end)
        if len(due) > AT_ONCE:
            self._timer.start(0.0)
        else:
            self._start()

    def _draw(self, now: float) -> float:
        """The instant of one cut."""
        return now + random() * self._spread_s  # noqa: S311 (no secret)
