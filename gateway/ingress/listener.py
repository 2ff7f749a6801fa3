"""Listening sockets, and the accepting that never refuses a client by our own doing."""

from __future__ import annotations

import asyncio
import errno
import os
import select
import socket
from collections.abc import Callable
from time import monotonic
from typing import Any

from gateway.core.address import HostPort
from gateway.core.counters import PauseReason
from gateway.core.log import Log
from gateway.core.messages import Settings
from gateway.core.outcome import EXHAUSTED
from gateway.core.socket_address import address_text
from gateway.ingress.quota import Quota
from gateway.poller import Poller
from gateway.tcp import set_keepalive
from gateway.unix import UNIX_PEER, tune_accepted

BACKLOG = 4096
"""Clients that may wait to be accepted; the kernel caps it at net.core.somaxconn."""

ACCEPT_S = 0.008
"""How long one batch accepts at most, from all listeners: timers and sessions wait meanwhile.

Twice the budget of a turn's events, because a client that comes costs as much as ten events of a
session that is there, and nobody has answered it yet.
"""

RESUME_AFTER_S = 0.1
"""How long accepting rests when descriptors or memory ran out, unless a session ends first; and
from a socket that does not listen any more."""

OnClient = Callable[[int, Any], None]
"""Takes over an accepted, non-blocking descriptor and its peer's address."""


def open_listener(address: HostPort, *, exclusive: bool) -> socket.socket:
    """Bind and listen; an OSError says the address in its text.

    ``exclusive``: listen without SO_REUSEPORT first, so that another program on the address is an
    error and not a silent sharer, then set it so that the other workers may join.
    An empty host means all interfaces, both families in one socket where the host has IPv6.
    TCP_NODELAY and keepalive are set here because accepted sockets inherit them; see
    :func:`tune_listener` for the rest.
    """
    try:
        return _open(address, exclusive)
    except OSError as error:
        text = f"cannot listen on {address}: {error.strerror or error}"
        raise OSError(error.errno, text) from error


def _open(address: HostPort, exclusive: bool) -> socket.socket:
    sock = bind_socket(address, exclusive=exclusive)
    try:
        sock.listen(BACKLOG)
        if exclusive:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    except BaseException:
        sock.close()
        raise
    return sock


def bind_socket(address: HostPort, *, exclusive: bool) -> socket.socket:
    """Bind without listening: no client comes, and no other listener is disturbed."""
    family, host = family_of(address)
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK, socket.IPPROTO_TCP)
    try:
        if family == socket.AF_INET6:
            only_v6 = 1 if address.host else 0
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only_v6)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if not exclusive:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        # Urgent data travels as ordinary bytes: nothing of a stream is lost in between.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        sock.bind((host, address.port))
    except BaseException:
        sock.close()
        raise
    return sock


def family_of(address: HostPort) -> tuple[socket.AddressFamily, str]:
    """The family of a socket for the address, and the host to bind it to."""
    if address.host:
        return (socket.AF_INET6 if ":" in address.host else socket.AF_INET), address.host
    return (socket.AF_INET6, "::") if _has_ipv6() else (socket.AF_INET, "0.0.0.0")  # noqa: S104


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            probe.bind(("::", 0))
    except OSError:
        return False
    return True


def listen_again(sock: socket.socket) -> bool:
    """Listen on a TCP socket that somebody destroyed (ss -K); False for one that was shut down.

    It is bound still, but shut down both ways, and so would be whom it accepts. A shutdown takes
    that back, of a socket that listens only.
    """
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    if sock.family == socket.AF_UNIX or not any(mask & select.POLLIN for _, mask in poll.poll(0)):
        return False
    sock.listen(BACKLOG)
    sock.shutdown(socket.SHUT_RD)
    sock.listen(BACKLOG)
    return True


