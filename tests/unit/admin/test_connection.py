"""The connections of the admin address."""

from __future__ import annotations

import asyncio
import socket

from supervisor.admin.connection import Connection, Connections


class Answering(asyncio.Protocol):
    """Answers whoever is connected."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(b"answer")


def test_who_was_accepted_in_the_last_moment_is_not_answered() -> None:
    """asyncio makes a connection a turn after it accepted the client; all is closed meanwhile."""

    async def run() -> None:
        connections = Connections()
        loop = asyncio.get_running_loop()

        async def connect() -> socket.socket:
            ours, theirs = socket.socketpair()
            await loop.connect_accepted_socket(
                lambda: Connection(connections, Answering(), most=lambda: 10, on_idle=lambda: None),
                theirs,
            )
            ours.setblocking(False)
            return ours

        with await connect() as early:
            assert await loop.sock_recv(early, 10) == b"answer"
            assert len(connections.open) == 1
            connections.close()
            assert await loop.sock_recv(early, 10) == b""
            with await connect() as late:
                assert await loop.sock_recv(late, 10) == b""
        assert not connections.open

    asyncio.run(run())


def test_an_answer_to_somebody_who_has_left_is_none() -> None:
    """It was being made when the client went away, and nothing is to be written any more."""

    async def run() -> None:
        connections = Connections()
        gone = asyncio.Event()
        ours, theirs = socket.socketpair()
        _, connection = await asyncio.get_running_loop().connect_accepted_socket(
            lambda: Connection(connections, Answering(), most=lambda: 10, on_idle=gone.set), theirs
        )
        ours.close()
        connection.abort()
        await gone.wait()
        connection.begin_answer()
        assert not connections.answered

    asyncio.run(run())
