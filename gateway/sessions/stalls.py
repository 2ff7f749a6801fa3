"""The watch over connections whose peer takes no more bytes: paused, slow, or gone.

It costs an idle session nothing: only where bytes moved since the last look can something wait,
and who settles the counters knows where they did.
"""

from __future__ import annotations

from collections.abc import Callable

from gateway.core.stall import Stall
from gateway.sessions.relay import Leg
from gateway.tcp import read_signs, set_user_timeout


class Stalls:
    """Borrows the legs that it is told of until nothing waits on them, or their session ends.

    ``on_vanished(leg)``: its peer was silent for the timeout; called from :meth:`look` only.
    """

    def __init__(self, on_vanished: Callable[[Leg], None]) -> None:
        self._on_vanished = on_vanished
        self._moved: dict[Leg, None] = {}
        self._stalled: dict[Leg, Stall] = {}

    def __bool__(self) -> bool:
        return bool(self._stalled)

    def moved(self, leg: Leg) -> None:
        """Bytes were written to ``leg`` since the last look."""
        self._moved[leg] = None

    def deliver(self, leg: Leg) -> None:
        """``leg`` is about to be closed in good order: what waits must still arrive.

        The kernel goes on alone, for as long as the peer answers and about two minutes more.
        """
        if leg in self._stalled:
            set_user_timeout(leg.fd, 0.0)

    def look(self, now: float, timeout_s: float) -> None:
        """Judge every leg that something may wait on; due every ``step_s(timeout_s)``."""
        moved, self._moved = self._moved, {}
        for leg in tuple(self._stalled | moved):
            if leg.fd >= 0:
                self._look_at(leg, now, timeout_s)
            else:  # its session ended
                self._stalled.pop(leg, None)

    def _look_at(self, leg: Leg, now: float, timeout_s: float) -> None:
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