def drain_queue(
    sock: socket.socket, on_client: OnClient, room: Callable[[], int] = lambda: 1
) -> int:
    """Accept what is queued, without waiting; how many. For a stop, before the socket closes.

    ``room()``: for how many more clients there are descriptors; for the others there is no help.
    """
    taken = 0
    accept = accept_of(sock)
    while room():
        try:
            fd, peer = accept()
        except ConnectionAbortedError:
            continue
        except OSError:
            return taken
        os.set_blocking(fd, False)
        taken += 1
        on_client(fd, peer)
    return taken


def accept_of(sock: socket.socket) -> Callable[[], tuple[int, Any]]:
    """What accepts one client: its descriptor, and its socket address or UNIX_PEER.

    accept4 and nothing else: no getsockname, no socket object, no address lookups.
    """
    accept: Callable[[], tuple[int, Any]] = sock._accept  # type: ignore[attr-defined]
    if sock.family != socket.AF_UNIX:
        return accept

    def accept_unix() -> tuple[int, Any]:
        fd, _ = accept()
        tune_accepted(fd)
        return fd, UNIX_PEER

    return accept_unix


class ListenerWatcher:
    """One listening socket as the poller's watcher."""

    __slots__ = ("accept", "acceptor", "complained", "sock")

    def __init__(self, acceptor: Acceptor, sock: socket.socket) -> None:
        self.acceptor = acceptor
        self.sock = sock
        self.accept = accept_of(sock)
        self.complained = False
        """The log was told that it cannot listen again."""

    def on_event(self, mask: int) -> None:
        if mask:
            # At the end of the round: until then the client's first words have arrived, and its
            # session needs no event for them.
            self.acceptor.poller.last(self)
        else:
            self.acceptor.accept_from(self)

    def on_crash(self, error: Exception) -> None:
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
        self._resting: set[ListenerWatcher] = set()
        """Those that do not listen just now, and are not polled for a while."""
        self._resume_timer: asyncio.TimerHandle | None = None

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
                    self._rest(reason, error)
                    return
                if error.errno == errno.EINVAL:  # it does not listen any more (accept(2))
                    self._look_after(watcher)
                    return
                # else that client left already, or its network did (man 2 accept)
            else:
                os.set_blocking(fd, False)
                on_client(fd, peer)
                room = 0 if quota.shared else room - 1
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
        if self.pause_reason is None:
            return
        if self._resume_timer is not None:  # the kernel had nothing left: maybe now it has
            self._resume_timer.cancel()
            self._resume_timer = self._loop.call_later(0.0, self._resume_after_rest)
        elif self._quota.room():
            self._resume()
        elif self._quota.shortage is not self.pause_reason:
            self.pause_reason = self._quota.shortage
            self._on_pause(self.pause_reason, "")

    def _rest(self, reason: PauseReason, error: OSError) -> None:
        """The kernel has nothing left to make a socket of: ask it again a little later."""
        self.pause(reason, error.strerror or str(error))
        self._resume_timer = self._loop.call_later(RESUME_AFTER_S, self._resume_after_rest)

    def _resume_after_rest(self) -> None:
        self._resume_timer = None
        self.recheck()

    def _resume(self) -> None:
        self.pause_reason = None
        for fd, watcher in self._watchers.items():
            if watcher not in self._resting:
                self.poller.add(fd, watcher, select.EPOLLIN)
        self._on_resume()

    def _look_after(self, watcher: ListenerWatcher) -> None:
        """Have a socket listen again that does not, and leave it alone for a while.

        One that was shut down is left alone, again and again: we are about to hear of a stop.
        """
        sock = watcher.sock
        self.poller.remove(sock.fileno())
        self._resting.add(watcher)
        self._loop.call_later(RESUME_AFTER_S, self._poll_again, watcher)
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

    def _poll_again(self, watcher: ListenerWatcher) -> None:
        self._resting.discard(watcher)
        fd = watcher.sock.fileno()
        if self._watchers.get(fd) is watcher and self.pause_reason is None:
            self.poller.add(fd, watcher, select.EPOLLIN)


def tune_listener(sock: socket.socket, settings: Settings) -> None:
    """Set what accepted sockets inherit; call it again when the settings change.

    Harmless to do from several workers that share a socket: all say the same.
    """
    set_keepalive(sock, settings)
