"""Connections that the master makes to endpoints: to one literal address, and orderly to the end.

Closing while the endpoint still has something to say (a greeting, a TLS 1.3 session ticket) makes
our kernel answer with a reset, and servers log resets. So whoever leaves closes its own direction
and listens until the endpoint has closed the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import struct
from typing import Protocol

from gateway.core.outcome import EXHAUSTED, answer_of
from gateway.core.proxy_protocol import Route, Version, write_own
from gateway.core.unix_address import is_unix, socket_name
from gateway.tcp import arm_reset, bind_source, met_itself
from gateway.unix import QUEUE_FULL
from supervisor.core.config import Config
from supervisor.system.tls import READ_BYTES, TlsClient

CLOSE_S = 0.5
"""How long a stop, or an upgrade, lets probes, checks and questions under way end in order: etcd
logs each connection that ends before its handshake does."""

LINGER_S = 0.5
"""How long an endpoint may take to close its direction after we closed ours."""

_TCP_INFO = struct.Struct("=100xI32xI")
"""struct tcp_info (linux/tcp.h) up to segs_out: total_retrans and segs_out (since Linux 4.2)."""

LINGER_BYTES = 256 * 1024
"""How much it may still say: one that streams for ever is cut."""


class Dialing(Protocol):
    """How endpoints are to be dialed, as the configuration says."""

    @property
    def source_addr(self) -> tuple[str, ...]: ...
    @property
    def proxy_out(self) -> str: ...


_dialing: Dialing = Config()


def dial_as(dialing: Dialing) -> None:
    """From now on, make every connection of this process to an endpoint like this.

    A process has one configuration. The TLS gate, the prober, the member list and ``check`` must
    not differ in this: an endpoint that requires a header requires it of all of them.
    """
    global _dialing  # noqa: PLW0603
    _dialing = dialing


def find_foreign_source(dialing: Dialing) -> str:
    """Why endpoints cannot be dialed from the addresses given; "" if they can."""
    for source in dialing.source_addr:
        try:
            _open(source, source).close()
        except OSError as error:
            if error.errno in EXHAUSTED:  # nobody knows; the dials will tell
                continue
            why = "no address of this host" if error.errno == errno.EADDRNOTAVAIL else words(error)
            return f"--source-addr {source}: {why}, expected one to dial endpoints from"
    return ""


def open_socket(address: str) -> socket.socket:
    """A non-blocking socket of the address's family, to dial it; raises OSError."""
    if is_unix(address):
        return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    same_family = (source for source in _dialing.source_addr if (":" in source) == (":" in address))
    return _open(address, next(same_family, ""))


