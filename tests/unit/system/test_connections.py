"""Connections of the master: unseen where that is possible, orderly where it is not."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.core.proxy_protocol import SIGNATURE
from supervisor.core.config import Config
from supervisor.system.connections import (
    connect,
    dial_as,
    find_foreign_source,
    is_acknowledged,
    knock,
    leave,
    open_socket,
)
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
    """Of a knock the program on the other side learns nothing.

    On a host where this process got no CPU meanwhile, the kernel may have sent the last ACK.
    """
    taken_back = seen = 0

    async def visit() -> None:
        nonlocal taken_back, seen
        while taken_back < 20 and seen < 100:
            with open_socket("127.0.0.1") as sock:
                is_held = await knock(sock, "127.0.0.1", server.getsockname()[1])
                if is_held and not is_acknowledged(sock):
                    taken_back += 1
                else:
                    seen += 1

    with socket.create_server(("127.0.0.1", 0)) as server:
        asyncio.run(visit())
        assert taken_back == 20
        server.setblocking(False)
        for _ in range(seen):
            server.accept()[0].close()
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


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Other tests of this process dial as they did."""
    yield
    dial_as(Config())


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("version", ["off", "v1", "v2"])
def test_an_introduction(version: str, host: str) -> None:
    """A connection says that it is the gateway's own: LOCAL, or its own addresses in version 1."""
    heard: list[bytes] = []
    names: list[tuple[object, ...]] = []

    async def visit() -> None:
        with open_socket(host) as sock:
            await connect(sock, host, port)
            names.append(sock.getsockname())
            await leave(sock)

    def listen(conn: socket.socket) -> None:
        while data := conn.recv(1000):
            heard.append(data)

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    dial_as(Config(proxy_out=version))
    with serving(listen, listener=socket.create_server((host, 0), family=family)) as server:
        port = server.port
        asyncio.run(visit())
        wait_until(lambda: server.ends == ["eof"])
    words = "TCP6" if ":" in host else "TCP4"
    line = f"PROXY {words} {host} {host} {names[0][1]} {port}\r\n".encode()
    expected = {"off": b"", "v1": line, "v2": SIGNATURE + b"\x20\0\0\0"}
    assert b"".join(heard) == expected[version]


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (socket.SOCK_STREAM, ""),
        (socket.SOCK_SEQPACKET, "Protocol wrong type for socket"),
        (socket.SOCK_DGRAM, "Protocol wrong type for socket"),
    ],
)
def test_a_knock_at_a_file_tells_what_can_be_dialed(
    tmp_path: Path, kind: socket.SocketKind, said: str
) -> None:
    """A type of UNIX socket that sessions cannot be connected to is no healthy endpoint."""

    async def visit() -> bool:
        with open_socket(address) as sock:
            return await knock(sock, address, 0)

    with socket.socket(socket.AF_UNIX, kind | socket.SOCK_NONBLOCK) as server:
        address = f"unix:{tmp_path}/s"
        server.bind(f"{tmp_path}/s")
        if kind != socket.SOCK_DGRAM:
            server.listen(0)
        if said:
            for _ in range(3):  # with a full queue, too
                with pytest.raises(OSError, match=said):
                    asyncio.run(visit())
        else:
            assert asyncio.run(visit())
            with pytest.raises(BlockingIOError):
                server.accept()
    with pytest.raises(ConnectionRefusedError):
        asyncio.run(visit())


def test_a_knock_is_not_introduced() -> None:
    """A handshake that is taken back carries no header, or the program would see it."""
    dial_as(Config(proxy_out="v2"))
    test_a_handshake_is_taken_back()


def test_the_address_to_dial_from() -> None:
    """Connections come from the address of their family, if there is one."""
    seen: list[str] = []

    async def visit(host: str) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.create_server((host, 0), family=family) as server, open_socket(host) as sock:
            await connect(sock, host, server.getsockname()[1])
            seen.append(sock.getsockname()[0])

    dial_as(Config(source_addr=("127.0.0.9",)))
    for host in ("127.0.0.1", "::1"):
        asyncio.run(visit(host))
    assert seen == ["127.0.0.9", "::1"]


def test_an_address_of_another_host() -> None:
    """An address that is not this host's is named, and a dial from it fails as such."""
    assert find_foreign_source(Config(source_addr=("127.0.0.9", "::1"))) == ""
    dialing = Config(source_addr=("127.0.0.9", "2001:db8::9"))
    assert find_foreign_source(dialing).startswith("--source-addr 2001:db8::9: no address of this")
    dial_as(dialing)
    with pytest.raises(OSError, match="assign requested address"):
        open_socket("::1")
