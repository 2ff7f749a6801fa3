"""The port monitor: whether our listen addresses are still ours alone, and still found.

It logs when a foreign listener joins a listen address or leaves it, and when the file of a UNIX
socket is gone, or is there again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gateway.core.address import Address, tcp_only
from gateway.core.log import Log
from gateway.core.outcome import EXHAUSTED
from supervisor.core.admin.foreign_listeners import ForeignListeners, Listener
from supervisor.system import sock_diag

EVERY_TICKS = 5
"""How many ticks of the master (one second each) lie between two looks."""
EVERY_TICKS_FROM_PROC = 60
"""Without sock_diag a look reads a line of /proc for every connection of the host."""


class PortMonitor:
    """Looks for foreign listeners every few ticks of the master; is told of files at each.

    ``lost``: UNIX listen addresses whose file a former master had lost.
    """

    def __init__(self, listen: Iterable[Address], log: Log, lost: Iterable[str] = ()) -> None:
        by_tcp = tcp_only(listen)
        self._ports = sorted({address.port for address in by_tcp})
        self._foreign = ForeignListeners(by_tcp)
        self._log = log
        self._read = sock_diag.listeners
        self._every = EVERY_TICKS
        self._ticks = 0
        self._lost = frozenset(lost)

    @property
    def foreign_listeners(self) -> tuple[Mapping[str, Any], ...]:
        """The foreign listeners of the last look, for the status document."""
        return tuple(_shown(each) for each in self._foreign.present)

    def tick(self, own: set[int]) -> None:
        """A second has passed. ``own``: the inodes of our listeners."""
        self._ticks += 1
        if self._ticks % self._every:
            return
        try:
            self._look(own)
        except OSError as error:
            if error.errno in EXHAUSTED:
                return  # the next look may have a descriptor
            if self._read is sock_diag.listeners_from_proc:
                return  # neither way is allowed: the gateway runs on without a port monitor
            self._log.debug("sock_diag is not allowed, reading /proc instead", error=str(error))
            self._read, self._every = sock_diag.listeners_from_proc, EVERY_TICKS_FROM_PROC

    def look_at_files(self, listen: Iterable[str]) -> None:
        """The UNIX listen addresses whose file is not that of our socket just now."""
        before, self._lost = self._lost, frozenset(listen)
        for address in sorted(self._lost - before):
            self._log.error(
                "no client finds the socket of a listen address any more", listen=address
            )
        for address in sorted(before - self._lost):
            self._log.info("clients find the socket of a listen address again", listen=address)

    def _look(self, own: set[int]) -> None:
        change = self._foreign.look(self._read(self._ports), own)
        for each in change.came:
            self._log.error(
                "another program listens on the listen address and takes clients",
                **_shown(each),
                find=f"ss -ltnpe 'sport = {each.port}' | grep ino:{each.inode}",
            )
        for each in change.went:
            self._log.info("the other program on the listen address is gone", **_shown(each))


def _shown(listener: Listener) -> dict[str, Any]:
    return {"address": str(listener.address), "inode": listener.inode, "uid": listener.uid}
