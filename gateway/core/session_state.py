"""What a session is doing, as the list of sessions says it."""

from __future__ import annotations

import enum
from collections.abc import Sequence

from gateway.core.records import dataclass

STALLED_S = 1.0
"""How long a peer takes no byte until its session is called stalled. An acknowledgment that is
merely delayed takes 0.2 seconds at most."""

STALLED_TRIES = 2
"""Tries in a row that a peer leaves without an answer; one may be lost on any path."""

COUNTED_S = 2**32 / 1e3
"""The kernel counts the milliseconds since the last byte in 32 bits (linux/tcp.h): 49.7 days."""


class SessionState(enum.StrEnum):
    """``state`` of a session in the list of sessions."""

    HELD_BACK = "held-back"
    DIALING = "dialing"
    OPEN = "open"
    HALF_CLOSED = "half-closed"
    STALLED = "stalled"


@dataclass(frozen=True, slots=True)
class Connection:
    """What the kernel knows of one connection (TCP_INFO). Times are seconds ago.

    ``waiting``: bytes were not acknowledged, or not even sent. ``unanswered``: tries in a row to
    deliver them. ``retransmits``: segments ever sent again.
    """

    rtt_s: float
    retransmits: int
    waiting: bool
    unanswered: int
    sent_s: float
    received_s: float

    @property
    def stalled(self) -> bool:
        """Whether the peer takes no bytes: it is paused, or nothing reaches it."""
        return self.waiting and (self.unanswered >= STALLED_TRIES or self.sent_s >= STALLED_S)

    @property
    def moved_s(self) -> float:
        """Since the last byte came, or went to a slow peer long after it had come."""
        goes_on = self.waiting and not self.unanswered
        return min(self.received_s, self.sent_s) if goes_on else self.received_s


def state_of(connections: Sequence[Connection], *, half_closed: bool) -> SessionState:
    """The state of a session that reached its endpoint."""
    if any(each.stalled for each in connections):
        return SessionState.STALLED
    return SessionState.HALF_CLOSED if half_closed else SessionState.OPEN


def idle_s(connections: Sequence[Connection], *, age_s: float, seen_s: float) -> float:
    """How long no byte moved.

    What one side sent, the gateway received; a slow peer takes it later. Of a session with one TCP
    connection, the bytes of the other side are those sent there; of one with none, ``seen_s`` is as
    much as is known.

    It may be longer where the session is older than COUNTED_S: the kernel begins again at 0 then,
    and ``seen_s`` is how long nothing moved at least.
    """
    match connections:
        case []:
            idle = seen_s
        case [only]:
            idle = min(only.received_s, only.sent_s)
        case _:
            idle = min(each.moved_s for each in connections)
    if age_s >= COUNTED_S:
        idle = max(idle, seen_s)
    return min(idle, age_s)
