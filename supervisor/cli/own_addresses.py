"""Whether ``start`` could take the gateway's own addresses; nothing listens in order to find out.

A socket that is bound and does not listen takes no client, and leaves those that listen alone.
"""

from __future__ import annotations

import enum
import errno
import os
import socket
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gateway.core.address import HostPort
from gateway.ingress.listener import bind_socket
from supervisor.admin import sock_diag
from supervisor.cli.admin_client import UnreachableError, fetch_status
from supervisor.core.admin.foreign_listeners import Listener

TITLE = b"etcd-gateway: "
"""What the command line of each process of a gateway begins with."""


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


def try_listen(flag: str, address: HostPort) -> OwnAddress:
    """Bind ``address`` as the first worker would, and let it go."""
    try:
        bind_socket(address, exclusive=True).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE and (pids := list(_gateways_on(address.port))):
            return OwnAddress(flag, str(address), Availability.RUNNING, pid=min(pids))
        text = os.strerror(error.errno) if error.errno else str(error)
        return OwnAddress(flag, str(address), Availability.UNUSABLE, text)
    return OwnAddress(flag, str(address), Availability.FREE)


def try_admin(address: str) -> OwnAddress:
    """The same for an address as ``--admin-addr`` has it."""
    if address.startswith("unix:"):
        return _try_unix(address)
    host, _, port = address.rpartition(":")
    host = {"localhost": "127.0.0.1"}.get(host, host.strip("[]"))
    found = try_listen("admin-addr", HostPort(host, int(port)))
    return OwnAddress("admin-addr", address, found.availability, found.error, found.pid)


def _try_unix(address: str) -> OwnAddress:
    path = Path(address.removeprefix("unix:"))
    if error := _why_not(path):
        return OwnAddress("admin-addr", address, Availability.UNUSABLE, error)
    if not path.exists() or not _is_served(path):
        return OwnAddress("admin-addr", address, Availability.FREE)
    try:
        pid = int(fetch_status([address])["pid"])
    except UnreachableError:
        error = os.strerror(errno.EADDRINUSE)
        return OwnAddress("admin-addr", address, Availability.UNUSABLE, error)
    return OwnAddress("admin-addr", address, Availability.RUNNING, pid=pid)


def _why_not(path: Path) -> str:
    """Why no socket could be made at ``path``, whoever listens there now; "" if one could."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return "the file exists and is not a socket"
    except FileNotFoundError:
        pass
    except OSError as error:
        return os.strerror(error.errno or 0)
    if not path.parent.is_dir():
        return f"there is no directory {path.parent}"
    if not os.access(path.parent, os.W_OK | os.X_OK):
        return f"the directory {path.parent} is not writable"
    return ""


def _is_served(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        return probe.connect_ex(str(path)) != errno.ECONNREFUSED


def _gateways_on(port: int) -> Iterator[int]:
    """The processes of gateways that hold a listener on ``port``, as far as we may see them."""
    inodes = {f"socket:[{each.inode}]" for each in _listeners(port)}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if not (process / "cmdline").read_bytes().startswith(TITLE):
                continue
            if any(os.readlink(fd) in inodes for fd in (process / "fd").iterdir()):
                yield int(process.name)
        except OSError:  # it ended, or belongs to somebody else
            continue


def _listeners(port: int) -> list[Listener]:
    try:
        return sock_diag.listeners(port)
    except OSError:  # netlink is forbidden
        return sock_diag.listeners_from_proc(port)
