"""What is done to raw descriptors of UNIX sockets that ``os`` has no call for.

A UNIX socket is connected at once or not at all, no option of TCP applies to it, and it knows no
reset: the peer of one that is closed reads an end of stream, unless it had sent bytes that nobody
has read.
"""

from __future__ import annotations

import _socket
import errno
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from gateway.core.unix_address import socket_name

UNIX_PEER = "unix"
"""What stands for the socket address of such a client, which has none: this very object."""

QUEUE_FULL = "the socket's queue is full"
"""What EAGAIN of connect(2) means: the program does not accept as fast as clients come."""

_UNIX = int(socket.AF_UNIX)
_STREAM = int(socket.SOCK_STREAM) | int(socket.SOCK_NONBLOCK)
_SOCKET, _OOBINLINE = int(socket.SOL_SOCKET), int(socket.SO_OOBINLINE)
_SO_PASSRIGHTS = 83
"""asm-generic/socket.h; since Linux 6.16."""
_CREDENTIALS = struct.Struct("=iII")
"""struct ucred: pid, uid, gid."""


def connect_unix(address: str, data: bytes | None = None) -> tuple[int, int | None]:
    """A descriptor that is connected to ``unix:/path``, and how much of ``data`` the kernel took.

    None: none for now, or there is no ``data``. 0 also if the endpoint has closed its end already:
    what it said before is still to be read. The descriptor is the caller's to close; an OSError
    says why there is none. EAGAIN: the queue of the listener is full (unix(7)).
    """
    sock = _socket.socket(_UNIX, _STREAM, 0)
    try:
        # MSG_OOB exists here too (Linux 5.15): its byte stays in the stream, as with TCP.
        sock.setsockopt(_SOCKET, _OOBINLINE, 1)
        code = sock.connect_ex(socket_name(address))
        if code:
            raise OSError(code, os.strerror(code))
        sent = None if data is None else _write_first(sock.fileno(), data)
    except OSError:
        sock.close()
        raise
    return sock.detach(), sent


def _write_first(fd: int, data: bytes) -> int | None:
    try:
        return os.write(fd, data)
    except BlockingIOError:
        return None
    except BrokenPipeError:
        return 0


def is_unix_socket(fd: int) -> bool:
    """Whether the descriptor is a UNIX socket."""
    with _borrowed(fd) as sock:
        return sock.getsockopt(_SOCKET, socket.SO_DOMAIN) == _UNIX


def name_peer(fd: int) -> str:
    """Who connected, in place of an address: ``pid=1234,uid=1000`` (SO_PEERCRED, unix(7)).

    The process that called connect(2); the pid is 0 if it lives in another namespace.
    """
    with _borrowed(fd) as sock:
        found = sock.getsockopt(_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(found)
    return f"pid={pid},uid={uid}"


def tune_accepted(fd: int) -> None:
    """Set what an accepted UNIX socket does not inherit: urgent bytes stay in the stream."""
    with _borrowed(fd) as sock, suppress(OSError):  # else nobody would own the descriptor
        sock.setsockopt(_SOCKET, _OOBINLINE, 1)


def refuse_descriptors(sock: socket.socket) -> None:
    """Have the kernel tell senders that descriptors do not go through (accepted ones inherit it).

    An older kernel drops them without a word.
    """
    try:
        sock.setsockopt(_SOCKET, _SO_PASSRIGHTS, 0)
    except OSError as error:
        if error.errno != errno.ENOPROTOOPT:
            raise


def peek(fd: int, size: int) -> bytes:
    """What can be read from ``fd``, and stays there."""
    with _borrowed(fd) as sock:
        return sock.recv(size, socket.MSG_PEEK)


@contextmanager
def _borrowed(fd: int) -> Iterator[_socket.socket]:
    """A socket object around ``fd`` that does not close it."""
    sock = _socket.socket(_UNIX, _STREAM, 0, fd)
    try:
        yield sock
    finally:
        sock.detach()
