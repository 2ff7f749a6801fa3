"""Whether ``start`` could take the gateway's own addresses; nothing listens in order to find out.

A socket that is bound and does not listen takes no client, and leaves those that listen alone.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import os
import socket
from collections.abc import Collection, Iterator
from pathlib import Path

from gateway.core.address import Address, HostPort, split_admin
from gateway.core.records import dataclass
from gateway.core.unix_address import UnixAddress, socket_name
from gateway.ingress.listener import bind_socket, describe_failure
from gateway.process_title import MASTER, PROGRAM
from supervisor.cli.admin_client import UnreachableError, fetch_status
from supervisor.core.admin.foreign_listeners import Listener
from supervisor.system import sock_diag
from supervisor.system.unix_listener import is_in_use, why_not, why_not_removed

TITLE, MASTER_TITLE = PROGRAM.encode(), MASTER.encode()
"""What the command lines of a gateway's processes, and of its master, begin with."""


_ACCEPTS = 1 << 16
"""__SO_ACCEPTCON: include/linux/net.h."""


class Availability(enum.StrEnum):
    """What ``start`` would meet at an address."""

    FREE = "free"
    RUNNING = "running gateway"
    """A gateway has it already: a start beside it would fail, a reload or an upgrade would not."""
    UNUSABLE = "unusable"


@dataclass(frozen=True, slots=True)
class OwnAddress:
    """One address that the gateway would listen on, and what was found there.

    ``pid`` is that of the running gateway, 0 if it could not be found out.
    """

    flag: str
    address: str
    availability: Availability
    error: str = ""
    pid: int = 0


def try_listen(flag: str, address: Address) -> OwnAddress:
    """Bind ``address`` as the first worker would, and let it go."""
    if isinstance(address, UnixAddress):
        return _try_unix_listen(flag, address)
    try:
        bind_socket(address, exclusive=True).close()
    except OSError as error:
        inodes = {each.inode for each in _listeners(address.port)}
        if error.errno == errno.EADDRINUSE and (pid := _gateway_with(inodes)):
            return OwnAddress(flag, str(address), Availability.RUNNING, pid=pid)
        text = describe_failure(error, address.port)
        return OwnAddress(flag, str(address), Availability.UNUSABLE, text)
    return OwnAddress(flag, str(address), Availability.FREE)


def try_admin(address: str) -> OwnAddress:
    """The same for an address as ``--admin-addr`` has it."""
    where = split_admin(address)
    if isinstance(where, UnixAddress):
        return _try_unix_admin(address, where)
    host = "127.0.0.1" if where.host == "localhost" else where.host
    found = try_listen("admin-addr", HostPort(host, where.port))
    return OwnAddress("admin-addr", address, found.availability, found.error, found.pid)


def _try_unix_listen(flag: str, address: UnixAddress) -> OwnAddress:
    """Look whether a UNIX socket could be made; a connection would reach whoever listens there."""
    name = str(address)
    if error := why_not(address):
        return OwnAddress(flag, name, Availability.UNUSABLE, error)
    try:
        in_use = _is_taken(name) if address.abstract else is_in_use(address.path)
    except OSError as failure:
        return OwnAddress(flag, name, Availability.UNUSABLE, os.strerror(failure.errno or 0))
    if not in_use and (error := "" if address.abstract else why_not_removed(address.path)):
        return OwnAddress(flag, name, Availability.UNUSABLE, error)
    if not in_use:
        return OwnAddress(flag, name, Availability.FREE)
    if pid := _gateway_with(_unix_listeners(address.path)):
        return OwnAddress(flag, name, Availability.RUNNING, pid=pid)
    return OwnAddress(flag, name, Availability.UNUSABLE, os.strerror(errno.EADDRINUSE))


def _try_unix_admin(address: str, where: UnixAddress) -> OwnAddress:
    found = _try_unix_listen("admin-addr", where)
    if found.error != os.strerror(errno.EADDRINUSE):
        return found
    try:
        pid = int(fetch_status([address])["pid"])
    except UnreachableError:
        error = os.strerror(errno.EADDRINUSE)
        return OwnAddress("admin-addr", address, Availability.UNUSABLE, error)
    return OwnAddress("admin-addr", address, Availability.RUNNING, pid=pid)


def _gateway_with(inodes: Collection[int]) -> int:
    """The gateway that holds one of these sockets, as far as we may see it; 0 if there is none.

    That is its master, if one holds it: after a crash workers are older than their master.
    """
    found = [(not is_master, pid) for pid, is_master in _processes_with(inodes)]
    return min(found, default=(False, 0))[1]


def _processes_with(inodes: Collection[int]) -> Iterator[tuple[int, bool]]:
    """The processes of gateways that hold one of these sockets, and whether each is a master."""
    links = {f"socket:[{inode}]" for inode in inodes}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            shown = (process / "cmdline").read_bytes()
            if not shown.startswith(TITLE):
                continue
            if any(os.readlink(fd) in links for fd in (process / "fd").iterdir()):
                yield int(process.name), shown.startswith(MASTER_TITLE)
        except OSError:  # it ended, or belongs to somebody else
            continue


def _is_taken(name: str) -> bool:
    """Whether a name in the abstract namespace has a socket. OSError: it cannot be found out."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        try:
            sock.bind(socket_name(name))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            return True
    return False


def _listeners(port: int) -> list[Listener]:
    """Empty where nothing says it: netlink is forbidden, and ``/proc`` is not mounted."""
    try:
        return sock_diag.listeners([port])
    except OSError:
        with contextlib.suppress(OSError):
            return sock_diag.listeners_from_proc([port])
    return []


def _unix_listeners(path: str) -> set[int]:
    """The inodes of the sockets that listen under this name (proc_pid_net(5)), where we may see
    them."""
    found: set[int] = set()
    try:
        lines = open("/proc/self/net/unix", encoding="utf-8", errors="surrogateescape")  # noqa: SIM115 - closed below
    except OSError:
        return found
    with lines:
        next(lines)
        for line in lines:
            fields = line.split()
            if fields[7:] == [path] and int(fields[3], 16) & _ACCEPTS:
                found.add(int(fields[6]))
    return found
