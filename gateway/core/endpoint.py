"""An endpoint: one upstream ``host:port`` with what SRV and health say of it."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class EndpointState(enum.StrEnum):
    """What the master holds of an endpoint; the words of the status document."""

    ACTIVE = "active"
    INACTIVE = "inactive"
    REMOVED = "removed"
    """Left DNS, in its grace: no new sessions, the old ones go on."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint as a worker needs it.

    ``name`` is the identity (``host:port``, lower case, brackets round IPv6): counters, logs and
    sessions refer to it. ``addresses`` are literal IPs; sessions are spread over those of the first
    one's family, the others come after them. ``priority`` and ``weight`` are those of RFC 2782
    (0..65535; lower priority first); both 0 for static endpoints.
    ``inactive``: those of several addresses that the master holds for inactive.
    """

    name: str
    addresses: tuple[str, ...]
    port: int
    priority: int = 0
    weight: int = 0
    state: EndpointState = EndpointState.ACTIVE
    inactive: tuple[str, ...] = ()
