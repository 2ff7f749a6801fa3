"""Connections whose session is over while the peer has not taken the last bytes yet.

The kernel delivers what a closed connection still holds, but it gives up sooner the more often it
has probed before: a peer that was paused for a minute when its session ended in order would lose
the tail. So the worker keeps such a connection open until everything was taken.
"""

from __future__ import annotations

from gateway.core.descriptor_budget import DescriptorBudget
from gateway.core.stall import Stall
from gateway.poller import Poller
from gateway.tcp import arm_reset, read_signs, set_longest_gap, set_user_timeout
from gateway.tcp_calls import shut_write

LINGER_S = 240.0
"""How long such a connection is kept at most; the kernel alone waits for about two minutes."""

MOST = 256
"""Connections that linger at once; each has a descriptor. Further ones are left to the kernel."""

KERNELS_GAP_S = 120.0
"""The kernel's own longest gap between two probes (TCP_RTO_MAX)."""


class Lingering:
    """Owns the descriptors that it is given, until they are closed."""

    def __init__(self, poller: Poller, budget: DescriptorBudget) -> None:
        self._poller = poller
        self._budget = budget
        self._waiting: dict[int, tuple[Stall, float]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def reserve(self) -> bool:
        """Whether one more can be kept; its descriptor counts from now on, so :meth:`take` it."""
        return len(self._waiting) < MOST and self._budget.take()

    def take(self, fd: int, stall: Stall, now: float) -> None:
        """End the stream, and keep the connection until it was taken; ``fd`` is not polled."""
        self._waiting[fd] = (stall, now + LINGER_S)
        shut_write(fd)

    def look(self, now: float, timeout_s: float, *, kernel_bounds_gaps: bool) -> None:
        """Close what was taken, what vanished, and what has lingered long enough."""
        for fd, (stall, until) in tuple(self._waiting.items()):
            signs = read_signs(fd)
            if stall.has_vanished(signs, now, timeout_s):
                arm_reset(fd)
                self._close(fd)
            elif not signs.waiting or now >= until:
                self._close(fd)
            elif not kernel_bounds_gaps:
                set_user_timeout(fd, stall.kernel_timeout_s(now, timeout_s))

    def close(self) -> None:
        """Leave all of them to the kernel."""
        for fd in tuple(self._waiting):
            self._close(fd)

    def _close(self, fd: int) -> None:
        del self._waiting[fd]
        leave_to_kernel(fd)
        self._poller.close(fd)
        self._budget.give_back()


def leave_to_kernel(fd: int) -> None:
    """Take back what was set for a stall: the kernel goes on alone, in its own way."""
    set_user_timeout(fd, 0.0)
    set_longest_gap(fd, KERNELS_GAP_S)
