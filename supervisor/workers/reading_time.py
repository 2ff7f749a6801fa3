"""How long the master reads from workers in one turn of its loop: it has other things to do, too.

The reports of many workers may come together, and each takes milliseconds with many endpoints.
"""

from __future__ import annotations

import asyncio

TURN_S = 0.01
"""As long as two reports of 1,000 endpoints; what is read last may take longer."""


class ReadingTime:
    """Shared by all channels of one loop.

    Who is refused asks again: the loop calls who has something to read in each of its turns, those
    who wait for longest first (epoll(7) keeps their order).
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._over_at: float | None = None

    def is_left(self) -> bool:
        """Whether to read now: always for who is first in a turn of the loop."""
        now = self._loop.time()
        if self._over_at is None:
            self._over_at = now + TURN_S
            self._loop.call_soon(self._begin_turn)  # before anybody is called who can read then
            return True
        return now < self._over_at

    def _begin_turn(self) -> None:
        self._over_at = None
