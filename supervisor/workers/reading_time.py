"""How long the master reads from workers in one turn of its loop: it has other things to do, too.

The reports of many workers may come together, and each takes milliseconds with many endpoints.
"""

from __future__ import annotations

import asyncio

TURN_S = 0.01
"""As long as two reports of 1,000 endpoints; what is read last may take longer."""


class ReadingTime:
    """Shared by all channels of one loop.

    Who is refused asks again: the loop calls whoever has something to read in each of its turns.
    Those who were refused come before all others, until each of them has had its time.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._turning = False
        self._over_at: float | None = None
        self._first: frozenset[object] = frozenset()
        self._refused: set[object] = set()

    def is_left(self, who: object) -> bool:
        """Whether ``who`` reads now; in each turn of the loop one does at least."""
        if not self._turning:
            self._turning = True
            self._loop.call_soon(self._end_turn)  # before anybody is called who can read then
        if not self._first or who in self._first:
            now = self._loop.time()
            if self._over_at is None:
                self._over_at = now + TURN_S
                return True
            if now < self._over_at:
                return True
        self._refused.add(who)
        return False

    def _end_turn(self) -> None:
        self._turning = False
        self._over_at = None
        again = self._first & self._refused
        self._first, self._refused = again or frozenset(self._refused), set()
