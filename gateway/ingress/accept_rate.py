"""The rate of new clients: this worker stops accepting for as long as the whole gateway has to.

``core.rate`` decides how long that is; here are the timer and the scoreboard's count of clients.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from gateway.core.rate import RateLimit
from gateway.ingress.quota import Quota
from gateway.scoreboard import Scoreboard


class AcceptRate:
    """``--max-session-rate`` while it is set: at most ``per_s`` clients a second, over all workers.

    Says so to ``quota``, which has no room while the rate is reached; ``recheck()`` is called when
    it may have room again. Owns a timer until :meth:`close`.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        scoreboard: Scoreboard,
        *,
        row: int,
        per_s: int,
        quota: Quota,
        recheck: Callable[[], None],
    ) -> None:
        self.per_s = per_s
        self._loop = loop
        self._scoreboard = scoreboard
        self._row = row
        self._quota = quota
        self._recheck = recheck
        self._limit = RateLimit(per_s, scoreboard.accepted(), time.monotonic())
        self._timer: asyncio.TimerHandle | None = None
        quota.rate_limited = True

    def count_client(self, *, accepting: bool) -> None:
        """One more came; leave the next one in the kernel's queue until its time has come.

        ``accepting``: False at a stop, when what is queued is taken whatever the rate is.
        """
        self._scoreboard.count_client(self._row)
        if self._timer is None and accepting:
            self._look()

    def close(self) -> None:
        """There is no rate any more."""
        if self._timer is not None:
            self._timer.cancel()
        self._quota.rate_limited = self._quota.rate_reached = False

    def _look(self) -> None:
        """Accept if another client may come now, else look again when one may."""
        self._timer = None
        wait_s = self._limit.wait_s(self._scoreboard.accepted(), time.monotonic())
        self._quota.rate_reached = wait_s > 0
        if wait_s:
            self._timer = self._loop.call_later(wait_s, self._look)
        else:
            self._recheck()
