"""What an ``errno`` of a dial or an accept says, and of whom: the peer or our own host."""

from __future__ import annotations

import errno

from gateway.core.counters import DialResult, PauseReason

EXHAUSTED = {
    errno.EMFILE: PauseReason.DESCRIPTORS,
    errno.ENFILE: PauseReason.DESCRIPTORS,
    errno.ENOBUFS: PauseReason.MEMORY,
    errno.ENOMEM: PauseReason.MEMORY,
    errno.ENOSPC: PauseReason.MEMORY,  # fs.epoll.max_user_watches is reached (epoll_ctl(2))
}
"""Our host has nothing left to make a socket of, or to watch one with, and what it is: dialing
another does not help."""

LOCAL = EXHAUSTED.keys() | {
    errno.EADDRNOTAVAIL,  # no free port towards this address, or no address of this family
    errno.EACCES,
    errno.EPERM,  # the host's own firewall
    errno.ENETUNREACH,
    errno.ENETDOWN,
    errno.EAFNOSUPPORT,
    errno.EAGAIN,  # ip_local_port_range used up, or the queue of a UNIX socket full (connect(2))
    errno.EADDRINUSE,
    errno.EINVAL,  # from a loopback address, as --source-addr may have it, to another host
}

OF_ONE_CLIENT = frozenset({
    errno.ECONNABORTED, errno.ENETDOWN, errno.EPROTO, errno.ENOPROTOOPT, errno.EHOSTDOWN,
    errno.ENONET, errno.EHOSTUNREACH, errno.EOPNOTSUPP, errno.ENETUNREACH,
})  # fmt: skip
"""What accept(2) says of a client that left already, or whose network did: the next one may do.

Everything else that it says is about us, and it would say so of the same client again."""

_RESULTS = {
    errno.ECONNREFUSED: DialResult.REFUSED,
    errno.ENOENT: DialResult.REFUSED,  # the file of a UNIX socket: nobody listens, too
    errno.ETIMEDOUT: DialResult.TIMEOUT,
    errno.EHOSTUNREACH: DialResult.UNREACHABLE,
    errno.EHOSTDOWN: DialResult.UNREACHABLE,
    errno.ECONNRESET: DialResult.RESET,
    errno.EPIPE: DialResult.RESET,
    errno.ECONNABORTED: DialResult.RESET,
}


def result_of(code: int) -> DialResult:
    """How a dial that failed with ``code`` is counted; see :func:`answer_of` if it was answered."""
    if code in LOCAL:
        return DialResult.LOCAL
    return _RESULTS.get(code, DialResult.ERROR)


def answer_of(code: int) -> int:
    """``code`` as a router or a firewall meant it that answered a connect under way.

    A router that has no route (ICMP), and over IPv6 one that calls a network "administratively
    prohibited", are told of by the errnos of a dial for which our own host has none, or which it
    forbids.
    """
    return errno.EHOSTUNREACH if code in (errno.ENETUNREACH, errno.EACCES) else code
