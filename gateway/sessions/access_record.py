"""What the access log says of a session, noted while the session goes on.

A session has a record only if the access log was on when its client came. So without the access log
nothing is asked of the kernel and nothing is noted. With it, the endpoint's first bytes are noticed
by a watcher that takes itself away: from then on the endpoint's leg is watched as without a log.
"""

from __future__ import annotations

from time import monotonic
from typing import Any

from gateway.core.socket_address import address_text
from gateway.sessions.leg import Leg
from gateway.tcp import own_address_of


class AccessRecord:
    """Seconds count from ``dialing_at``, when the dial began."""

    __slots__ = (
        "address", "attempts", "dial_s", "dialing_at", "first_byte_at", "local",
        "looked_at",
    )  # fmt: skip

    def __init__(self, dialing_at: float) -> None:
        self.dialing_at = dialing_at
        self.local = ""
        """Our side of the connection to the endpoint, which is the client in the endpoint's log."""
        self.address = ""
        self.attempts = 0
        self.dial_s: float | None = None
        self.looked_at: float | None = None
        """When the endpoint's connection last said something, until its first bytes are here."""
        self.first_byte_at: float | None = None

    def dialed(self, attempts: int, now: float) -> None:
        """The dial is over, whatever came of it."""
        self.attempts = attempts
        self.dial_s = now - self.dialing_at

    def connected(self, leg: Leg, address: str) -> FirstByteWatch:
        """Note both ends of the connection; who is to watch it until its first bytes came."""
        self.address = address
        self.local = address_text(own_address_of(leg.fd))
        return FirstByteWatch(leg, self)

    def facts(self, bytes_out: int) -> dict[str, Any]:
        """The fields of the access log that only the record knows."""
        first_byte_at = self.first_byte_at
        if first_byte_at is None and bytes_out:  # they came with the end of the session
            first_byte_at = self.looked_at
        return {
            "address": self.address,
            "local": self.local,
            "dial_s": _rounded(self.dial_s),
            "attempts": self.attempts,
            "first_byte_s": _rounded(
                None if first_byte_at is None else first_byte_at - self.dialing_at
            ),
        }


NO_RECORD = AccessRecord(0.0)
"""Of a session whose client came before the access log was turned on."""


class FirstByteWatch:
    """Watches the connection to an endpoint, for ``leg``, until the first bytes came through it."""

    __slots__ = ("_leg", "_record")

    def __init__(self, leg: Leg, record: AccessRecord) -> None:
        self._leg = leg
        self._record = record

    def on_event(self, mask: int) -> None:
        leg, record = self._leg, self._record
        record.looked_at = monotonic()
        leg.on_event(mask)
        if leg.fd >= 0 and (leg.moved or leg.blocked):
            record.first_byte_at = record.looked_at
            leg.relay.poller.replace(leg.fd, leg)

    def on_crash(self, error: Exception) -> None:
        self._leg.on_crash(error)


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)
