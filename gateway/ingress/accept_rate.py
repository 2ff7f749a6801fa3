"""The rate of new clients: this worker stops accepting for as long as the whole gateway has to.

``core.rate`` decides how long that is; here are the timer and the scoreboard's count of clients.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from gateway.core.rate import RateLimit
from gateway.ingress.quota import Quota
from gateway.scoreboard import STALE_NS, Scoreboard
from gateway.timer import Timer

LOOK_AGAIN_S = 0.1
"""A look counts no longer: for a moment at a reload, the marks of others are of another rate."""


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
        self._scoreboard = scoreboard
        self._row = row
        self._quota = quota
        self._recheck = recheck
        self._limit = RateLimit(per_s, scoreboard.accepted())
        self._timer = Timer(loop, self._look)
        quota.rate_limited = True

    def count_client(self, *, accepting: bool) -> None:
        """One more came; leave the next one in the kernel's queue until its time has come.

        ``accepting``: False at a stop, when what is queued is taken whatever the rate is.
        """
        self._scoreboard.count_client(self._row)
        if accepting and not self._timer.running:
            self._look(own=1)

    def close(self) -> None:
        """There is no rate any more."""
        self._timer.stop()
        self._scoreboard.set_rate_mark(self._row, 0)
        self._quota.rate_limited = self._quota.rate_reached = False

    def _look(self, own: int = 0) -> None:
        """Accept if another client may come now, else look again when one may.

        ``own``: clients that came here just now.
        """
        scoreboard, now_ns = self._scoreboard, time.monotonic_ns()
        marks = scoreboard.rate_marks(now_ns - STALE_NS)
        wait_s = self._limit.wait_s(scoreboard.accepted(), now_ns / 1e9, own=own, marks=marks)
        scoreboard.set_rate_mark(self._row, self._limit.mark)
        self._quota.rate_reached = wait_s > 0
        if wait_s:
            self._timer.start(min(wait_s, LOOK_AGAIN_S))
        else:
            self._recheck()
