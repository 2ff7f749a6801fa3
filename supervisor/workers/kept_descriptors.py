"""Whether a descriptor that the service manager kept can be what its name says.

The store is not ours: descriptors may be lost there, and what others put there comes along.
"""

from __future__ import annotations

import os
import socket
import stat

from supervisor.core.workers.descriptor_names import Kind, read_name

_IP = (socket.AF_INET, socket.AF_INET6)
_UNIX = (socket.AF_UNIX,)

_SOCKETS = {
    Kind.LISTENER: (_IP, socket.SOCK_STREAM),
    Kind.SHARED: (_UNIX, socket.SOCK_STREAM),
    Kind.LENT: (_UNIX, socket.SOCK_STREAM),
    Kind.CONTROL: (_UNIX, socket.SOCK_STREAM),
    Kind.INBOX_R: (_UNIX, socket.SOCK_SEQPACKET),
    Kind.INBOX_W: (_UNIX, socket.SOCK_SEQPACKET),
}
"""The families and the type of each kind that is a socket."""


def is_as_named(name: str, fd: int) -> bool:
    """Whether it may be used as what it is called; so may any under a name that is not ours.

    It stays the caller's, and no further descriptor is needed. A scoreboard has a check of its own.
    """
    known = read_name(name)
    if known is None:
        return True
    kind = known[0]
    if kind in _SOCKETS:
        return _is_socket(fd, *_SOCKETS[kind])
    if kind is Kind.PIPE:
        return stat.S_ISFIFO(os.fstat(fd).st_mode)
    if kind in (Kind.PIDFD, Kind.UNREADY):
        return "pidfd" in os.readlink(f"/proc/self/fd/{fd}")
    return True


def _is_socket(fd: int, families: tuple[int, ...], kind: int) -> bool:
    if not stat.S_ISSOCK(os.fstat(fd).st_mode):
        return False
    sock = socket.socket(fileno=fd)
    try:
        return sock.family in families and sock.type == kind
    finally:
        sock.detach()
