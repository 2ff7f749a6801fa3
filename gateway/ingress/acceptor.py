"""The acceptor: when a worker accepts clients, and when it leaves them in the kernel's queue."""

from __future__ import annotations

import asyncio
import errno
import select
import socket
from collections.abc import Callable
from time import monotonic

from gateway.core.counters import PauseReason
from gateway.core.log import Log
from gateway.core.outcome import EXHAUSTED, OF_ONE_CLIENT
from gateway.core.socket_address import address_text
from gateway.ingress.listener import OnClient, accept_of, listen_again
from gateway.ingress.quota import Quota
from gateway.poller import Poller
from gateway.timer import Timer
from gateway.unwatched import NO_MEMORY

ACCEPT_S = 0.008
"""How long one batch accepts at most, from all listeners: timers and sessions wait meanwhile.

Twice the budget of a turn's events, because a client that comes costs as much as ten events of a
session that is there, and nobody has answered it yet.
"""

RESUME_AFTER_S = 0.1
"""How long accepting rests when descriptors or memory ran out, unless a session ends first; and
from a socket that does not listen any more."""

COMPLAIN_EVERY_S = 60.0
"""How often the log hears of a listener from which nobody can be accepted."""


class ListenerWatcher:
    """One listening socket as the poller's watcher."""

    __slots__ = ("accept", "acceptor", "complained", "complained_at", "sock")

    def __init__(self, acceptor: Acceptor, sock: socket.socket) -> None:
        self.acceptor = acceptor
        self.sock = sock
        self.accept = accept_of(sock)
        self.complained = False
        """The log was told that it cannot listen again."""
        self.complained_at = -COMPLAIN_EVERY_S
        """When the log was told that nobody can be accepted from it."""

    def on_event(self, mask: int) -> None:
        if mask:
            # At the end of the round: until then the client's first words have arrived, and its
            # session needs no event for them.
            self.acceptor.poller.last(self)
        else:
            self.acceptor.accept_from(self)

    def on_crash(self, error: Exception) -> None:
        if isinstance(error, MemoryError):
            self.acceptor.poller.unwatched.run_short(NO_MEMORY)
        else:
            self.acceptor.log.error("accepting failed", error=repr(error))


