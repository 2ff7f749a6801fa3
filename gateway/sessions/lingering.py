"""Connections whose session is over while the peer has not taken the last bytes yet.

The kernel delivers what a closed connection still holds, but not always:

- It gives up sooner the more often it has probed before: a peer that was paused for a minute when
  its session ended in order would lose the tail.
- It answers with a reset what the peer still says, and forgets the rest: a peer whose other side
  has closed may say something before it has read everything.

So the worker keeps such a connection open until everything was taken, and drops what it hears.
"""

from __future__ import annotations

from os import read

from gateway.core.descriptor_budget import DescriptorBudget
from gateway.core.stall import Stall
from gateway.poller import ERR, Poller
from gateway.sessions.leg import READ_BYTES
from gateway.tcp import arm_reset, is_waiting, read_signs, set_longest_gap, set_user_timeout

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
        self._all: dict[_Rest, None] = {}

    def __len__(self) -> int:
        return len(self._all)

    def reserve(self) -> bool:
        """Whether one more can be kept; its descriptor counts from now on, so :meth:`take` it."""
        return len(self._all) < MOST and self._budget.take_beside_clients()

    def take(self, fd: int, stall: Stall, now: float) -> None:
        """Keep the connection until its stream, which has ended, was taken; ``fd`` is polled."""
        rest = _Rest(self, self._poller, fd, stall, now + LINGER_S)
        self._all[rest] = None
        self._poller.replace(fd, rest)
        rest.on_event(0)  # what came before is no event any more

    def look(self, now: float, timeout_s: float, *, kernel_bounds_gaps: bool) -> None:
        """Close what was taken, what vanished, and what has lingered long enough."""
        for rest in tuple(self._all):
            signs = read_signs(rest.fd)
            if rest.stall.has_vanished(signs, now, timeout_s):
                arm_reset(rest.fd)
                self.end(rest)
            elif not signs.waiting:
                self.end(rest)
            elif now >= rest.until:
                leave_to_kernel(rest.fd)
                self.end(rest)
            elif not kernel_bounds_gaps:
                set_user_timeout(rest.fd, rest.stall.kernel_timeout_s(now, timeout_s))

    def close(self) -> None:
        """Leave all of them to the kernel."""
        for rest in tuple(self._all):
            leave_to_kernel(rest.fd)
            self.end(rest)

    def end(self, rest: _Rest) -> None:
        """Close it."""
        del self._all[rest]
        fd, rest.fd = rest.fd, -1
        self._poller.close(fd)
        self._budget.give_back()


class _Rest:
    """One of them, and the watcher of it: reads what its peer still says, for nobody.

    ``until``: when it has lingered long enough. ``fd``: -1 once it is closed.
    """

    __slots__ = ("_lingering", "_poller", "fd", "stall", "until")

    def __init__(
        self, lingering: Lingering, poller: Poller, fd: int, stall: Stall, until: float
    ) -> None:
        self._lingering = lingering
        self._poller = poller
        self.fd = fd
        self.stall = stall
        self.until = until

    def on_event(self, mask: int) -> None:
        if self.fd < 0:
            return
        try:
            if mask & ERR:
                self._lingering.end(self)
            elif read(self.fd, READ_BYTES):
                self._poller.again(self)
            elif not is_waiting(self.fd):
                self._lingering.end(self)
        except BlockingIOError:
            pass
        except OSError:
            self._lingering.end(self)

    def on_crash(self, _error: Exception) -> None:
        if self.fd >= 0:
            self._lingering.end(self)


def leave_to_kernel(fd: int) -> None:
    """Take back what was set for a stall: the kernel goes on alone, in its own way."""
    set_user_timeout(fd, 0.0)
    set_longest_gap(fd, KERNELS_GAP_S)
