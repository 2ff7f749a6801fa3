"""How the connections of a session begin and end: accept, connect with the first bytes, last bytes.

Each function stands for the system calls of one step, so that the compiled relay, which has this
module in C, makes them without the socket objects and the lock that Python puts around them.
What a connection is asked in between is in :mod:`gateway.tcp`.
"""

from __future__ import annotations

import _socket
import errno
import os
import socket
from collections.abc import Callable
from os import read as read_some
from typing import Any

from gateway.tcp import bind_source, met_itself

__all__ = ["accept_of", "connect", "read_some", "shut_write", "write_last"]

# Plain integers: every look into the socket module's enums costs, and a dial makes ten.
_STREAM = int(socket.SOCK_STREAM)
_NONBLOCK = int(socket.SOCK_NONBLOCK)
_INET, _INET6 = int(socket.AF_INET), int(socket.AF_INET6)
_TCP, _NODELAY, _QUICKACK = (
    int(socket.IPPROTO_TCP), int(socket.TCP_NODELAY), int(socket.TCP_QUICKACK)
)  # fmt: skip
_SOCKET, _OOBINLINE = int(socket.SOL_SOCKET), int(socket.SO_OOBINLINE)
_SHUT_WR = int(socket.SHUT_WR)
_MORE = int(socket.MSG_MORE) | int(socket.MSG_NOSIGNAL)


def accept_of(sock: socket.socket) -> Callable[[], tuple[int, Any]]:
    """What accepts one client of ``sock``: its non-blocking descriptor, and its socket address.

    For as long as ``sock`` is open. No getsockname, no socket object, no address lookups.
    """
    accept: Callable[[], tuple[int, Any]] = sock._accept  # type: ignore[attr-defined]

    def accept_one() -> tuple[int, Any]:
        client = accept()
        try:
            os.set_blocking(client[0], False)
        except OSError:
            os.close(client[0])
            raise
        return client

    return accept_one


def connect(
    address: str,
    port: int,
    data: bytes | None = None,
    may_meet_itself: bool = False,
    source: str = "",
    /,
) -> tuple[int, int | None]:
    """A non-blocking descriptor that is connected or connecting, and how much of ``data`` it took.

    None: it is still connecting, or there is no ``data``. The descriptor is the caller's to close;
    an OSError says why there is none.

    ``data``: the client's first bytes. They go out at once where the connection stands at once, as
    on this host or the next one. ``may_meet_itself``: ``port`` is one that the kernel gives to
    connections (:func:`~gateway.tcp.met_itself`); asked only where ``data`` would go out.
    ``source``: the address to dial from, of this host.
    """
    sock = _socket.socket(_INET6 if ":" in address else _INET, _STREAM | _NONBLOCK, _TCP)
    try:
        # Urgent data travels as ordinary bytes, so nothing of a stream is lost. Set before the
        # connect: an urgent byte that came earlier would be taken out of the stream.
        sock.setsockopt(_SOCKET, _OOBINLINE, 1)
        sock.setsockopt(_TCP, _NODELAY, 1)
        if data is not None:
            # The handshake's last ACK travels with the first bytes: one packet less.
            sock.setsockopt(_TCP, _QUICKACK, 0)
        if source:
            bind_source(sock, source)
        code = sock.connect_ex((address, port))
        if code and code != errno.EINPROGRESS:
            raise OSError(code, os.strerror(code))
        sent = None if data is None else _write_first(sock, data, port if may_meet_itself else 0)
    except OSError:
        sock.close()
        raise
    return sock.detach(), sent


def _write_first(sock: _socket.socket, data: bytes, suspect: int) -> int | None:
    # Whether the own port is the suspect one is asked first: hardly ever it is.
    if suspect and sock.getsockname()[1] == suspect and met_itself(sock.fileno(), suspect):
        raise OSError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
    try:
        return os.write(sock.fileno(), data)
    except BlockingIOError:  # as over any real network: the connect takes a while
        return None
    finally:
        # From the second ACK on: an endpoint that answers in two small parts waits for it.
        sock.setsockopt(_TCP, _QUICKACK, 1)


def shut_write(fd: int) -> None:
    """Forward an end of stream (half-close); a peer that is gone already is no error."""
    sock = _socket.socket(_INET, _STREAM, 0, fd)
    try:
        sock.shutdown(_SHUT_WR)
    except OSError as error:
        if error.errno != errno.ENOTCONN:
            raise
    finally:
        sock.detach()


def write_last(fd: int, data: bytes) -> int:
    """Write, and forward the end of stream in the same packet if all of ``data`` was taken.

    One packet less per stream, and one ACK: 2 us of a short connection.
    """
    sock = _socket.socket(_INET, _STREAM, 0, fd)
    try:
        sent = sock.send(data, _MORE)
        if sent == len(data):
            try:
                sock.shutdown(_SHUT_WR)
            except OSError as error:
                if error.errno != errno.ENOTCONN:  # a peer that is gone already
                    raise
        return sent
    finally:
        sock.detach()
