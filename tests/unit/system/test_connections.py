"""Connections of the master: unseen where that is possible, orderly where it is not."""

from __future__ import annotations

import asyncio
import socket

import pytest

from supervisor.system.connections import connect, is_acknowledged, knock, leave, open_socket
from tests import servers
from tests.servers import Script, serving
from tests.support import wait_until


def visited(script: Script, times: int = 20) -> list[str]:
    """How a server saw whole connections end that were left in order."""

    async def visit() -> None:
        for _ in range(times):
            with open_socket("127.0.0.1") as sock:
                await connect(sock, "127.0.0.1", server.port)
                await leave(sock)

    with serving(script) as server:
        asyncio.run(visit())
        wait_until(lambda: len(server.ends) == times, what="every connection's end")
        return server.ends


def test_a_greeting_is_listened_to() -> None:
    """A server that speaks first gets no reset for what it said."""
    assert set(visited(servers.greet)) == {"eof"}


def test_endless_talk_is_cut() -> None:
    """A server that streams for ever is left after a bounded amount."""

    def stream(conn: socket.socket) -> None:
        while True:
            conn.sendall(bytes(65536))

    assert visited(stream, times=1) == ["reset"]


def test_a_handshake_is_taken_back() -> None:
    """Of a knock the program on the other side learns nothing."""

    async def visit() -> None:
        for _ in range(20):
            with open_socket("127.0.0.1") as sock:
                assert await knock(sock, "127.0.0.1", server.getsockname()[1])

    with socket.create_server(("127.0.0.1", 0)) as server:
        asyncio.run(visit())
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()


def test_a_completed_handshake_is_told_from_one_that_waits() -> None:
    """Where the kernel sent the last ACK all the same, there is a connection to end in order."""

    async def visit() -> None:
        with open_socket("127.0.0.1") as sock:
            await connect(sock, "127.0.0.1", server.getsockname()[1])
            assert is_acknowledged(sock)

    with socket.create_server(("127.0.0.1", 0)) as server:
        asyncio.run(visit())
