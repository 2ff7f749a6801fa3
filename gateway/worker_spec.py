"""What the master decides of a new worker, before it forks it."""

from __future__ import annotations

import socket

from gateway.core.address import HostPort
from gateway.core.records import dataclass
from gateway.scoreboard import Scoreboard


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSpec:
    """What a worker is forked with. The descriptors are the master's; the worker owns duplicates.

    ``listen`` holds literal IPs, or "" for all interfaces. ``listeners``: inherited sockets in
    the order of ``listen``, or none: then the worker binds its own and sends Bound.
    ``shared``: inherited sockets that all workers accept from (UNIX sockets). ``lent``: such ones
    that a service manager made, and listens on when the gateway has ended.
    ``exclusive``: the first worker of slot 0 makes sure that nobody else holds the addresses.
    ``peers``: sending ends of the other slots' inboxes. ``row``: the worker's on the scoreboard.
    ``cpu``: the only one that it may run on, None for any. ``title``: what the process title shows
    between brackets.
    """

    slot: int
    gen: int
    slots: int
    listen: tuple[HostPort, ...]
    listeners: tuple[socket.socket, ...]
    shared: tuple[socket.socket, ...] = ()
    lent: tuple[socket.socket, ...] = ()
    exclusive: bool
    inbox: socket.socket
    peers: dict[int, socket.socket]
    scoreboard: Scoreboard
    row: int
    cpu: int | None
    title: str
