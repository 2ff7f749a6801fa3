"""How a connection to an endpoint begins: the socket, its options, and the client's first bytes."""

from __future__ import annotations

import _socket
import errno
import os
import socket
from collections.abc import Iterable
from typing import Protocol

from gateway.tcp import bind_source
from gateway.unix import connect_unix

# Plain integers: every look into the socket module's enums costs, and a dial makes ten.
_STREAM = int(socket.SOCK_STREAM) | int(socket.SOCK_NONBLOCK)
_INET, _INET6 = int(socket.AF_INET), int(socket.AF_INET6)
_TCP, _NODELAY, _QUICKACK = (
    int(socket.IPPROTO_TCP), int(socket.TCP_NODELAY), int(socket.TCP_QUICKACK)
)  # fmt: skip
_SOCKET, _OOBINLINE = int(socket.SOL_SOCKET), int(socket.SO_OOBINLINE)


class StartConnect(Protocol):
    """:func:`start_connect`, or the same from an address of the operator's choice."""

    def __call__(self, address: str, port: int, *, with_data: bool = False) -> _socket.socket: ...


def connect_from(sources: Iterable[str]) -> StartConnect:
    """Connects from that of these addresses that is of the endpoint's family, if one is."""
    source_of = {":" in source: source for source in sources}
    if not source_of:
        return start_connect

    def start(address: str, port: int, *, with_data: bool = False) -> _socket.socket:
        source = source_of.get(":" in address, "")
        return start_connect(address, port, with_data=with_data, source=source)

    return start


def start_connect(
    address: str, port: int, *, with_data: bool = False, source: str = ""
) -> _socket.socket:
    """A socket that is connected, or connecting; the caller's to close. An OSError says why not.

    ``with_data``: :func:`write_first` follows at once. Port 0: ``address`` is ``unix:/path``.
    ``source``: the address to dial from.
    """
    if not port:
        return connect_unix(address)
    sock = _socket.socket(_INET6 if ":" in address else _INET, _STREAM, _TCP)
    # Urgent data travels as ordinary bytes, so nothing of a stream is lost. Set before the connect:
    # an urgent byte that came earlier would be taken out of the stream.
    sock.setsockopt(_SOCKET, _OOBINLINE, 1)
    sock.setsockopt(_TCP, _NODELAY, 1)
    if with_data:
        # The handshake's last ACK travels with the first bytes: one packet less.
        sock.setsockopt(_TCP, _QUICKACK, 0)
    if source:
        try:
            bind_source(sock, source)
        except OSError:
            sock.close()
            raise
    code = sock.connect_ex((address, port))
    if code and code != errno.EINPROGRESS:
        sock.close()
        raise OSError(code, os.strerror(code))
    return sock


def write_first(sock: _socket.socket, data: bytes) -> int | None:
    """Write the client's first bytes; how many the kernel took, None: still connecting."""
    try:
        return os.write(sock.fileno(), data)
    except BlockingIOError:  # as over any real network: the connect takes a while
        return None
    finally:
        # From the second ACK on: an endpoint that answers in two small parts waits for it.
        sock.setsockopt(_TCP, _QUICKACK, 1)