def _open(address: str, source: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    kind = socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    sock = socket.socket(family, kind, socket.IPPROTO_TCP)
    if source:
        try:
            bind_source(sock, source)
        except OSError:
            sock.close()
            raise
    return sock


async def connect(sock: socket.socket, address: str, port: int, *, introduced: bool = True) -> None:
    """Connect to an address, and say whose connection it is; raises OSError.

    ``introduced``: False for a port where no PROXY protocol header is expected.
    """
    await _connect(sock, address, port)
    if introduced:
        await _introduce(sock)


async def _introduce(sock: socket.socket) -> None:
    """An endpoint that waits for a PROXY protocol header learns that this is no client's."""
    if _dialing.proxy_out != "off":
        route = Route(sock.getsockname(), sock.getpeername())
        header = write_own(Version(_dialing.proxy_out), route)
        await asyncio.get_running_loop().sock_sendall(sock, header)


async def _connect(sock: socket.socket, address: str, port: int) -> None:
    """Connect to a literal address, or to ``unix:/path``; raises OSError.

    Nobody listens where a connection met itself, so that is a refusal too. What fails at once is
    our own host's doing; what fails later was answered.
    """
    if is_unix(address):
        try:
            sock.connect(socket_name(address))
        except BlockingIOError:
            raise ConnectionRefusedError(QUEUE_FULL) from None
        return
    try:
        sock.connect((address, port))
    except BlockingIOError:
        await _wait_connected(sock, (address, port))
    if met_itself(sock.fileno(), port):
        raise ConnectionRefusedError("connection refused (connected to itself)")


async def _wait_connected(sock: socket.socket, address: tuple[str, int]) -> None:
    """Until a connect under way has ended; raises OSError.

    On loopback it has ended already, and this finds out without a turn of the loop.
    """
    try:
        await asyncio.get_running_loop().sock_connect(sock, address)
    except OSError as error:
        code = answer_of(error.errno or 0)
        if code == error.errno:
            raise
        raise OSError(code, os.strerror(code)) from None


async def knock(sock: socket.socket, address: str, port: int) -> bool:
    """Connect so that the kernel of the other side answers and its program sees nothing.

    The last ACK of the handshake is held back, as HAProxy's checks do; until it arrives there is
    no connection to accept. True: closing the socket now takes the handshake back with a reset.
    False: this kernel sent the ACK, so the connection is one that the program sees, and is to be
    ended in order. Raises OSError as :func:`connect` does.

    Servers mind connections that end before their first word: MariaDB blocks the host after
    ``max_connect_errors`` of them, sshd and others log each.
    """
    if is_unix(address):
        return await _knock_unix_address(sock, address, port)
    # On loopback the answer is here at once, and must be seen at once: a turn of a busy loop could
    # outlast the ACK's 200 ms.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)
    await _connect(sock, address, port)
    if is_acknowledged(sock):
        await _introduce(sock)
        return False
    arm_reset(sock.fileno())
    return True


async def _knock_unix_address(sock: socket.socket, address: str, port: int) -> bool:
    name = socket_name(address)
    if name.startswith("\0"):  # each type of socket has abstract names of its own
        await connect(sock, address, port)
        return False
    knock_unix(name)
    _refuse_packets(name)
    return True


def knock_unix(path: str) -> None:
    """Find out whether a connected type of socket is at ``path``; its program sees nothing.

    Raises OSError. The kernel refuses to connect a datagram socket to one of another type
    (EPROTOTYPE), but says so only if there is one. ECONNREFUSED: the file is left over from a
    process that is gone.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        code = sock.connect_ex(path)
    if code != errno.EPROTOTYPE:
        code = code or errno.EPROTOTYPE
        raise OSError(code, os.strerror(code))


def _refuse_packets(path: str) -> None:
    """Raise OSError if the socket at ``path`` takes packets (SOCK_SEQPACKET): no dial can use it.

    Of this the program of a stream socket sees nothing either; only one of packets sees a visitor.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK) as sock:
        code = sock.connect_ex(path)
    if code != errno.EPROTOTYPE:
        code = errno.EPROTOTYPE if code in (0, errno.EAGAIN) else code
        raise OSError(code, os.strerror(code))


def is_acknowledged(sock: socket.socket) -> bool:
    """Whether more than the SYN, and its repetitions, was sent."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
    if len(info) < _TCP_INFO.size:
        return True
    total_retrans, segs_out = _TCP_INFO.unpack(info)
    return bool(segs_out > 1 + total_retrans)


async def leave(sock: socket.socket, tls: TlsClient | None = None) -> None:
    """End a connection in order, within LINGER_S; the caller closes the socket afterwards.

    A handshake under way goes on to its end: etcd logs each one that breaks off.
    """
    loop = asyncio.get_running_loop()
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(LINGER_S):
            if tls is not None and tls.shaking_hands:
                with contextlib.suppress(OSError):
                    await tls.shake_hands()
            if tls is not None:
                await loop.sock_sendall(sock, tls.goodbye())
            sock.shutdown(socket.SHUT_WR)
            heard = 0
            while heard < LINGER_BYTES and (
                data := await (tls.receive() if tls else loop.sock_recv(sock, READ_BYTES))
            ):
                heard += len(data)


def words(error: OSError) -> str:
    """The system's words; asyncio's own would repeat the address."""
    return (os.strerror(error.errno) if error.errno else str(error)).lower()