class Acceptor:
    """Accepts for one worker, from its own slot's sockets and from adopted ones.

    ``quota.room()`` says how many more clients there is room for. Clients
    beyond that, and while descriptors or memory are short, wait in the kernel's queue.
    ``on_pause(reason, error)``: clients have to wait. ``on_resume()``: not any more.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        poller: Poller,
        on_client: OnClient,
        *,
        quota: Quota,
        on_pause: Callable[[PauseReason, str], None],
        on_resume: Callable[[], None],
        log: Log,
    ) -> None:
        self.log = log
        self.poller = poller
        self.pause_reason: PauseReason | None = None
        """Why clients wait; None while they are accepted."""
        self._loop = loop
        self.on_client = on_client
        self._quota = quota
        self._on_pause = on_pause
        self._on_resume = on_resume
        self._watchers: dict[int, ListenerWatcher] = {}
        """In the order in which they are asked when clients have waited."""
        self._served: ListenerWatcher | None = None
        """Where the last client came from."""
        self._resting: set[ListenerWatcher] = set()
        """Those that cannot be accepted from just now, and are not polled for a while."""
        self._rest = Timer(loop, self.recheck)
        poller.unwatched.on_short = lambda why: self.pause(PauseReason.MEMORY, why)
        poller.unwatched.on_room = self.recheck

    def has_clients(self) -> bool:
        """Whether anybody waits in the kernel's queues; a system call, for while it is paused."""
        poll = select.poll()
        for fd in self._watchers:
            poll.register(fd, select.POLLIN)
        return bool(poll.poll(0))

    def add(self, sock: socket.socket) -> None:
        """Accept from ``sock`` too; it stays the caller's to close, after :meth:`remove`."""
        sock.setblocking(False)
        watcher = ListenerWatcher(self, sock)
        self._watchers[sock.fileno()] = watcher
        if self.pause_reason is None:
            self.poller.add(sock.fileno(), watcher, select.EPOLLIN)

    def remove(self, sock: socket.socket) -> None:
        """Stop accepting from ``sock``; does nothing for one that was not added."""
        if self._watchers.pop(sock.fileno(), None) is not None:
            self.poller.remove(sock.fileno())

    def accept_from(self, watcher: ListenerWatcher) -> None:
        """Accept what waits, for as long as the batch may take and as many as there is room for.

        The next batch goes on with those who still wait: the kernel reports the listening socket
        once for each 256 events, which is too seldom while many sessions are busy.
        """
        on_client, quota = self.on_client, self._quota
        shared = quota.shared
        if watcher.sock.fileno() not in self._watchers:
            return  # removed since the batch before
        until = monotonic() + ACCEPT_S / self.poller.called_last
        room = 0
        while self.pause_reason is None:
            room = room or quota.room()
            if not room:
                self.pause(quota.shortage)
                return
            try:
                fd, peer = watcher.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if reason := EXHAUSTED.get(error.errno or 0):
                    # The kernel has nothing left to make a socket of: ask it again later.
                    self.pause(reason, error.strerror or str(error))
                    self._rest.start(RESUME_AFTER_S)
                    return
                if error.errno == errno.EINVAL:  # it does not listen any more (accept(2))
                    self._look_after(watcher)
                    return
                if error.errno not in OF_ONE_CLIENT:
                    self._leave_alone(watcher, error)
                    return
            else:
                self._served = watcher
                on_client(fd, peer)
                room = 0 if shared else room - 1
            if monotonic() >= until:
                self.poller.last(watcher)
                return

    def pause(self, reason: PauseReason, error: str = "") -> None:
        """Leave clients in the kernel's queue until :meth:`recheck` finds room."""
        if self.pause_reason is None:
            for fd in self._watchers:
                self.poller.remove(fd)
            self.pause_reason = reason
            self._on_pause(reason, error)

    def recheck(self) -> None:
        """Accept again if there is room: a session ended, or something else changed."""
        if self.pause_reason is None or self.poller.unwatched.short:
            return
        if self._rest.running:  # the kernel had nothing left: maybe now it has
            self._rest.stop()
            self._rest.start(0.0)
        elif self._quota.room():
            self._resume()
        elif self._quota.shortage is not self.pause_reason:
            self.pause_reason = self._quota.shortage
            self._on_pause(self.pause_reason, "")

    def _resume(self) -> None:
        """The one that was served last is the last to be asked: the room may be for one client."""
        self.pause_reason = None
        served = self._served.sock.fileno() if self._served is not None else -1
        if served in self._watchers:
            self._watchers[served] = self._watchers.pop(served)
        for fd, watcher in self._watchers.items():
            if watcher not in self._resting:
                self._poll(fd, watcher)
            if self.pause_reason is not None:
                return  # the kernel has no room to watch it
        self._on_resume()

    def _look_after(self, watcher: ListenerWatcher) -> None:
        """Have a socket listen again that does not, and leave it alone for a while.

        One that was shut down is left alone, again and again: we are about to hear of a stop.
        """
        sock = watcher.sock
        self._let_rest(watcher)
        try:
            if listen_again(sock):
                watcher.complained = False
                address = address_text(sock.getsockname())
                self.log.error("listening again, somebody destroyed the socket", listen=address)
        except OSError as error:
            if not watcher.complained:
                watcher.complained = True
                text = error.strerror or str(error)
                self.log.error("cannot listen again, trying on", error=text)

    def _leave_alone(self, watcher: ListenerWatcher, error: OSError) -> None:
        """Nobody can be accepted, as under a security profile that forbids it: try on, slowly."""
        self._let_rest(watcher)
        now = self._loop.time()
        if now - watcher.complained_at >= COMPLAIN_EVERY_S:
            watcher.complained_at = now
            self.log.error(
                "cannot accept clients, trying on",
                listen=address_text(watcher.sock.getsockname()),
                error=error.strerror or str(error),
            )

    def _let_rest(self, watcher: ListenerWatcher) -> None:
        """Do not poll it for a while."""
        self.poller.remove(watcher.sock.fileno())
        self._resting.add(watcher)
        self._loop.call_later(RESUME_AFTER_S, self._poll_again, watcher)

    def _poll_again(self, watcher: ListenerWatcher) -> None:
        self._resting.discard(watcher)
        fd = watcher.sock.fileno()
        if self._watchers.get(fd) is watcher and self.pause_reason is None:
            self._poll(fd, watcher)

    def _poll(self, fd: int, watcher: ListenerWatcher) -> None:
        """Accept from it; or rest, if there is no memory even for that."""
        try:
            self.poller.add(fd, watcher, select.EPOLLIN)
        except MemoryError:
            self.poller.unwatched.run_short(NO_MEMORY)
            self.pause(PauseReason.MEMORY, NO_MEMORY)
