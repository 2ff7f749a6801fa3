"""A peer that takes no more bytes: does it live, and how does the kernel keep asking it?

A peer that is merely paused or slow answers every probe of the kernel; one that vanished does not.
So silence decides, and the gateway judges it. The kernel cannot: TCP_USER_TIMEOUT ends a
connection whose bytes are not taken for so long, whatever the peer answers. Nor does it say from
when on it counts; after a window that opened a little it goes on counting from an earlier stall,
however long ago that was.

What the kernel has to do is to keep probing. Left alone, its probes back off to one in two minutes,
and silence between two probes means nothing. Two means bound the gaps:

- TCP_RTO_MAX_MS (Linux 6.15) does exactly that.
- The kernel never lets a probe wait beyond TCP_USER_TIMEOUT. On older kernels the option is moved
  along at every look, always a little ahead of the earliest instant that the kernel can count from.
"""

from __future__ import annotations

from gateway.core.records import dataclass

STEPS = 16
"""Looks in one timeout."""

SHORTEST_STEP_S = 0.01
"""But no more than a hundred a second: the kernel waits 0.2 seconds before it asks again, so what a
shorter timeout would find is not there earlier, and a timer of less than 0.5 ms does not wait."""

LONGEST_STEP_S = 1.0
"""And at least one look a second: a vanished peer is noticed that much late at most."""

AHEAD = 1 / 8
"""The longest gap between two probes that is aimed at, in timeouts.

It is two looks or more (see :func:`ahead_s`), so that one may be late, and a peer that is silent
for a timeout missed three probes or more. It is also how long a stall may have lasted when the
first look finds it.
"""

LEAST_UNANSWERED = 2
"""So many packets without an answer, too, before silence counts: one may be lost by chance."""


def step_s(timeout_s: float) -> float:
    """Seconds between two looks."""
    return min(max(timeout_s / STEPS, SHORTEST_STEP_S), LONGEST_STEP_S)


def ahead_s(timeout_s: float) -> float:
    """AHEAD in seconds; two looks where the timeout is so short that these are more."""
    return max(timeout_s * AHEAD, 2 * SHORTEST_STEP_S)


def longest_gap_s(timeout_s: float) -> float:
    """The longest gap between two probes; TCP_RTO_MAX_MS takes 1 to 120 seconds."""
    return min(max(timeout_s * AHEAD, 1.0), 120.0)


@dataclass(frozen=True, slots=True)
class Signs:
    """What the kernel knows of one connection (struct tcp_info).

    ``waiting``: bytes of ours that the peer did not acknowledge, or that were not even sent.
    ``silent_s``: since anything was heard of the peer. ``unanswered``: probes and retransmissions
    since then.
    """

    waiting: bool
    silent_s: float
    unanswered: int


class Stall:
    """What is remembered of one connection whose peer did not take bytes, once or again."""

    __slots__ = ("_began_at", "_earliest_at")

    def __init__(self, now: float, timeout_s: float) -> None:
        self._began_at = now
        self._earliest_at = now - ahead_s(timeout_s)

    def begin(self, now: float) -> None:
        """It takes no bytes; silence counts from now on."""
        self._began_at = now

    def has_vanished(self, signs: Signs, now: float, timeout_s: float) -> bool:
        """Whether the peer was silent for the timeout although it was asked.

        Silence from before the stall does not count: nobody asked.
        """
        silent_s = min(signs.silent_s, now - self._began_at)
        return silent_s >= timeout_s and signs.unanswered >= LEAST_UNANSWERED

    def kernel_timeout_s(self, now: float, timeout_s: float) -> float:
        """TCP_USER_TIMEOUT for now, where it has to bound the gaps between the probes.

        The kernel may count from the first stall of all: it does not forget that when its window
        opens by less than the next packet.
        """
        return max(timeout_s, now - self._earliest_at + ahead_s(timeout_s))
