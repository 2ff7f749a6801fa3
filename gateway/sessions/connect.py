"""How a connection to an endpoint begins, whichever kind of endpoint it is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from gateway import tcp_calls
from gateway.unix import connect_unix


class Connect(Protocol):
    """A connect to an address, or to ``unix:/path`` (port 0), see ``tcp_calls.connect``."""

    def __call__(
        self, address: str, port: int, data: bytes | None = None, may_meet_itself: bool = False
    ) -> tuple[int, int | None]: ...


def connect_from(sources: Iterable[str]) -> Connect:
    """Connects from that of these addresses that is of the endpoint's family, if one is."""
    source_of = {":" in source: source for source in sources}

    def connect(
        address: str, port: int, data: bytes | None = None, may_meet_itself: bool = False
    ) -> tuple[int, int | None]:
        if not port:
            return connect_unix(address, data)
        source = source_of.get(":" in address, "") if source_of else ""
        return tcp_calls.connect(address, port, data, may_meet_itself, source)

    return connect
