"""One listening socket: how it is bound, tuned, drained, and made to listen again.

When clients are accepted from it is the acceptor's to decide.
"""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Callable
from typing import Any

from gateway import tcp_calls
from gateway.core.address import HostPort
from gateway.core.messages import Settings
from gateway.tcp import set_keepalive
from gateway.unix import UNIX_PEER, tune_accepted

BACKLOG = 4096
"""Clients that may wait to be accepted; the kernel caps it at net.core.somaxconn."""

FIRST_FREE_PORT = 1024
"""Linux's default of net.ipv4.ip_unprivileged_port_start."""

OnClient = Callable[[int, Any], None]
"""Takes over an accepted, non-blocking descriptor, also if it raises, and its peer's address."""


def open_listener(address: HostPort, *, exclusive: bool) -> socket.socket:
    """Bind and listen; an OSError says the address in its text.

    ``exclusive``: listen without SO_REUSEPORT first, so that another program on the address is an
    error and not a silent sharer, then set it so that the other workers may join.
    An empty host means all interfaces, both families in one socket where the host has IPv6.
    TCP_NODELAY and keepalive are set here because accepted sockets inherit them; see
    :func:`tune_listener` for the rest.
    """
    try:
        return _open(address, exclusive)
    except OSError as error:
        text = f"cannot listen on {address}: {describe_failure(error, address.port)}"
        raise OSError(error.errno, text) from error


def describe_failure(error: OSError, port: int) -> str:
    """The system's words, and what "permission denied" is about: nobody else is in the way."""
    text = os.strerror(error.errno) if error.errno else str(error)
    if error.errno == errno.EACCES and port < FIRST_FREE_PORT:
        return f"{text}, a port below {FIRST_FREE_PORT} needs root or CAP_NET_BIND_SERVICE"
    return text


def _open(address: HostPort, exclusive: bool) -> socket.socket:
    sock = bind_socket(address, exclusive=exclusive)
    try:
        sock.listen(BACKLOG)
        if exclusive:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    except BaseException:
        sock.close()
        raise
    return sock


def bind_socket(address: HostPort, *, exclusive: bool) -> socket.socket:
    """Bind without listening: no client comes, and no other listener is disturbed."""
    family, host = family_of(address)
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK, socket.IPPROTO_TCP)
    try:
        if family == socket.AF_INET6:
            only_v6 = 1 if address.host else 0
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only_v6)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if not exclusive:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        # Urgent data travels as ordinary bytes: nothing of a stream is lost in between.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        sock.bind((host, address.port))
    except BaseException:
        sock.close()
        raise
    return sock


def family_of(address: HostPort) -> tuple[socket.AddressFamily, str]:
    """The family of a socket for the address, and the host to bind it to."""
    if address.host:
        return (socket.AF_INET6 if ":" in address.host else socket.AF_INET), address.host
    return (socket.AF_INET6, "::") if _has_ipv6() else (socket.AF_INET, "0.0.0.0")  # noqa: S104


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            probe.bind(("::", 0))
    except OSError:
        return False
    return True


def tune_listener(sock: socket.socket, settings: Settings) -> None:
    """Set what accepted sockets inherit; call it again when the settings change.

    Harmless to do from several workers that share a socket: all say the same.
    """
    set_keepalive(sock, settings)


def listen_again(sock: socket.socket) -> bool:
    """Listen on a TCP socket that somebody destroyed (ss -K); False for one that was shut down.

    It is bound still, but shut down both ways, and so would be whom it accepts. A shutdown takes
    that back, of a socket that listens only.
    """
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    if sock.family == socket.AF_UNIX or not any(mask & select.POLLIN for _, mask in poll.poll(0)):
        return False
    sock.listen(BACKLOG)
    sock.shutdown(socket.SHUT_RD)
    sock.listen(BACKLOG)
    return True


def drain_queue(
    sock: socket.socket, on_client: OnClient, room: Callable[[], int] = lambda: 1
) -> None:
    """Accept what is queued, without waiting. For a stop, before the socket closes.

    ``room()``: for how many more clients there are descriptors; for the others there is no help.
    """
    accept = accept_of(sock)
    while room():
        try:
            fd, peer = accept()
        except ConnectionAbortedError:
            continue
        except OSError:
            return
        on_client(fd, peer)


def accept_of(sock: socket.socket) -> Callable[[], tuple[int, Any]]:
    """What accepts one client: its non-blocking descriptor, and its socket address or UNIX_PEER."""
    accept = tcp_calls.accept_of(sock)
    if sock.family != socket.AF_UNIX:
        return accept

    def accept_unix() -> tuple[int, Any]:
        fd, _ = accept()
        tune_accepted(fd)
        return fd, UNIX_PEER

    return accept_unix
