"""Connections that the master makes to endpoints: to one literal address, and orderly to the end.

Closing while the endpoint still has something to say (a greeting, a TLS 1.3 session ticket) makes
our kernel answer with a reset, and servers log resets. So whoever leaves closes its own direction
and listens until the endpoint has closed the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket

from gateway.tcp import met_itself
from supervisor.system.tls import READ_BYTES, TlsClient

LINGER_S = 0.5
"""How long an endpoint may take to close its direction after we closed ours."""

LINGER_BYTES = 256 * 1024
"""How much it may still say: one that streams for ever is cut."""


def open_socket(address: str) -> socket.socket:
    """A non-blocking TCP socket of the address's family."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    kind = socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    return socket.socket(family, kind, socket.IPPROTO_TCP)


async def connect(sock: socket.socket, address: str, port: int) -> None:
    """Connect to a literal address; raises OSError.

    Nobody listens where a connection met itself, so that is a refusal too.
    """
    await asyncio.get_running_loop().sock_connect(sock, (address, port))
    if met_itself(sock, port):
        raise ConnectionRefusedError("connection refused (connected to itself)")


async def leave(sock: socket.socket, tls: TlsClient | None = None) -> None:
    """End a connection in order, within LINGER_S; the caller closes the socket afterwards."""
    loop = asyncio.get_running_loop()
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(LINGER_S):
            if tls is not None:
                await loop.sock_sendall(sock, tls.goodbye())
            sock.shutdown(socket.SHUT_WR)
            heard = 0
            while heard < LINGER_BYTES:
                data = await loop.sock_recv(sock, READ_BYTES)
                if not data:
                    break
                heard += len(data)


def words(error: OSError) -> str:
    """The system's words; asyncio's own would repeat the address."""
    return (os.strerror(error.errno) if error.errno else str(error)).lower()
