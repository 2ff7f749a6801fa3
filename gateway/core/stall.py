"""A peer that takes no more bytes: does it live, and how long may the kernel wait for it?

TCP_USER_TIMEOUT ends a connection whose data is not taken for so long, also if the peer answers
every window probe: a client that is merely paused or slow would lose its session like one that
vanished. So the option stays as it is, but is *moved*: as long as the peer of a stalled connection
was heard of lately, the kernel's deadline is set a little ahead of now, again and again.

The kernel never lets a probe wait beyond its deadline. Left alone, probes back off to one in two
minutes; a deadline that is always near keeps them coming, so silence means something. And if nobody
moves the deadline any more, the kernel keeps it.
"""

from __future__ import annotations

from dataclasses import dataclass

STEPS = 16
"""Looks in one timeout."""

LONGEST_STEP_S = 1.0
"""And at least one a second: a vanished peer is noticed that much late at most."""

AHEAD = 1 / 8
"""How far ahead the deadline is moved, in timeouts: two looks or more, so that one may be late.

It is also how far the start of a stall may lie before the first look that finds it; both together
are the longest wait between two probes. A peer that is silent for a timeout missed three or more.
"""

LEAST_UNANSWERED = 2
"""So many packets without an answer, too, before silence counts: one may be lost by chance."""


def step_s(timeout_s: float) -> float:
    """Seconds between two looks."""
    return min(timeout_s / STEPS, LONGEST_STEP_S)


@dataclass(frozen=True, slots=True)
class Signs:
    """What the kernel knows of one connection (struct tcp_info).

    ``waiting``: bytes of ours that the peer did not acknowledge, or that were not even sent.
    ``silent_s``: since anything was heard of the peer. ``unanswered``: probes and retransmissions
    since then. ``backoff``: how often the kernel's timer was doubled in this stall.
    """

    waiting: bool
    silent_s: float
    unanswered: int
    backoff: int


class Stall:
    """One connection whose peer does not take bytes, from the first look that found it so."""

    __slots__ = ("_backoff", "_looked_at", "_since")

    def __init__(self, now: float, timeout_s: float) -> None:
        self._looked_at = self._since = now - timeout_s * AHEAD
        self._backoff = 0

    def judge(self, signs: Signs, now: float, timeout_s: float) -> float | None:
        """What TCP_USER_TIMEOUT must be now, in seconds; None: the peer is gone, give it up."""
        if signs.silent_s >= timeout_s and signs.unanswered >= LEAST_UNANSWERED:
            return None
        if signs.backoff < self._backoff:
            # The window was open for a moment, and the kernel counts from a later start.
            self._since = self._looked_at
        self._backoff = signs.backoff
        self._looked_at = now
        return max(timeout_s, now - self._since + timeout_s * AHEAD)
