"""The watch over connections whose peer takes no more bytes: paused, slow, or gone.

It costs an idle session nothing. Something can wait only where bytes moved since the last look,
and the session that counts its bytes knows where they did.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable
from time import monotonic

from gateway.core.counters import End
from gateway.core.stall import Stall, longest_gap_s, step_s
from gateway.sessions.leg import Leg
from gateway.sessions.lingering import LINGER_S, Lingering, leave_to_kernel
from gateway.tcp import is_waiting, read_signs, set_longest_gap, set_user_timeout
from gateway.tcp_calls import shut_write
from gateway.timer import Timer

AT_ONCE = 256
"""Legs judged before sessions get their turn: 0.3 ms, or 3 ms if something waits on all of them."""

LOOKS = 8
"""How often a session is looked at in the time in which a byte has to move."""

LATE = 1.25
"""A look has the bytes counted when the last report is older than this many steps."""


class Stalls:
    """Borrows the legs that it is told of until nothing waits on them, or their session ends.

    ``count_bytes()`` makes every session that moved bytes call :meth:`moved`, and ``counted_at()``
    says when it was last called. ``on_vanished(leg)``: its peer was silent for the timeout.
    ``lingering``: connections that outlive their session, looked at together with the others.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        lingering: Lingering,
        count_bytes: Callable[[], None],
        counted_at: Callable[[], float],
        on_vanished: Callable[[Leg], None],
    ) -> None:
        self._lingering = lingering
        self._count_bytes = count_bytes
        self._counted_at = counted_at
        self._on_vanished = on_vanished
        self._timeout_s = 0.0
        self._moved: dict[Leg, None] = {}
        self._stalled: dict[Leg, None] = {}
        self._unjudged: list[Leg] = []
        """What is left of a look that is under way."""
        self.kernel_bounds_gaps = True
        """Until a kernel older than Linux 6.15 says no."""
        self._timer = Timer(loop, self._look)
        self._outliving: dict[Leg, None] = {}
        self._patience = Timer(loop, self._look_at_outliving)

    def set(self, timeout_s: float, legs: Iterable[Leg] = ()) -> None:
        """Give up peers that are silent for ``timeout_s`` from now on; 0 turns it off.

        ``legs``: all there are. Where it was off, something may wait on each of them.
        """
        if timeout_s and not self._timeout_s:
            self._moved.update(dict.fromkeys(legs))
        self._timeout_s = timeout_s
        if timeout_s:
            self._timer.start(step_s(timeout_s))
        else:
            self._leave_to_kernel()

    def close(self) -> None:
        self._timer.stop()
        self._patience.stop()
        self._lingering.close()

    def moved(self, leg: Leg) -> None:
        """Bytes, or the end of a stream, were passed to ``leg`` since the last look."""
        if self._timeout_s:
            self._moved[leg] = None

    def outlive(self, leg: Leg) -> None:
        """``leg``'s connection is no more, and what it sent is still to be taken.

        Nobody is left who would give up, so a session on which no byte moves ends at last.
        """
        self._outliving[leg] = None
        self._patience.start(LINGER_S / LOOKS)

    def deliver(self, leg: Leg) -> None:
        """``leg`` is about to be closed in good order, and all must arrive.

        For one that stalled once, or whose peer may still say something: there the kernel alone
        may not deliver it. The end of stream goes out first, because closing a socket with unread
        bytes sends a reset in its place.
        """
        shut_write(leg.fd)
        if read_signs(leg.fd).waiting and self._lingering.reserve():
            now, timeout_s = monotonic(), self._timeout_s
            stall = leg.stall
            if stall is None:
                stall = Stall(now, timeout_s)
            elif timeout_s and leg not in self._stalled:
                self._begin(leg, stall)
            self._lingering.take(leg.detach(), stall, now)
            self._timer.start(step_s(timeout_s or math.inf))
        elif leg.stall is not None:
            leave_to_kernel(leg.fd)

    def _look_at_outliving(self) -> None:
        now = monotonic()
        for leg in tuple(self._outliving):
            if leg.fd < 0:  # its session ended
                del self._outliving[leg]
            elif leg.session.is_idle(now, LINGER_S):
                leg.session.cut(End.RESET)
        if self._outliving:
            self._patience.start(LINGER_S / LOOKS)

    def _look(self) -> None:
        """Judge every leg that something may wait on, AT_ONCE of them before the loop goes on."""
        timeout_s = self._timeout_s
        if not timeout_s:
            self._lingering.look(monotonic(), math.inf, kernel_bounds_gaps=True)
            if self._lingering:
                self._timer.start(step_s(math.inf))
            return
        if not self._unjudged:
            self._gather(step_s(timeout_s))
        now = monotonic()
        unjudged = self._unjudged
        for _ in range(min(len(unjudged), AT_ONCE)):
            leg = unjudged.pop()
            if leg.fd >= 0:
                self._judge(leg, now, timeout_s)
            else:  # its session ended
                self._stalled.pop(leg, None)
        if unjudged:
            self._timer.start(0.0)
        else:
            self._lingering.look(now, timeout_s, kernel_bounds_gaps=self.kernel_bounds_gaps)
            self._timer.start(step_s(timeout_s))

    def _gather(self, step: float) -> None:
        """Collect the legs of one look."""
        if monotonic() - self._counted_at() > step * LATE:
            self._count_bytes()  # else the reports do it every second, and nothing more is needed
        moved, self._moved = self._moved, {}
        self._unjudged = list(self._stalled | moved)

    def _leave_to_kernel(self) -> None:
        for leg in self._stalled:
            if leg.fd >= 0:
                leave_to_kernel(leg.fd)
        self._stalled.clear()
        self._moved.clear()
        self._unjudged.clear()

    def _judge(self, leg: Leg, now: float, timeout_s: float) -> None:
        signs = read_signs(leg.fd) if is_waiting(leg.fd) else None
        if signs is None or not signs.waiting:
            if leg in self._stalled:
                del self._stalled[leg]
                set_user_timeout(leg.fd, 0.0)
            return
        stall = leg.stall
        if stall is None:
            stall = leg.stall = Stall(now, timeout_s)
        if leg not in self._stalled:
            self._begin(leg, stall)
        if stall.has_vanished(signs, now, timeout_s):
            self._on_vanished(leg)
        elif not self.kernel_bounds_gaps:
            set_user_timeout(leg.fd, stall.kernel_timeout_s(now, timeout_s))

    def _begin(self, leg: Leg, stall: Stall) -> None:
        """``leg`` takes no bytes, for the first time or again."""
        stall.begin(monotonic())
        self._stalled[leg] = None
        self.kernel_bounds_gaps &= set_longest_gap(leg.fd, longest_gap_s(self._timeout_s))
        set_user_timeout(leg.fd, math.inf)
