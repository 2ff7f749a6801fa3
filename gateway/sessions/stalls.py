"""The watch over connections whose peer takes no more bytes: paused, slow, or gone.

It costs an idle session nothing. Something can wait only where bytes moved since the last look,
and the session that settles its counters knows where they did.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic

from gateway.core.stall import Stall, step_s
from gateway.sessions.leg import Leg
from gateway.sessions.timer import Timer
from gateway.tcp import read_signs, set_user_timeout

LATE = 1.25
"""A look settles the sessions itself when the last report is older than this many steps."""


class Stalls:
    """Borrows the legs that it is told of until nothing waits on them, or their session ends.

    ``settle()`` makes every session that moved bytes call :meth:`moved`; ``settled_at()`` says when
    that happened last. ``on_vanished(leg)``: its peer was silent for the timeout.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        settle: Callable[[], None],
        settled_at: Callable[[], float],
        on_vanished: Callable[[Leg], None],
    ) -> None:
        self._settle = settle
        self._settled_at = settled_at
        self._on_vanished = on_vanished
        self._timeout_s = 0.0
        self._moved: dict[Leg, None] = {}
        self._stalled: dict[Leg, Stall] = {}
        self._timer = Timer(loop, self._look)

    def __bool__(self) -> bool:
        return bool(self._stalled)

    def set(self, timeout_s: float) -> None:
        """Give up peers that are silent for ``timeout_s`` from now on; 0 turns it off."""
        self._timeout_s = timeout_s
        if timeout_s:
            self._timer.start(step_s(timeout_s))

    def close(self) -> None:
        self._timer.stop()

    def moved(self, leg: Leg) -> None:
        """Bytes were written to ``leg`` since the last look."""
        self._moved[leg] = None

    def deliver(self, leg: Leg) -> None:
        """``leg`` is about to be closed in good order: what waits must still arrive.

        The kernel goes on alone, for as long as the peer answers and about two minutes more.
        """
        if leg in self._stalled:
            set_user_timeout(leg.fd, 0.0)

    def _look(self) -> None:
        """Judge every leg that something may wait on."""
        timeout_s = self._timeout_s
        if not timeout_s:
            return
        now = monotonic()
        if now - self._settled_at() > step_s(timeout_s) * LATE:
            self._settle()  # else the reports do it every second, and nothing more is needed
        self._timer.start(step_s(timeout_s))
        moved, self._moved = self._moved, {}
        for leg in tuple(self._stalled | moved):
            if leg.fd >= 0:
                self._judge(leg, now, timeout_s)
            else:  # its session ended
                self._stalled.pop(leg, None)

    def _judge(self, leg: Leg, now: float, timeout_s: float) -> None:
        signs = read_signs(leg.fd)
        stall = self._stalled.get(leg)
        if not signs.waiting:
            if stall is not None:
                del self._stalled[leg]
                set_user_timeout(leg.fd, timeout_s)
            return
        if stall is None:
            stall = self._stalled[leg] = Stall(now, timeout_s)
        patience_s = stall.judge(signs, now, timeout_s)
        if patience_s is None:
            self._on_vanished(leg)
        else:
            set_user_timeout(leg.fd, patience_s)
