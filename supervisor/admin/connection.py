"""The connections of the admin address: counted, and closed when they last too long."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import cast

from gateway.tcp import set_user_timeout

CONNECTION_LIFE_S = 10.0
"""From accept to the end of the answer. Prometheus waits ten seconds for a scrape by default."""

MAX_CONNECTIONS = 256
"""For one more the oldest is closed, so that idle connections lock no operator out. A burst of so
many is answered: what has just connected has not sent its request yet."""

MAX_ANSWERS = 64
"""Answers that are not read yet: for one more the oldest is dropped. With thousands of endpoints
each may take ten megabytes."""


class Connections:
    """Those that are open, and those of them that are being answered; the oldest first."""

    def __init__(self) -> None:
        self.open: dict[Connection, None] = {}
        self.answered: dict[Connection, None] = {}
        self.closed = False

    def forget(self, connection: Connection) -> None:
        self.open.pop(connection, None)
        self.answered.pop(connection, None)

    def close(self) -> None:
        """Cut all of them, and those that asyncio has accepted and is still about to make.

        Nobody may be answered any more: what an answer is made of is about to be closed, too.
        """
        self.closed = True
        for connection in list(self.open):
            connection.abort()


class Connection(asyncio.Protocol):
    """Between transport and aiohttp: counts connections, closes those that last too long."""

    def __init__(
        self,
        connections: Connections,
        inner: asyncio.Protocol,
        *,
        most: Callable[[], int],
        on_idle: Callable[[], None],
    ) -> None:
        self._connections = connections
        self._inner = inner
        self._most = most
        self._on_idle = on_idle
        self._transport: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self._connections.closed:
            cast("asyncio.Transport", transport).abort()
            return
        while len(self._connections.open) >= self._most():
            next(iter(self._connections.open)).abort()
        self._connections.open[self] = None
        self._transport = cast("asyncio.Transport", transport)
        _bound_tail(transport.get_extra_info("socket"))
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(CONNECTION_LIFE_S, self.abort)
        self._inner.connection_made(transport)

    def begin_answer(self) -> None:
        """The answer is made, and counts until the connection is closed."""
        if self not in self._connections.open:  # who asked did not wait for it
            return
        answered = self._connections.answered
        while len(answered) >= MAX_ANSWERS:
            next(iter(answered)).abort()
        answered[self] = None

    def abort(self) -> None:
        """Close the connection now; unsent bytes are lost."""
        self._connections.forget(self)
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is None:  # it came too late
            return
        self._connections.forget(self)
        if not self._connections.open:
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


def _bound_tail(sock: socket.socket) -> None:
    """Have the kernel drop what the other side takes nothing of for so long.

    The connection is closed once the kernel has the whole answer, which may be megabytes. It would
    keep them for as long as the other side stays connected and does not read.
    """
    if sock.family != socket.AF_UNIX:
        with contextlib.suppress(OSError):
            set_user_timeout(sock.fileno(), CONNECTION_LIFE_S)
