"""One connection of the admin address: counted, and closed when it lasts too long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

CONNECTION_LIFE_S = 10.0
"""From accept to the end of the answer. Prometheus waits ten seconds for a scrape by default."""

MAX_CONNECTIONS = 64
"""For one more the oldest is closed, so that idle connections lock no operator out."""


class Connection(asyncio.Protocol):
    """Between transport and aiohttp: counts connections, closes those that last too long."""

    def __init__(
        self,
        alive: dict[Connection, None],
        inner: asyncio.Protocol,
        *,
        most: Callable[[], int],
        on_idle: Callable[[], None],
    ) -> None:
        self._alive = alive
        self._inner = inner
        self._most = most
        self._on_idle = on_idle
        self._transport: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        while len(self._alive) >= self._most():
            next(iter(self._alive)).abort()
        self._alive[self] = None
        self._transport = cast("asyncio.Transport", transport)
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(CONNECTION_LIFE_S, self.abort)
        self._inner.connection_made(transport)

    def abort(self) -> None:
        """Close the connection now; unsent bytes are lost."""
        self._alive.pop(self, None)
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._alive.pop(self, None)
        if not self._alive:
            self._on_idle()
        if self._deadline is not None:
            self._deadline.cancel()
        self._transport = None
        self._inner.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._inner.data_received(data)

    def eof_received(self) -> bool:
        """A client that half-closes after its request still gets its answer."""
        self._inner.eof_received()
        return True

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()
