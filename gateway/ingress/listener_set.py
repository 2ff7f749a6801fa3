"""The listening sockets of one worker: its slot's own, adopted ones, and those of all workers."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Sequence

from gateway.core.address import HostPort
from gateway.core.descriptor_budget import DescriptorBudget
from gateway.core.messages import Settings
from gateway.ingress.acceptor import Acceptor
from gateway.ingress.listener import drain_queue, open_listener, tune_listener


class ListenerSet:
    """Owns its duplicates of the sockets until :meth:`close`; ``acceptor`` accepts from them.

    ``own`` are the slot's. ``shared`` are UNIX sockets that every worker has; ``lent`` are those of
    them that a service manager made, and that stay its own. ``room()``: for how many more clients
    there are descriptors.
    """

    def __init__(
        self,
        acceptor: Acceptor,
        budget: DescriptorBudget,
        *,
        own: Sequence[socket.socket],
        shared: Sequence[socket.socket],
        lent: Sequence[socket.socket],
        room: Callable[[], int],
    ) -> None:
        self._acceptor = acceptor
        self._budget = budget
        self._own = list(own)
        self._shared = list(shared)
        self._lent = list(lent)
        self._room = room
        self._adopted: dict[int, list[socket.socket]] = {}
        self._settings: Settings | None = None
        self._closed = False

    def bind(self, listen: Sequence[HostPort], *, exclusive: bool) -> list[int]:
        """Make the slot's own sockets; their descriptors. An OSError says which address.

        ``exclusive``: see ``open_listener``.
        """
        for address in listen:
            self._own.append(open_listener(address, exclusive=exclusive))
        return [sock.fileno() for sock in self._own]

    def tune(self, settings: Settings) -> None:
        """Set what accepted TCP sockets inherit."""
        self._settings = settings
        for sock in self._tcp():
            tune_listener(sock, settings)

    def start(self) -> None:
        """Accept from the slot's own sockets, and from those of all workers."""
        for sock in (*self._own, *self._shared, *self._lent):
            self._acceptor.add(sock)

    def adopt(self, slot: int, socks: list[socket.socket]) -> None:
        """Accept from another slot's sockets, too, until :meth:`release`; takes ``socks`` over.

        Their worker may have ended, or hang, before it set what we know. After :meth:`close` they
        are closed at once.
        """
        self.release(slot)
        if self._closed:
            for sock in socks:
                sock.close()
            return
        self._adopted[slot] = socks
        self._budget.spend(len(socks))
        for sock in socks:
            if self._settings is not None:
                tune_listener(sock, self._settings)
            self._acceptor.add(sock)

    def release(self, slot: int) -> None:
        """Close our duplicates; what is queued on them waits for whoever holds the others."""
        for sock in self._adopted.pop(slot, []):
            self._acceptor.remove(sock)
            self._close(sock)

    def close(self, *, accept_rest: bool, shut: bool) -> None:
        """Accept no more, and close our duplicates of all sockets.

        ``accept_rest``: nobody else will accept, so what is queued is taken first. ``shut``: nobody
        is to connect any more; it takes the sockets out of the kernel's group at once, whoever else
        holds them.
        """
        self._closed = True
        for sock in self._tcp():
            self._acceptor.remove(sock)
            if accept_rest:
                self._accept_rest(sock)
            if shut:
                _shut(sock)
            self._close(sock)
        for sock in self._shared:
            self._acceptor.remove(sock)
            if shut:
                _shut(sock)
            if accept_rest:  # what is queued on a UNIX socket can be accepted after that too
                self._accept_rest(sock)
            self._close(sock)
        for sock in self._lent:  # who waits there is its service manager's to see to
            self._acceptor.remove(sock)
            self._close(sock)
        for each in (self._own, self._adopted, self._shared, self._lent):
            each.clear()

    def _tcp(self) -> list[socket.socket]:
        return [*self._own, *(sock for each in self._adopted.values() for sock in each)]

    def _accept_rest(self, sock: socket.socket) -> None:
        drain_queue(sock, self._acceptor.on_client, self._room)

    def _close(self, sock: socket.socket) -> None:
        sock.close()
        self._budget.give_back()


def _shut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):  # another worker was first
        sock.shutdown(socket.SHUT_RD)
