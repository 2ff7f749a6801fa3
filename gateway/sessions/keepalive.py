"""Keepalive for sessions that are about a second old.

Most sessions are over before that. They save the system calls, and nobody notices that a peer
vanished in the first second of its session before keepalive would have begun to ask.
"""

from __future__ import annotations

import asyncio
from collections.abc import Reversible
from time import monotonic

from gateway.core.messages import Settings
from gateway.sessions.session import Session
from gateway.sessions.timer import Timer

AGE_S = 1.0
"""Sessions of this age get keepalive."""


class Keepalive:
    """Looks at the newest of ``sessions``, which it borrows and which stand in order of arrival."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, sessions: Reversible[Session], settings: Settings
    ) -> None:
        self.settings = settings
        self._sessions = sessions
        self._timer = Timer(loop, self._look)

    def expect(self) -> None:
        """There is a new session."""
        self._timer.start(AGE_S)

    def close(self) -> None:
        self._timer.stop()

    def _look(self) -> None:
        due_at = monotonic() - AGE_S
        too_young = False
        for session in reversed(self._sessions):
            if session.tuned:
                break  # and so are all that came before
            if session.started_at <= due_at:
                session.tune(self.settings)
            else:
                too_young = True
        if too_young:
            self._timer.start(AGE_S)
