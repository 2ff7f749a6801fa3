"""Sends one query to one nameserver and waits for the reply, over UDP or TCP.

Datagram sockets are connected: a nameserver that is not running is then known at once, by the
refusal of its host, instead of after the timeout, and datagrams of others do not arrive.
Every question has sockets of its own, so its source ports are chosen by the kernel at random.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable
from typing import Generic, TypeVar

from gateway.core.records import dataclass
from gateway.core.socket_address import join_host_port

LENGTH = struct.Struct("!H")
"""Before each message over TCP (RFC 1035, 4.2.2)."""

MAX_DATAGRAM_BYTES = 65535

T = TypeVar("T")


class NoReplyError(Exception):
    """No reply came; the text says why. ``silent``: nobody said anything."""

    def __init__(self, text: str, *, silent: bool = True) -> None:
        super().__init__(text)
        self.silent = silent


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """A nameserver's literal address; an IPv6 one may have a scope, ``fe80::1%eth0``."""

    host: str
    port: int

    def __str__(self) -> str:
        return join_host_port(self.host, self.port)

    @property
    def family(self) -> socket.AddressFamily:
        return socket.AF_INET6 if ":" in self.host else socket.AF_INET

    @property
    def name(self) -> tuple[str | int, ...]:
        """What connect(2) takes; raises OSError for a scope that is no interface."""
        host, _, scope = self.host.partition("%")
        if ":" not in host:
            return (host, self.port)
        number = int(scope) if scope.isdecimal() else socket.if_nametoindex(scope) if scope else 0
        return (host, self.port, 0, number)


class QuestionSockets(Generic[T]):
    """The sockets by which one question is asked; owns them until :meth:`close`.

    All datagrams to one nameserver go by the same one, as with the C library: a late reply to the
    first of them is a reply too. A connection, too, goes on when its time is over. So a nameserver
    may take longer than one timeout.
    """

    def __init__(self) -> None:
        self._udp: dict[ServerAddress, _QuerySocket[T]] = {}
        self._tcp: dict[ServerAddress, dict[bytes, asyncio.Task[T]]] = {}

    def udp_to(self, server: ServerAddress) -> _QuerySocket[T]:
        """The one to this nameserver; raises OSError."""
        found = self._udp.get(server)
        if found is None:
            found = self._udp[server] = _QuerySocket(server)
        return found

    def tcp_to(self, server: ServerAddress) -> dict[bytes, asyncio.Task[T]]:
        """Connections to this nameserver that go on, by query; each ends with the reply to it."""
        return self._tcp.setdefault(server, {})

    async def close(self) -> None:
        for each in self._udp.values():
            each.sock.close()
        tasks = [task for tasks in self._tcp.values() for task in tasks.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _QuerySocket(Generic[T]):
    """A connected socket, and the queries that went by it and are not answered, with how to parse
    the reply to each."""

    def __init__(self, server: ServerAddress) -> None:
        self.unanswered: dict[bytes, Callable[[bytes], T | None]] = {}
        self.sock = socket.socket(server.family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            self.sock.connect(server.name)  # does not block: nothing is sent
        except OSError:
            self.sock.close()
            raise

    def parse(self, wire: bytes) -> T | None:
        """What a reply is to any of the queries; None if it is to none."""
        for query, parse in self.unanswered.items():
            reply = parse(wire)
            if reply is not None:
                del self.unanswered[query]
                return reply
        return None


async def exchange(
    server: ServerAddress,
    query: bytes,
    *,
    sockets: QuestionSockets[T],
    tcp: bool,
    timeout_s: float,
    parse: Callable[[bytes], T | None],
) -> T:
    """What ``parse`` makes of the reply; a message of which it makes None is no reply.

    A late reply to a query that went by the same ``sockets`` before, over UDP or TCP as this one,
    counts, too, as what its own ``parse`` made of it.
    Raises NoReplyError, and what ``parse`` raises.
    """
    try:
        async with asyncio.timeout(timeout_s):
            if tcp:
                return await _over_tcp(sockets.tcp_to(server), server, query, parse)
            return await _over_udp(sockets.udp_to(server), query, parse)
    except TimeoutError:
        raise NoReplyError("timeout") from None
    except OSError as error:
        text = os.strerror(error.errno) if error.errno else str(error)
        raise NoReplyError(text) from None


async def _over_udp(server: _QuerySocket[T], query: bytes, parse: Callable[[bytes], T | None]) -> T:
    """Datagrams that are no reply are ignored: anybody may have forged them."""
    loop = asyncio.get_running_loop()
    server.unanswered[query] = parse
    server.sock.send(query)  # does not block, with an empty send buffer
    while True:
        reply = server.parse(await loop.sock_recv(server.sock, MAX_DATAGRAM_BYTES))
        if reply is not None:
            return reply
        await asyncio.sleep(0)  # sock_recv takes what is there without a turn for anybody else


async def _over_tcp(
    under_way: dict[bytes, asyncio.Task[T]],
    server: ServerAddress,
    query: bytes,
    parse: Callable[[bytes], T | None],
) -> T:
    """The first reply by any of the connections; the failure of the last one if all fail."""
    for sent, each in list(under_way.items()):
        if each.done() and each.exception() is not None:  # nobody waited for it any more
            del under_way[sent]
    if query not in under_way:
        under_way[query] = asyncio.create_task(
            _over_connection(server, query, parse), name=f"DNS over TCP to {server}"
        )
    while True:
        await asyncio.wait(under_way.values(), return_when=asyncio.FIRST_COMPLETED)
        for sent, each in list(under_way.items()):
            if each.done():
                del under_way[sent]
                if each.exception() is None or not under_way:
                    return each.result()


async def _over_connection(
    server: ServerAddress, query: bytes, parse: Callable[[bytes], T | None]
) -> T:
    """By a connection of its own, however long it takes; messages that are no reply are ignored."""
    loop = asyncio.get_running_loop()
    with socket.socket(server.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as sock:
        await loop.sock_connect(sock, server.name)
        await loop.sock_sendall(sock, LENGTH.pack(len(query)) + query)
        while True:
            (length,) = LENGTH.unpack(await _receive(sock, LENGTH.size))
            reply = parse(await _receive(sock, length))
            if reply is not None:
                return reply
            await asyncio.sleep(0)  # as over UDP


async def _receive(sock: socket.socket, count: int) -> bytes:
    """Exactly so many bytes."""
    loop = asyncio.get_running_loop()
    data = bytearray()
    while len(data) < count:
        part = await loop.sock_recv(sock, count - len(data))
        if not part:
            raise NoReplyError("connection closed before the reply", silent=False)
        data += part
    return bytes(data)
