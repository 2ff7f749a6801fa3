"""Resolution: what targets turned into (the types; the decisions follow)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Discovered:
    """One endpoint as resolution found it.

    ``name`` is the endpoint's identity, ``host:port``. ``addresses`` are literal IPs in the order
    to try them. ``tls``: found under an ``-ssl`` name, or given with ``https://``.
    ``srv``: found by SRV (False: from the static list).
    """

    name: str
    host: str
    port: int
    addresses: tuple[str, ...]
    priority: int = 0
    weight: int = 0
    tls: bool = False
    srv: bool = False
