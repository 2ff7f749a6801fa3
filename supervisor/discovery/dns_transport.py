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


class Datagrams(Generic[T]):
    """The sockets by which one question is asked over UDP; owns them until :meth:`close`.

    All queries to one nameserver go by the same one, as with the C library: a late reply to the
    first of them is a reply too. So a nameserver may take longer than one timeout.
    """

    def __init__(self) -> None:
        self._sockets: dict[ServerAddress, _QuerySocket[T]] = {}

    def socket_to(self, server: ServerAddress) -> _QuerySocket[T]:
        """The one to this nameserver; raises OSError."""
        found = self._sockets.get(server)
        if found is None:
            found = self._sockets[server] = _QuerySocket(server)
        return found

    def close(self) -> None:
        for each in self._sockets.values():
            each.sock.close()
        self._sockets.clear()


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
    datagrams: Datagrams[T] | None,
    timeout_s: float,
    parse: Callable[[bytes], T | None],
) -> T:
    """What ``parse`` makes of the reply; a message of which it makes None is no reply.

    ``datagrams``: by what to ask over UDP; None asks over TCP. A late reply to a query that went by
    them before counts, too, as what its own ``parse`` made of it.
    Raises NoReplyError, and what ``parse`` raises.
    """
    try:
        async with asyncio.timeout(timeout_s):
            if datagrams is not None:
                return await _over_udp(datagrams.socket_to(server), query, parse)
            with socket.socket(server.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as sock:
                return await _over_tcp(sock, server, query, parse)
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
    sock: socket.socket, server: ServerAddress, query: bytes, parse: Callable[[bytes], T | None]
) -> T:
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, server.name)
    await loop.sock_sendall(sock, LENGTH.pack(len(query)) + query)
    (length,) = LENGTH.unpack(await _receive(sock, LENGTH.size))
    reply = parse(await _receive(sock, length))
    if reply is None:
        raise NoReplyError("a reply to another question", silent=False)
    return reply


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
