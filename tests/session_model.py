"""What each side of a session must have seen, given what both sides did. No sockets here.

The rules, for each receiver and its sender:

- What was received is the beginning of what was sent, byte for byte.
- An end of stream is seen only if the sender ended its stream, and after every byte of it.
- A reset is seen only for a reason: the sender reset its connection, or closed it with bytes of the
  other in flight, or the gateway gave the session up for a reason that the test knows.
- Without such a reason every byte, and the end, is seen; with a reset, the reset is, unless the
  stream had ended before it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

PERIOD = 1_000_003
"""Prime, so that no buffer size divides it and a block in a wrong place is seen."""

STREAMS = {side: random.Random(side).randbytes(PERIOD) * 2 for side in ("client", "endpoint")}
"""What each side sends, again and again; urgent bytes are bytes of it, too."""


def piece(side: str, start: int, size: int) -> bytes:
    """Bytes ``start`` to ``start + size`` of what ``side`` sends; ``size`` is at most PERIOD."""
    return STREAMS[side][start % PERIOD : start % PERIOD + size]


@dataclass(slots=True)
class Side:
    """What one side did (``sent``, ``ended``, ``closed``, ``was_reset``) and saw (the rest)."""

    name: str
    sent: int = 0
    ended: bool = False
    closed: bool = False
    """Closed in order. Bytes that it did not read, or that come later, are answered by a reset."""
    was_reset: bool = False
    """It reset its connection."""
    received: int = 0
    saw_end: bool = False
    saw_reset: bool = False

    @property
    def gone(self) -> bool:
        """It has no socket any more."""
        return self.closed or self.was_reset

    @property
    def done(self) -> bool:
        """Nothing more will be seen by it."""
        return self.gone or self.saw_end or self.saw_reset


@dataclass(slots=True)
class SessionModel:
    """Both sides; raises AssertionError when one sees what it must not see."""

    client: Side = field(default_factory=lambda: Side("client"))
    endpoint: Side = field(default_factory=lambda: Side("endpoint"))
    given_up: bool = False
    """The gateway may reset both: no endpoint, removed endpoint, drain."""

    def other(self, side: Side) -> Side:
        return self.endpoint if side is self.client else self.client

    def may_be_reset(self, side: Side) -> bool:
        other = self.other(side)
        return self.given_up or other.was_reset or other.closed or side.closed

    def receives(self, side: Side, data: bytes) -> None:
        sender = self.other(side)
        assert not side.saw_end, f"{side.name} received bytes after the end"
        start, side.received = side.received, side.received + len(data)
        assert side.received <= sender.sent, f"{side.name} received more than was sent"
        assert data == piece(sender.name, start, len(data)), f"{side.name}: wrong bytes at {start}"

    def sees_end(self, side: Side) -> None:
        sender = self.other(side)
        assert sender.ended, f"{side.name} saw an end that {sender.name} did not make"
        assert side.received == sender.sent, f"{side.name} took {side.received} of {sender.sent}"
        side.saw_end = True

    def sees_reset(self, side: Side) -> None:
        assert self.may_be_reset(side), f"{side.name} was reset for no reason"
        side.saw_reset = True

    @property
    def orderly(self) -> bool:
        """No reset may be seen: both must get everything."""
        return not (self.given_up or any(each.gone for each in (self.client, self.endpoint)))

    def allowed_ends(self) -> set[str]:
        """What the access log may say; ``reset_by`` is judged by :meth:`allowed_reset_by`."""
        both = (self.client, self.endpoint)
        ends = {each.name for each in both if each.ended}
        if not self.orderly:
            ends.add("reset")
        if self.endpoint.was_reset:
            ends.add("dial-failed")  # it may have come before the worker saw the connection
        if self.given_up:
            ends |= {"drained", "removed", "dial-failed", "no-endpoint"}
        return ends

    def allowed_reset_by(self) -> set[str | None]:
        gone = {each.name for each in (self.client, self.endpoint) if each.gone}
        return {None, *gone}
