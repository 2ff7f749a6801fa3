"""What is remembered of each nameserver between questions: EDNS, and who does not answer."""

from __future__ import annotations

import enum
import math

from gateway.core.records import dataclass
from supervisor.core.backoff import doubled_s

EDNS_MEMORY_S = 3600.0
"""How long it is remembered whether a nameserver understands EDNS: servers are replaced."""

FIRST_AVOID_S = 30.0
MAX_AVOID_S = 600.0
"""A nameserver that did not answer at all is asked after the others for this long, doubling."""


class Edns(enum.Enum):
    """What is known of a nameserver and the OPT record (RFC 6891)."""

    UNKNOWN = enum.auto()
    WORKS = enum.auto()
    BROKEN = enum.auto()


@dataclass(slots=True)
class _Server:
    edns: Edns = Edns.UNKNOWN
    edns_until: float = -math.inf
    failures: int = 0
    avoid_until: float = -math.inf


class Nameservers:
    """Remembers ``count`` nameservers, called by their index; ``now`` is of the monotonic clock.

    ``rotate``: each question begins with the next nameserver (resolv.conf(5)).
    """

    def __init__(self, count: int, *, rotate: bool = False) -> None:
        self._servers = [_Server() for _ in range(count)]
        self._rotate = rotate
        self._turn = 0

    def order(self, now: float) -> tuple[int, ...]:
        """In which order to ask: as configured, but those that did not answer lately last."""
        count = len(self._servers)
        first = self._turn % count
        if self._rotate:
            self._turn += 1
        indexes = [(first + i) % count for i in range(count)]
        return tuple(sorted(indexes, key=lambda i: self._servers[i].avoid_until > now))

    def edns(self, server: int, now: float) -> Edns:
        """What is known of a nameserver's EDNS; after EDNS_MEMORY_S it is unknown again."""
        it = self._servers[server]
        return it.edns if now < it.edns_until else Edns.UNKNOWN

    def edns_worked(self, server: int, now: float) -> None:
        """A query with an OPT record was answered."""
        self._note_edns(server, Edns.WORKS, now)

    def edns_failed(self, server: int, now: float, *, silently: bool) -> None:
        """A query was answered without an OPT record after it had not been with one.

        ``silently``: the query with the OPT record got no reply. A single lost packet looks the
        same, so a server that has understood EDNS before gets a second chance.
        """
        doubtful = silently and self.edns(server, now) is Edns.WORKS
        self._note_edns(server, Edns.UNKNOWN if doubtful else Edns.BROKEN, now)

    def doubt_edns(self, server: int) -> None:
        """What is known of its EDNS may be due to a lost packet, and long datagrams are needed."""
        self._servers[server].edns = Edns.UNKNOWN

    def all_silent(self, now: float) -> bool:
        """Whether none of them has answered since it was silent, lately."""
        return all(it.avoid_until > now for it in self._servers)

    def answered(self, server: int) -> None:
        """The nameserver sent a reply, whatever it said."""
        it = self._servers[server]
        it.failures, it.avoid_until = 0, -math.inf

    def silent(self, server: int, now: float) -> None:
        """The nameserver sent no reply in the full time, or could not be reached."""
        it = self._servers[server]
        if it.avoid_until > now:
            return  # the other questions of the same moment
        it.failures += 1
        it.avoid_until = now + doubled_s(it.failures, first_s=FIRST_AVOID_S, most_s=MAX_AVOID_S)

    def _note_edns(self, server: int, edns: Edns, now: float) -> None:
        it = self._servers[server]
        it.edns, it.edns_until = edns, now + EDNS_MEMORY_S
