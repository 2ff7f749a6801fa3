"""Which processes of this host hold the clients' sockets, as far as ``/proc`` permits to see it.

The kernel knows a socket by its inode, and ``/proc/PID/fd`` says which inodes a process has open.
All of it is done in pieces of about a millisecond, because the master has others to serve, and
given up after MOST_DESCRIPTORS.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping

from supervisor.core.admin.session_holders import Process, pid_in, unit_of
from supervisor.system import sock_diag

PIECE = 200
"""Descriptors looked at in a piece."""

MOST_DESCRIPTORS = 300_000
"""Half a second."""

_SOCKET = r"socket:\[(\d+)\]"


def find_holders(
    clients: Collection[str] | None, ports: Collection[int], *, skip: Collection[int] = ()
) -> Iterator[dict[str, Process]]:
    """The processes of those clients of these ports that are on this host, by client, in pieces.

    ``clients``: None is all that have a port. ``skip``: processes that are none of our clients.
    """
    wanted = None if clients is None else frozenset(clients)
    for client in wanted or ():
        if (pid := pid_in(client)) is not None and pid not in skip:
            yield {client: describe_process(pid)}
    inodes: dict[int, str] = {}
    for port in ports:
        for found in _clients_of(port):
            inodes.update(
                (inode, name)
                for name, inode in found.items()
                if inode and (wanted is None or name in wanted)
            )
            yield {}
    looked_at = 0
    for pid in _pids(skip):
        if not inodes or looked_at >= MOST_DESCRIPTORS:
            return
        process: Process | None = None
        for count, held in _inodes_of(pid):
            looked_at += count
            processes: dict[str, Process] = {}
            for inode in held & inodes.keys():
                process = process or describe_process(pid)
                processes[inodes.pop(inode)] = process
            yield processes


def describe_process(pid: int) -> Process:
    """What the process is called, and what it is a part of."""
    return Process(
        pid=pid,
        command=_read(f"/proc/{pid}/comm").strip() or None,
        unit=unit_of(_read(f"/proc/{pid}/cgroup")),
    )


def _clients_of(port: int) -> Iterator[Mapping[str, int]]:
    try:
        yield from sock_diag.clients(port)
    except OSError:  # netlink is not to be had here
        try:
            yield from sock_diag.clients_from_proc(port)
        except OSError:
            return


def _pids(skip: Collection[int]) -> Iterator[int]:
    """Every process that is there now, the newest first: old ones are the host's own."""
    try:
        names = os.listdir("/proc")
    except OSError:  # there is no such directory
        return
    pids = sorted((int(name) for name in names if name.isdigit()), reverse=True)
    yield from (pid for pid in pids if pid not in skip)


def _inodes_of(pid: int) -> Iterator[tuple[int, set[int]]]:
    """The inodes of the sockets that a process has open, and of how many descriptors they are, in
    pieces; none if we may not look."""
    held: set[int] = set()
    count = 0
    try:
        with os.scandir(f"/proc/{pid}/fd") as entries:
            for entry in entries:
                count += 1
                held |= _socket_at(entry.path)
                if count == PIECE:
                    yield count, held
                    count, held = 0, set()
    except OSError:  # ended meanwhile, or another user's
        return
    yield count, held


def _socket_at(link: str) -> set[int]:
    """The inode of the socket that a link of /proc names; empty if it names something else."""
    try:
        match = re.fullmatch(_SOCKET, os.readlink(link))
    except OSError:  # closed meanwhile
        return set()
    return set() if match is None else {int(match[1])}


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(4096)
    except OSError:  # ended meanwhile, or not ours to read
        return ""
