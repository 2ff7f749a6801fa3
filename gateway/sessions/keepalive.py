"""Keepalive for sessions that are about a second old.

Most sessions are over before that. They save the system calls, and nobody notices that a peer
vanished in the first second of its session before keepalive would have begun to ask.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Reversible
from time import monotonic

from gateway.core.messages import Settings
from gateway.sessions.session import Session
from gateway.timer import Timer

AGE_S = 1.0
"""Sessions of this age get keepalive."""

STEP_S = AGE_S / 4
"""Seconds between two looks at least: so much later it may be where sessions come all the time."""

AT_ONCE = 128
"""Sessions that get it before the others have their turn: about 2 ms."""


class Keepalive:
    """Looks at the newest of ``sessions``, which it borrows and which stand in order of arrival."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, sessions: Reversible[Session], settings: Settings
    ) -> None:
        self.settings = settings
        self._sessions = sessions
        self._due: list[Session] = []
        """The rest of a look that is under way; some may have ended meanwhile, which is no harm."""
        self._next_at = math.inf
        """When the oldest session that was too young at the last look is old enough, if any was."""
        self._timer = Timer(loop, self._look)

    def expect(self) -> None:
        """There is a new session."""
        self._timer.start(AGE_S)

    def close(self) -> None:
        self._timer.stop()

    def _look(self) -> None:
        """Tune who is old enough, AT_ONCE of them before the loop goes on."""
        if not self._due:
            self._gather()
        for _ in range(min(len(self._due), AT_ONCE)):
            self._due.pop().tune(self.settings)
        newest = next(reversed(self._sessions), None)
        if self._due:
            self._timer.start(0.0)
        elif newest is not None and not newest.tuned:
            self._timer.start(min(max(self._next_at - monotonic(), STEP_S), AGE_S))

    def _gather(self) -> None:
        due_at = monotonic() - AGE_S
        self._next_at = math.inf
        for session in reversed(self._sessions):
            if session.tuned:
                break  # and so are all that came before
            if session.started_at <= due_at:
                self._due.append(session)
            else:
                self._next_at = session.started_at + AGE_S
