"""Listening sockets of the admin address: ``host:port`` or ``unix:/path``."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Iterable, Sequence

UNIX_MODE = 0o660

LITERALS = {"": ("::", "0.0.0.0"), "localhost": ("127.0.0.1",)}  # noqa: S104 - ":port" asks for it
"""What a host that is no literal IP stands for; the second is for hosts without IPv6."""


class AdminError(Exception):
    """An admin address that cannot be served; the text names it and says why."""


class AdminSocket:
    """One bound and listening socket. It owns the file of a unix socket and removes it at close.

    ``inherited`` is a socket that the image before an upgrade had bound to ``address``. Raises
    AdminError if the address is in use, malformed or not to be had.
    """

    def __init__(self, address: str, inherited: socket.socket | None = None) -> None:
        self.address = address
        self._made: tuple[str, int, int] | None = None
        if address.startswith("unix:"):
            path = address.removeprefix("unix:")
            self.sock = inherited or _bind_unix(path)
            made = os.lstat(path)
            self._made = (path, made.st_dev, made.st_ino)
        else:
            self.sock = inherited or _bind_tcp(address)

    @property
    def served(self) -> str:
        """The address as bound: with the real port if it was 0."""
        name = self.sock.getsockname()
        if self.sock.family == socket.AF_UNIX:
            return f"unix:{name}"
        host, port = name[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    @property
    def has_lost_its_file(self) -> bool:
        """Whether the file of a unix socket is gone or was replaced, so that nobody finds it."""
        if self._made is None:
            return False
        path, device, inode = self._made
        try:
            found = os.lstat(path)
        except OSError:
            return True
        return (found.st_dev, found.st_ino) != (device, inode)

    def close(self) -> None:
        """Close it; a file that another process has put in our place stays."""
        self.sock.close()
        if self._made is not None and not self.has_lost_its_file:
            with contextlib.suppress(OSError):
                os.unlink(self._made[0])


def bind_all(addresses: Sequence[str]) -> list[AdminSocket]:
    """All of them, or AdminError and none."""
    bound: list[AdminSocket] = []
    try:
        bound.extend(map(AdminSocket, addresses))
    except AdminError:
        for each in bound:
            each.close()
        raise
    return bound


def adopt_all(addresses: Sequence[str], fds: Iterable[int]) -> list[AdminSocket]:
    """Those of the addresses to which one of these sockets is bound; the others are closed."""
    sockets = [socket.socket(fileno=fd) for fd in fds]
    adopted: list[AdminSocket] = []
    for address in addresses:
        for sock in sockets:
            if _is_bound_to(sock, address):
                sockets.remove(sock)
                adopted.append(AdminSocket(address, sock))
                break
    for sock in sockets:
        sock.close()
    return adopted


def _is_bound_to(sock: socket.socket, address: str) -> bool:
    if address.startswith("unix:"):
        path = address.removeprefix("unix:")
        return sock.family == socket.AF_UNIX and sock.getsockname() == path and _is_socket(path)
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    name = sock.getsockname()
    return name[0] in LITERALS.get(host, (host,)) and name[1] == int(port)


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.lstat(path).st_mode)
    except OSError:
        return False


def _bind_tcp(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    why = "no address"
    for literal in LITERALS.get(host, (host,)):
        try:
            return _listen(literal, int(port), both=host == "")
        except OSError as error:  # inet_pton's has no number
            why = error.strerror or f"{host!r} is no IP address, localhost or empty"
            if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                break
    raise AdminError(f"cannot serve the admin address {address}: {why}")


def _listen(literal: str, port: int, *, both: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in literal else socket.AF_INET
    socket.inet_pton(family, literal)  # a name would send bind() to the resolver
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(not both))
        sock.bind((literal, port))
        sock.listen()
    except OSError:
        sock.close()
        raise
    return sock


def _bind_unix(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        umask = os.umask(0o777 & ~UNIX_MODE)  # bind() makes the file: a chmod would come too late
        try:
            sock.bind(path)
        finally:
            os.umask(umask)
        sock.listen()
    except OSError as error:
        sock.close()
        why = error.strerror or error
        raise AdminError(f"cannot serve the admin address unix:{path}: {why}") from None
    return sock


def _remove_stale(path: str) -> None:
    """Remove a socket that nobody listens on; leave alone what is in use or is no socket."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise OSError(errno.EEXIST, "the file exists and is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        code = probe.connect_ex(path)
    if code != errno.ECONNREFUSED:  # 0, or EAGAIN when its queue is full: somebody is there
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    os.unlink(path)
