"""Listening sockets of the admin address: ``host:port`` or ``unix:/path``."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Callable, Mapping, Sequence

from gateway.core.address import HostPort, split_admin
from gateway.core.socket_address import join_host_port
from gateway.core.unix_address import UnixAddress
from supervisor.system.unix_listener import (
    NO_FILE,
    FileId,
    bind_unix,
    file_id,
    is_there,
    remove_file,
    why_failed,
)

UNIX_MODE = 0o660

LITERALS = {"": ("::", "0.0.0.0"), "localhost": ("127.0.0.1",)}  # noqa: S104 - ":port" asks for it
"""What a host that is no literal IP stands for; the second is for hosts without IPv6."""


class AdminError(Exception):
    """An admin address that cannot be served; the text names it and says why."""


class AdminSocket:
    """One bound and listening socket. It owns the file of a unix socket and removes it at close.

    ``inherited`` is a socket that the image before an upgrade had bound to ``address``, and
    ``file`` is the one that it made. Raises AdminError if the address is in use, malformed or not
    to be had.
    """

    def __init__(
        self, address: str, inherited: socket.socket | None = None, file: FileId = NO_FILE
    ) -> None:
        self.address = address
        where = split_admin(address)
        self.path = where.path if isinstance(where, UnixAddress) else ""
        self._file = NO_FILE
        if isinstance(where, UnixAddress):
            if inherited is None:
                inherited, file = _bind_unix(self.path)
            self.sock = inherited
            self._file = file if file != NO_FILE else file_id(self.path)
        else:
            self.sock = inherited or _bind_tcp(where)

    @property
    def name(self) -> str:
        """What tells the next image which file is ours; "" without one."""
        return "" if self._file == NO_FILE else ".".join(map(str, self._file))

    @property
    def served(self) -> str:
        """The address as bound: with the real port if it was 0."""
        name = self.sock.getsockname()
        if self.sock.family == socket.AF_UNIX:
            return f"unix:{name}"
        return join_host_port(*name[:2])

    @property
    def has_lost_its_file(self) -> bool:
        """Whether the file of a unix socket is gone or was replaced, so that nobody finds it."""
        return self._file != NO_FILE and not is_there(self.path, self._file)

    def close(self) -> str:
        """Close it; a file that another process has put in our place stays.

        Why its own file cannot be removed, "" if it is gone.
        """
        self.sock.close()
        return "" if self._file == NO_FILE else remove_file(self.path, self._file)


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


def adopt_all(
    addresses: Sequence[str],
    named: Mapping[str, int],
    on_left: Callable[[str, str], None] = lambda _path, _why: None,
) -> list[AdminSocket]:
    """Those of the addresses to which one of these sockets is bound; the others are closed.

    ``named``: by :func:`descriptor_name`. One whose file is gone, or is another one, is no use. The
    files of the others are removed, for nobody answers there any more; ``on_left(path, why)`` is
    told of one that cannot be.
    """
    sockets = {socket.socket(fileno=fd): _file_in(name) for name, fd in named.items()}
    adopted: list[AdminSocket] = []
    for address in addresses:
        for sock, file in sockets.items():
            if _is_bound_to(sock, file, address):
                del sockets[sock]
                adopted.append(AdminSocket(address, sock, file))
                break
    for sock, file in sockets.items():
        path = sock.getsockname()
        if file != NO_FILE and isinstance(path, str) and (why := remove_file(path, file)):
            on_left(path, why)
        sock.close()
    return adopted


def descriptor_name(number: int, each: AdminSocket) -> str:
    """What the next image gets the socket as."""
    return f"admin.{number}" + (f".{each.name}" if each.name else "")


def _file_in(name: str) -> FileId:
    """The file in a descriptor's name; NO_FILE if there is none in it."""
    numbers = name.split(".")[2:]
    return (int(numbers[0]), int(numbers[1])) if len(numbers) == 2 else NO_FILE


def _is_bound_to(sock: socket.socket, file: FileId, address: str) -> bool:
    where = split_admin(address)
    if isinstance(where, UnixAddress):
        path = where.path
        there = is_there(path, file) if file != NO_FILE else _is_socket(path)
        return sock.family == socket.AF_UNIX and sock.getsockname() == path and there
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    name = sock.getsockname()
    return name[0] in LITERALS.get(where.host, (where.host,)) and name[1] == where.port


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.lstat(path).st_mode)
    except OSError:
        return False


def _bind_tcp(address: HostPort) -> socket.socket:
    why = "no address"
    for literal in LITERALS.get(address.host, (address.host,)):
        try:
            return _listen(literal, address.port, both=address.host == "")
        except OSError as error:  # inet_pton's has no number
            why = error.strerror or f"{address.host!r} is no IP address, localhost or empty"
            if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                break
    raise _refusal(str(address), why)


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


def _bind_unix(path: str) -> tuple[socket.socket, FileId]:
    address = UnixAddress(path, UNIX_MODE)
    try:
        return bind_unix(address)
    except OSError as error:
        starting = isinstance(error, BlockingIOError)
        why = (
            "another process is just about to listen there"
            if starting
            else why_failed(address, error)
        )
        raise _refusal(str(address), why) from None


def _refusal(address: str, why: str) -> AdminError:
    expected = "expected in --admin-addr an address at which the gateway can listen"
    return AdminError(f"cannot serve the admin address {address}: {why}; {expected}")
