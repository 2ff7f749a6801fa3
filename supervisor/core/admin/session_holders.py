"""Who holds the sessions: the hosts of the clients, and the processes where they are known."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from gateway.core.records import dataclass

TOP_CLIENTS = 10

_UNIX_CLIENT = r"unix:pid=([0-9]{1,9}),"


def host_part(client: str) -> str:
    """The client without its port: all connections of a host count together."""
    host, colon, port = client.rpartition(":")
    return host.strip("[]") if colon and port.isdigit() else client


def pid_in(client: str) -> int | None:
    """The process that the name of a client of a UNIX socket has in it: ``unix:pid=5,uid=0``."""
    found = re.match(_UNIX_CLIENT, client) if client.startswith("unix:") else None
    return int(found[1]) or None if found is not None else None


def leave_out_process(client: str) -> str:
    """The name of a client for those who may not know the processes of this host."""
    return "unix:" if re.match(_UNIX_CLIENT, client) else client


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """Who holds a client's socket. ``unit``: its systemd unit, or its container's scope."""

    pid: int
    command: str | None
    unit: str | None


class Holders:
    """Who holds most sessions: processes of this host where they are known, else hosts.

    ``hosts``: sessions by the host of the client. Processes are added piece by piece, because all
    of 20,000 clients take 30 milliseconds.
    """

    def __init__(self, hosts: Mapping[str, int]) -> None:
        self._left = dict(hosts)
        self._counts: dict[int, int] = {}
        self._processes: dict[int, tuple[Process, set[str]]] = {}
        """By process: what it is called, and the hosts that it came from."""

    def add(self, processes: Mapping[str, Process]) -> None:
        """These clients are these processes."""
        left = self._left
        for client, process in processes.items():
            host = host_part(client)
            # A client without a port is all connections of one process.
            count = left.get(host, 0) if host == client else min(left.get(host, 0), 1)
            if count:
                pid = process.pid
                left[host] -= count
                self._counts[pid] = self._counts.get(pid, 0) + count
                self._processes.setdefault(pid, (process, set()))[1].add(host)

    def top(self) -> list[dict[str, Any]]:
        """TOP_CLIENTS of them. ``client`` is the host; None for a process that came from several
        addresses."""
        holders: list[tuple[int, str, Process | None]] = [
            (-count, host, None) for host, count in self._left.items() if count > 0
        ]
        for pid, count in self._counts.items():
            process, hosts = self._processes[pid]
            holders.append((-count, min(hosts) if len(hosts) == 1 else "", process))
        holders.sort(key=lambda each: (each[0], each[1], each[2].pid if each[2] is not None else 0))
        return [
            {
                "client": host or None,
                "pid": process.pid if process is not None else None,
                "command": process.command if process is not None else None,
                "unit": process.unit if process is not None else None,
                "sessions": -count,
            }
            for count, host, process in holders[:TOP_CLIENTS]
        ]


def unit_of(cgroup: str) -> str | None:
    """The unit of a process, from its ``/proc/PID/cgroup``; None outside of systemd.

    The innermost one: ``foo.service`` of the system, or the scope of a container.
    """
    for line in cgroup.splitlines():
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if controllers in ("", "name=systemd"):
            for part in reversed(path.split("/")):
                if part.endswith((".service", ".scope")):
                    return part
    return None
