"""The port_monitor: tells the log when a stranger joins a listen address, and when it goes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gateway.core.address import HostPort
from gateway.core.log import Log
from supervisor.admin import sock_diag as sockdiag
from supervisor.core.admin.foreign_listeners import Listener, Watch

EVERY_TICKS = 5
"""Of the master's tick, one second."""
EVERY_TICKS_FROM_PROC = 60
"""The fallback reads a line for every connection of the host."""


class PortMonitor:
    """Looks when it is told that a second went by."""

    def __init__(self, listen: Iterable[HostPort], log: Log) -> None:
        self._ports = sorted({address.port for address in listen})
        self._watch = Watch(listen)
        self._log = log
        self._read = sockdiag.listeners
        self._every = EVERY_TICKS
        self._ticks = 0

    @property
    def foreign_listeners(self) -> tuple[Mapping[str, Any], ...]:
        """Those that listen now, for the status document."""
        return tuple(_shown(each) for each in self._watch.present)

    def tick(self, own: set[int]) -> None:
        """``own``: the inodes of our listeners."""
        self._ticks += 1
        if self._ticks % self._every:
            return
        try:
            self._look(own)
        except OSError as error:
            if self._read is sockdiag.listeners_from_proc:
                return  # neither way is open; nothing is worse than without a port_monitor
            self._log.debug("sock_diag is not allowed, reading /proc instead", error=str(error))
            self._read, self._every = sockdiag.listeners_from_proc, EVERY_TICKS_FROM_PROC

    def _look(self, own: set[int]) -> None:
        found = [listener for port in self._ports for listener in self._read(port)]
        change = self._watch.look(found, own)
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
