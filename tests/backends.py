"""Real servers for tests, each in a thread of the test's own process."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Awaitable, Callable
from typing import Self

from gateway.core.socket_address import join_host_port

TURNS_TO_SERVE = 5
"""asyncio begins to serve an accepted client within so many turns of its loop."""

Serve = Callable[["Backend", asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Backend:
    """One listener on loopback that serves every connection with ``serve``; owns its thread.

    With ``path`` it is a UNIX socket, and the path's file is the test's to remove.
    ``connections`` counts accepted connections, ``received`` the bytes that ``serve`` took note of.
    """

    def __init__(
        self,
        serve: Serve,
        *,
        name: str = "",
        host: str = "127.0.0.1",
        port: int = 0,
        path: str = "",
    ) -> None:
        self._serve = serve
        self.name = name
        self.connections = 0
        self.received = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self.path = path
        if path:
            self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._sock.bind("\0" + path[1:] if path.startswith("@") else path)
            self.host, self.port = "", 0
        else:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            self._sock = socket.socket(family, socket.SOCK_STREAM)
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._sock.bind((host, port))
            self.host, self.port = self._sock.getsockname()[:2]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=f"backend {name}", daemon=True)
        self._started = threading.Event()
        self._thread.start()
        assert self._started.wait(60)

    @property
    def address(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return join_host_port(self.host, self.port)

    def stop(self) -> None:
        """Close the listener and reset every connection."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._done.set)
            self._thread.join(60)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _run(self) -> None:
        with contextlib.closing(self._loop):
            self._loop.run_until_complete(self._main())

    async def _main(self) -> None:
        self._done = asyncio.Event()
        start = asyncio.start_unix_server if self.path else asyncio.start_server
        server = await start(self._on_connection, sock=self._sock, backlog=1024)
        self._started.set()
        await self._done.wait()
        for sock in server.sockets:
            self._loop.remove_reader(sock.fileno())
        # Who was accepted just now gets a transport, and somebody who closes it, within some turns.
        # With a server that is closed it would get half a transport, which nobody closes.
        for _ in range(TURNS_TO_SERVE):
            await asyncio.sleep(0)
        server.close()
        for writer in list(self._writers):
            reset(writer)
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _on_connection(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.connections += 1
        self._writers.add(writer)
        try:
            await self._serve(self, reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()


def reset(writer: asyncio.StreamWriter) -> None:
    """End the connection with a reset."""
    sock = writer.get_extra_info("socket")
    if sock is not None and sock.fileno() >= 0:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def echo(
    backend: Backend, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Send back what comes, until the other side ends its stream."""
    while data := await reader.read(65536):
        backend.received += len(data)
        writer.write(data)
        await writer.drain()


async def greet(
    backend: Backend, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Speak first: the backend's name and a newline, then echo."""
    writer.write(f"{backend.name}\n".encode())
    await echo(backend, reader, writer)


async def swallow(
    backend: Backend, reader: asyncio.StreamReader, _writer: asyncio.StreamWriter
) -> None:
    """Take everything, say nothing; end when the other side does."""
    while data := await reader.read(65536):
        backend.received += len(data)
