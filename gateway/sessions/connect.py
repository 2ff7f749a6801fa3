"""From which address a connection to an endpoint is made."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from gateway import tcp_calls


class Connect(Protocol):
    """:func:`gateway.tcp_calls.connect`, or the same from an address of the operator's choice."""

    def __call__(
        self, address: str, port: int, data: bytes | None = None, may_meet_itself: bool = False, /
    ) -> tuple[int, int | None]: ...


def connect_from(sources: Iterable[str]) -> Connect:
    """Connects from that of these addresses that is of the endpoint's family, if one is."""
    source_of = {":" in source: source for source in sources}
    if not source_of:
        return tcp_calls.connect

    def connect(
        address: str, port: int, data: bytes | None = None, may_meet_itself: bool = False, /
    ) -> tuple[int, int | None]:
        source = source_of.get(":" in address, "")
        return tcp_calls.connect(address, port, data, may_meet_itself, source)

    return connect
