"""When the place of a session that is over is free, under ``--max-sessions``.

The poller closes descriptors at the end of a batch. Until then an endpoint still holds the
connection of a session that is over, and whoever got its place would be one too many there.
"""

from __future__ import annotations

from collections.abc import Callable

from gateway.core.log import Log
from gateway.poller import Poller


class FreedPlaces:
    """A watcher of the poller that gives places away when nothing of their sessions is left.

    ``waiting`` is their number: they still count as sessions.
    """

    __slots__ = ("_give_away", "_log", "_poller", "waiting")

    def __init__(self, poller: Poller, log: Log, give_away: Callable[[], None]) -> None:
        self._poller = poller
        self._log = log
        self._give_away = give_away
        self.waiting = 0

    def add(self) -> None:
        """A session is over; its place goes away as soon as its descriptors are closed."""
        if self._poller.closing:
            self.waiting += 1
            self._poller.last(self)
        else:
            self._give_away()

    def on_event(self, _mask: int) -> None:
        """The descriptors of the batch are closed."""
        freed, self.waiting = self.waiting, 0
        for _ in range(freed):
            self._give_away()

    def on_crash(self, error: Exception) -> None:
        self._log.error("accepting failed", error=repr(error))
