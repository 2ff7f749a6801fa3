"""Clients of the admin address: from which sockets they are accepted, and for how long."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from gateway.core.outcome import EXHAUSTED, OF_ONE_CLIENT
from supervisor.admin.connection import MAX_CONNECTIONS, Connection, Connections
from supervisor.admin.protocol import Protocol
from supervisor.admin.sockets import AdminSocket

PAUSE_S = 0.5
"""How long an upgrade waits for answers that are under way; a client that has not even sent its
request by then is cut."""

TURNS_TO_CONNECT = 4
"""asyncio makes a protocol of an accepted client within so many turns of its loop."""

ACCEPTS = 2
"""Clients accepted in one pass of the loop.

asyncio accepts as many in one pass as its ``backlog`` says, 100 by default, before any of them is
counted: a burst would take every descriptor for a moment, and a worker could not be forked.
"""


class Listening(socket.socket):
    """A listening socket that asyncio rests from, whatever keeps it from accepting.

    asyncio does so where the host is short of something, and tries any other error again at once:
    where a security module forbids to accept, it would do nothing else, and log each try.
    """

    def accept(self) -> tuple[socket.socket, Any]:
        try:
            return super().accept()
        except OSError as error:
            if error.errno in OF_ONE_CLIENT:
                raise ConnectionAbortedError from error
            if error.errno in (errno.EAGAIN, *EXHAUSTED):
                raise
            raise OSError(errno.ENOBUFS, error.strerror) from error


class AdminAcceptor:
    """Owns the connections, and its duplicates of the sockets, until :meth:`close`.

    ``make_protocol()`` makes what answers one connection.
    ``max_connections()``: for how many there are descriptors.
    """

    def __init__(
        self, make_protocol: Callable[[], Protocol], max_connections: Callable[[], int]
    ) -> None:
        self._make_protocol = make_protocol
        self._max_connections = max_connections
        self._servers: dict[AdminSocket, asyncio.Server] = {}
        self._connections = Connections()
        self._idle = asyncio.Event()

    async def start(self, sockets: Iterable[AdminSocket]) -> None:
        """Accept from these sockets, which stay the caller's; clients that wait there come first.

        OSError: from none of them, for want of descriptors.
        """
        loop = asyncio.get_running_loop()
        with contextlib.ExitStack() as undo:
            servers: dict[AdminSocket, asyncio.Server] = {}
            for each in sockets:
                duplicate = Listening(fileno=os.dup(each.sock.fileno()))
                undo.callback(duplicate.close)
                duplicate.setblocking(False)
                # Ours before it accepts: a stop may come while it begins to.
                server = await loop.create_server(
                    self._make_connection, sock=duplicate, backlog=ACCEPTS, start_serving=False
                )
                undo.callback(server.close)
                await server.start_serving()
                each.sock.listen()  # the kernel's queue keeps its usual length
                servers[each] = server
            undo.pop_all()
        self._servers |= servers

    async def stop(self, sock: AdminSocket) -> None:
        """Accept no more from this one; who was accepted is answered."""
        if (server := self._servers.pop(sock, None)) is not None:
            await _stop_accepting([server])

    async def pause(self) -> None:
        """Accept no more, and wait until all connections are answered, PAUSE_S at most.

        Whoever connects from now on waits in the kernel's queue.
        """
        servers, self._servers = list(self._servers.values()), {}
        await _stop_accepting(servers)
        self._idle.clear()
        if self._connections.open:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), PAUSE_S)

    async def close(self) -> None:
        """Accept no more, and cut the requests that are under way."""
        servers, self._servers = list(self._servers.values()), {}
        self._connections.close()
        await _stop_accepting(servers)

    def _make_connection(self) -> Connection:
        protocol = self._make_protocol()
        connection = Connection(
            self._connections,
            protocol,
            most=lambda: min(self._max_connections(), MAX_CONNECTIONS),
            on_idle=self._idle.set,
        )
        protocol.on_answer = connection.begin_answer
        return connection


async def _stop_accepting(servers: Sequence[asyncio.Server]) -> None:
    """Accept no more, and lose nobody who was accepted.

    A server that is closed makes no connections any more, also of clients that asyncio has accepted
    a turn before: these would be reset, and a transport would be left that nobody closes. So the
    servers are closed when all have one.
    """
    loop = asyncio.get_running_loop()
    for server in servers:
        for sock in server.sockets:
            loop.remove_reader(sock.fileno())
    for _ in range(TURNS_TO_CONNECT):
        await asyncio.sleep(0)
    for server in servers:
        server.close()
