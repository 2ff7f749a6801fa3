"""A backend of the demo: an HTTP server that says who it is. ``python THIS_FILE NAME PORT``."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import cast

_MOST_HEADER_BYTES = 16 * 1024


class _Greeter(asyncio.Protocol):
    """Answers the first request of a connection, whatever it asks, and closes."""

    def __init__(self, name: str) -> None:
        self._greeting = f"{name} (pid {os.getpid()}) says hello\n".encode()
        self._name = name
        self._request = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None  # noqa: S101 - asyncio's promise
        self._request += data
        if b"\r\n\r\n" in self._request:
            head = (
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n"
                f"X-Backend: {self._name}\r\nContent-Length: {len(self._greeting)}\r\n\r\n"
            )
            self._transport.write(head.encode() + self._greeting)
            self._transport.close()
        elif len(self._request) > _MOST_HEADER_BYTES:
            self._transport.abort()


async def serve(name: str, port: int) -> None:
    """Serve on loopback until the process ends."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: _Greeter(name), "127.0.0.1", port, reuse_address=True, backlog=1024
    )
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], int(sys.argv[2])))
