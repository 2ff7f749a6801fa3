"""Descriptors in messages (SCM_RIGHTS, unix(7)): the one place that sends and receives them."""

from __future__ import annotations

import array
import contextlib
import errno
import os
import socket
from collections.abc import Sequence

from gateway.core.outcome import EXHAUSTED

MOST_DESCRIPTORS = 253
"""In one message (SCM_MAX_FD of the kernel)."""


NO_ROOM_TO_SEND = EXHAUSTED.keys() | {errno.ETOOMANYREFS}
"""What sendmsg says of this host and not of the peer (sendmsg(2), unix(7)): try again later."""


class DescriptorsLostError(Exception):
    """Some descriptors of a message could not be received, and the kernel closed them.

    That happens when this process has no number left for them (MSG_CTRUNC). ``data`` is what the
    message said; those of its descriptors that did arrive are closed.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__("the limit of open files left no room for a descriptor")
        self.data = data


def send(sock: socket.socket, data: bytes, fds: Sequence[int] = ()) -> int:
    """Send without waiting; how many bytes went, the descriptors with the first of them.

    The descriptors stay the caller's. An OSError means that nothing was sent.
    """
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    return sock.sendmsg([data], rights, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)


def receive(
    sock: socket.socket, size: int, most: int = MOST_DESCRIPTORS
) -> tuple[bytes, list[int]]:
    """Read without waiting; the descriptors are the caller's and close on exec.

    One call returns the descriptors of one message at most: the kernel stops reading behind it.
    Raises DescriptorsLostError. socket.recv_fds does not serve: it ignores the flags that it is
    given (CPython 3.11 to 3.13).
    """
    fds = array.array("i")
    data, ancillary, flags, _ = sock.recvmsg(
        size,
        socket.CMSG_SPACE(most * fds.itemsize),
        socket.MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT,
    )
    for level, kind, rights in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(rights[: len(rights) - len(rights) % fds.itemsize])
    if flags & socket.MSG_CTRUNC:
        close_all(fds)
        raise DescriptorsLostError(data)
    return data, list(fds)


def has_number_for_one(sock: socket.socket) -> bool:
    """Whether this process has a number for one more descriptor, and memory for it.

    Ask before :meth:`receive`, where the descriptor is nobody else's: the kernel takes the message
    out of the queue first and closes a descriptor that it then has no number for. A number that was
    free a moment ago still is, because processes of ours have one thread.
    """
    try:
        os.close(os.dup(sock.fileno()))
    except OSError as error:
        if error.errno not in EXHAUSTED:
            raise
        return False
    return True


def duplicate(fds: Sequence[int]) -> tuple[int, ...]:
    """Duplicates of all of them, which the caller owns; or OSError and none."""
    made: list[int] = []
    try:
        made.extend(map(os.dup, fds))
    except OSError:
        close_all(made)
        raise
    return tuple(made)


def close_all(fds: Sequence[int]) -> None:
    """Close descriptors; those that are gone already are no error."""
    for fd in fds:
        with contextlib.suppress(OSError):
            os.close(fd)
