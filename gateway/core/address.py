"""Addresses as operators write them: ``host:port``, ``[v6]:port``, ``:port``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HostPort:
    """A host (name in lower case without a trailing dot, or a literal IP) and a port, 1..65535.

    An empty ``host`` means all interfaces, both families; only listen addresses may have it.
    """

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
