"""What was done to answer a question, step by step, as values for whoever has to explain it."""

from __future__ import annotations

from gateway.core.records import dataclass

MAX_RECORDS = 20
"""Of one reply; the others are counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One query to one nameserver and what came back.

    ``said``: what the reply means, or why there is none. ``flags`` and ``ttl_s`` are those of the
    reply; ``ttl_s`` is None if there is none.
    """

    name: str
    kind: str
    server: str
    tcp: bool
    edns: bool
    said: str
    took_s: float
    flags: tuple[str, ...] = ()
    ttl_s: float | None = None
    records: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FromHosts:
    """A name found in the hosts file."""

    name: str
    path: str
    addresses: tuple[str, ...]


Step = Exchange | FromHosts
