"""The inbox of a worker: who is handed over to it is taken from there, as far as there is room."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable

from gateway.core.log import Log
from gateway.ingress.handoff import Handoff
from gateway.ingress.quota import Quota
from gateway.tcp import turn_away

LOST = "no descriptor was left for a client that another worker handed over"


class Inbox:
    """Borrows ``sock``, which ``handoff`` receives from; the clients are the ``quota``'s.

    ``full``: clients may wait there, because there were descriptors for no more of them.
    ``received``: clients that came through it and are not served yet.
    ``serving``: they are just being served. ``unheard``: it cannot be watched, see :meth:`watch`.
    ``on_place()``: a place was offered to us. ``on_change()``: whether clients may be handed to us
    is to be said anew.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        handoff: Handoff,
        quota: Quota,
        log: Log,
        *,
        on_place: Callable[[], None],
        on_change: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._sock = sock
        self._handoff = handoff
        self._quota = quota
        self._log = log
        self._on_place = on_place
        self._on_change = on_change
        self._watched = False
        self.unheard = False
        self.full = False
        self.received = 0
        self.serving = False

    def watch(self, taking: bool) -> bool:
        """Take clients as they come, or leave them there; which of both is done.

        They are left there if the event loop's epoll has no room for the inbox: try again.
        """
        taking = taking and not self._handoff.cut_off  # else its end would wake us for ever
        self.unheard = False
        if taking and not self._watched:
            try:
                self._loop.add_reader(self._sock, self.take)
            except OSError:
                self.unheard, taking = True, False
        elif self._watched and not taking:
            self._loop.remove_reader(self._sock)
        self._watched = taking
        return taking

    def take(self) -> None:
        """Take who waits there, as many as there are descriptors for."""
        handoff = self._handoff
        room = self._quota.room_by_descriptors()
        clients, offered = handoff.receive(room)
        self.received = len(clients)
        self.serving = True
        waiting = iter(clients)
        try:
            for fd in waiting:
                self.received -= 1
                _set_nonblocking(fd)
                self._quota.admit(fd)
        except Exception:
            for fd in waiting:  # nobody else has those behind the one that failed
                turn_away(fd)
            raise
        finally:
            self.received = 0
            self.serving = False
        if handoff.lost:
            self._log.error("clients lost", sessions=handoff.lost, error=LOST)
            handoff.lost = 0
        was_full, self.full = self.full, len(clients) == room or handoff.short
        if self.full or was_full or handoff.cut_off:
            self._on_change()
        if offered:
            self._on_place()

    def go_on(self) -> None:
        """Take those who wait there as soon as there is room, before the kernel's queue does.

        They came earlier, and have been accepted once already. A session that ends at once makes
        room as well: it comes back here, and the loop of the first call goes on.
        """
        if self.serving:
            return
        while self.full and self._quota.room_by_descriptors():
            self.take()
            if self._handoff.short:  # the room is one by the count only
                return


def _set_nonblocking(fd: int) -> None:
    """Closes ``fd`` if it cannot be: nobody else has it yet."""
    try:
        os.set_blocking(fd, False)
    except OSError:
        turn_away(fd)
        raise
