"""An endpoint: an upstream ``host:port`` or ``unix:/path`` with what SRV and health say of it."""

from __future__ import annotations

import enum

from gateway.core.records import dataclass


class EndpointState(enum.StrEnum):
    """What the master holds of an endpoint; the words of the status document."""

    ACTIVE = "active"
    INACTIVE = "inactive"
    REMOVED = "removed"
    """Left DNS, in its grace: no new sessions, the old ones go on."""
    DRAINING = "draining"
    """Under maintenance: no new sessions, the old ones go on for a grace."""


RETIRED = frozenset({EndpointState.REMOVED, EndpointState.DRAINING})
"""An endpoint in one of these states gets no new sessions, even if no other is left."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint as a worker needs it.

    ``name`` is the identity (``host:port``, lower case, brackets round IPv6): counters, logs and
    sessions refer to it. ``addresses`` are literal IPs; sessions are spread over those of the first
    one's family, the others come after them. A UNIX socket has the port 0, and its name is its
    address. ``priority`` and ``weight`` are those of RFC 2782
    (0..65535; lower priority first); both 0 for static endpoints.
    ``inactive``: those of several addresses that the master holds for inactive; of one that is
    retired and inactive, all of them.
    ``tier`` divides a priority: the lower one is used while any of it is active (``--prefer``).
    ``ramp`` is the percentage of its share that it gets for now (``--slow-start``).
    ``emptied``: the time of its last sessions is over too.
    """

    name: str
    addresses: tuple[str, ...]
    port: int
    priority: int = 0
    weight: int = 0
    state: EndpointState = EndpointState.ACTIVE
    inactive: tuple[str, ...] = ()
    tier: int = 0
    ramp: int = 100
    emptied: bool = False

    @property
    def rank(self) -> tuple[int, int]:
        """Which endpoints come before others: by priority, and by tier within one."""
        return self.priority, self.tier
