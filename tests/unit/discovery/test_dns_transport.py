"""One query to one nameserver over TCP, when its time is over before there is a reply."""

from __future__ import annotations

import asyncio

import pytest

from supervisor.discovery.dns_transport import (
    LENGTH,
    NoReplyError,
    QuestionSockets,
    ServerAddress,
    exchange,
)


def test_the_end_of_a_connection_that_was_given_up_is_not_that_of_the_next() -> None:
    """A nameserver that is restarted answers the next try, by a connection of its own."""

    async def main() -> None:
        restarted, gone = asyncio.Event(), asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readexactly(LENGTH.size + 5)
            if restarted.is_set():
                writer.write(LENGTH.pack(2) + b"ok")
            else:
                await restarted.wait()
                gone.set()
            writer.close()
            await writer.wait_closed()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        address = ServerAddress("127.0.0.1", server.sockets[0].getsockname()[1])
        sockets: QuestionSockets[bytes] = QuestionSockets()

        async def ask(timeout_s: float) -> bytes:
            return await exchange(
                address, b"query", sockets=sockets, tcp=True, timeout_s=timeout_s,
                parse=lambda reply: reply,
            )  # fmt: skip

        async with server:
            with pytest.raises(NoReplyError, match="timeout"):
                await ask(0.2)
            restarted.set()
            await gone.wait()
            (given_up,) = sockets.tcp_to(address).values()
            await asyncio.wait([given_up])
            assert await ask(60.0) == b"ok"
        await sockets.close()

    asyncio.run(main())
