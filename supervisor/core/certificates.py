"""When the certificates of the endpoints end, and when the log is to warn of it.

The end is read from the certificate's DER encoding (RFC 5280, 4.1), because Python's own reading of
a certificate works only where the certificate was verified.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Collection, Iterable

from gateway.core.records import dataclass

WARN_S = 14 * 86400.0
"""The log warns when a certificate has less left than this."""

WARN_EVERY_S = 86400.0

SEQUENCE, VERSION, UTC_TIME, GENERALIZED_TIME = 0x30, 0xA0, 0x17, 0x18


Place = tuple[str, str, int]
"""Endpoint, address and port: probes may go to another port than sessions (``--health-port``)."""


@dataclass(frozen=True, slots=True)
class CertificateEnd:
    """When the certificate of one place ends, and when the log last warned of it.

    Both are seconds since the epoch; ``warned_at`` is None if the log never did.
    """

    endpoint: str
    address: str
    port: int
    not_after: float
    warned_at: float | None = None


class CertificateEnds:
    """By place, what the last full handshake showed."""

    def __init__(self) -> None:
        self._ends: dict[Place, CertificateEnd] = {}

    def take(self, place: Place, not_after: float, now: float) -> bool:
        """A handshake showed this end; whether the log is to warn of it."""
        held = self._ends.get(place)
        warned_at = None if held is None else held.warned_at
        # A warning of the future is of a clock that has been set back since.
        told = warned_at is not None and 0 <= now - warned_at < WARN_EVERY_S
        due = not_after - now < WARN_S and not told
        self._ends[place] = CertificateEnd(*place, not_after, now if due else warned_at)
        return due

    def by_endpoint(self) -> dict[str, float]:
        """When the first of each endpoint's certificates ends; without those that showed none."""
        firsts: dict[str, float] = {}
        for each in self._ends.values():
            firsts[each.endpoint] = min(each.not_after, firsts.get(each.endpoint, math.inf))
        return firsts

    def retain(self, places: Collection[Place]) -> None:
        """Forget all other places than these."""
        self._ends = {place: end for place, end in self._ends.items() if place in places}

    def export(self) -> tuple[CertificateEnd, ...]:
        """Everything that is held, for the next master."""
        return tuple(self._ends.values())

    def restore(self, ends: Iterable[CertificateEnd]) -> None:
        """Go on from what :meth:`export` gave in an earlier master."""
        self._ends = {(each.endpoint, each.address, each.port): each for each in ends}


def find_end(certificate: bytes) -> float | None:
    """When a certificate in DER ends, in seconds since the epoch; None if it cannot be read."""
    try:
        whole = _Der(certificate).enter(SEQUENCE).enter(SEQUENCE)  # Certificate, TBSCertificate
        if whole.tag == VERSION:
            whole.skip()
        for _ in range(3):  # serialNumber, signature, issuer
            whole.skip()
        validity = whole.enter(SEQUENCE)
        validity.skip()  # notBefore
        return _instant(validity.tag, validity.value())
    except (IndexError, ValueError):
        return None


class _Der:
    """A place in a DER encoding; raises IndexError at the end, ValueError for what is none."""

    def __init__(self, data: bytes) -> None:
        self._rest = data

    @property
    def tag(self) -> int:
        return self._rest[0]

    def enter(self, tag: int) -> _Der:
        """The inside of the element here, which must have this tag."""
        if self.tag != tag:
            raise ValueError(self.tag)
        return _Der(self.value())

    def value(self) -> bytes:
        begin, end = self._span()
        return self._rest[begin:end]

    def skip(self) -> None:
        self._rest = self._rest[self._span()[1] :]

    def _span(self) -> tuple[int, int]:
        """Where the value of the element here begins and ends."""
        length, begin = self._rest[1], 2
        if length >= 0x80:
            begin += length - 0x80
            length = int.from_bytes(self._rest[2:begin], "big")
        if begin + length > len(self._rest):
            raise IndexError(length)
        return begin, begin + length


def _instant(tag: int, text: bytes) -> float:
    """RFC 5280, 4.1.2.5: two digits of a year are from 1950 to 2049, and the time zone is Z."""
    digits = text.decode("ascii")
    if tag == UTC_TIME:
        digits = ("19" if digits[:2] >= "50" else "20") + digits
    elif tag != GENERALIZED_TIME:
        raise ValueError(tag)
    moment = datetime.datetime.strptime(digits, "%Y%m%d%H%M%SZ").replace(tzinfo=datetime.UTC)
    return moment.timestamp()
