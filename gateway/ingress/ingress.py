"""Where clients come in: a worker's listeners and its inbox, within the limits of sessions.

A client that is accepted here is served here, or handed to a less loaded worker, or held back
while the gateway is full.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import resource
import socket
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from gateway.core.address import HostPort
from gateway.core.counters import PauseReason, WorkerCounters
from gateway.core.descriptor_budget import DescriptorBudget
from gateway.core.log import Log
from gateway.core.messages import Settings
from gateway.core.rate import RateLimit
from gateway.core.socket_address import SocketAddress
from gateway.ingress.handoff import Handoff
from gateway.ingress.listener import Acceptor, drain_queue, open_listener, tune_listener
from gateway.ingress.quota import Quota
from gateway.poller import Poller
from gateway.scoreboard import Scoreboard
from gateway.sessions.register import Sessions
from gateway.tcp import peer_of
from gateway.unix import UNIX_PEER, is_unix_socket

_LOOKED_AT = 8192
"""Descriptors asked for one by one: a worker begins with three for each of MAX_SLOTS at most."""

LOST = "no descriptor was left for a client that another worker handed over"


class Ingress:
    """Owns the listeners and clients held back; borrows the rest.

    There are the slot's own listeners, adopted ones, and UNIX sockets that all workers share.

    Whoever made ``sessions`` sees to it that each end of one is told to :meth:`session_ended`.
    ``on_empty()``: after :meth:`leave`, the last client is gone.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        poller: Poller,
        scoreboard: Scoreboard,
        sessions: Sessions,
        counters: WorkerCounters,
        budget: DescriptorBudget,
        log: Log,
        *,
        row: int,
        slot: int,
        listeners: Sequence[socket.socket],
        shared: Sequence[socket.socket] = (),
        lent: Sequence[socket.socket] = (),
        inbox: socket.socket,
        peers: dict[int, socket.socket],
        on_empty: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._scoreboard = scoreboard
        self._sessions = sessions
        self._counters = counters
        self._budget = budget
        self._log = log
        self._row = row
        self._slot = slot
        self._listeners = list(listeners)
        self._shared = list(shared)
        self._lent = list(lent)
        self._has_unix_clients = bool(shared or lent)
        self._inbox = inbox
        self._on_empty = on_empty
        self._adopted: dict[int, list[socket.socket]] = {}
        self._handoff = Handoff(scoreboard, row=row, slot=slot, inbox=inbox, peers=peers)
        self._quota = Quota(
            scoreboard,
            row=row,
            counters=counters,
            budget=budget,
            serve=self._serve,
            closing=poller.closing,
            in_flight=self._handoff.in_flight,
            reclaim=sessions.relay.pipes.close_spare,
        )
        self._acceptor = Acceptor(
            loop,
            poller,
            self._on_client,
            quota=self._quota,
            on_pause=self._on_pause,
            on_resume=self._update_taking,
            log=log,
        )
        self._rate: RateLimit | None = None
        self._rate_timer: asyncio.TimerHandle | None = None
        self._knows_endpoints = False
        self._reading_inbox = False
        self._leaving = False
        self._left = False
        self._ended = 0
        self._inbox_full = False
        """Clients wait in the inbox because there are no descriptors for them."""
        self._received = 0
        """Clients that came through the inbox and are not served yet."""
        scoreboard.enter(row, os.getpid())

    @property
    def empty(self) -> bool:
        """Nobody is served, and nobody waits to be."""
        return self._counters.sessions == 0 and not self._quota.held_back

    def clients_held_back(self) -> tuple[int, ...]:
        """Descriptors of the clients held back, which stay ours."""
        return self._quota.clients_held_back()

    # -- listeners --------------------------------------------------------------------------

    def bind(self, listen: Sequence[HostPort], *, exclusive: bool) -> list[int]:
        """Make the slot's own listeners; their descriptors. An OSError says which address."""
        for address in listen:
            self._listeners.append(open_listener(address, exclusive=exclusive))
        return [sock.fileno() for sock in self._listeners]

    def apply(self, settings: Settings) -> None:
        """New settings; the endpoints of their snapshot are known to the sessions already."""
        self._knows_endpoints = True
        self._quota.max_sessions = settings.max_sessions
        self._acceptor.on_client = self._screen if settings.allow else self._on_client
        for sock in self._all_listeners():
            tune_listener(sock, settings)
        self._quota.serve_held_back()
        self._set_rate(settings.max_session_rate)
        self._acceptor.recheck()

    def start(self) -> None:
        """Accept, and take what others hand over."""
        self._budget.limit(*_open_files())
        for sock in (*self._listeners, *self._shared, *self._lent):
            self._acceptor.add(sock)
        self._update_taking()

    def adopt(self, slot: int, socks: list[socket.socket]) -> None:
        """Accept from another slot's listeners, too, until :meth:`release`."""
        self.release(slot)
        if self._leaving:
            for sock in socks:
                sock.close()
            return
        self._adopted[slot] = socks
        self._budget.spend(len(socks))
        for sock in socks:
            self._acceptor.add(sock)

    def release(self, slot: int) -> None:
        """Close our duplicates; what is queued on them waits for whoever holds the others."""
        for sock in self._adopted.pop(slot, []):
            self._acceptor.remove(sock)
            sock.close()
            self._budget.give_back()

    def leave(self, *, accept_rest: bool, shut: bool) -> None:
        """Accept no more, and close our duplicates of all listeners.

        ``accept_rest``: nobody else will accept, so what is queued is taken first. ``shut``: nobody
        is to connect any more; it takes the sockets out of the kernel's group at once, whoever else
        holds them.
        """
        self._leaving = True
        self._update_taking()
        for sock in self._all_listeners():
            self._acceptor.remove(sock)
            if accept_rest:
                drain_queue(sock, self._acceptor.on_client, self._quota.room_by_descriptors)
            if shut:
                with contextlib.suppress(OSError):  # another worker was first
                    sock.shutdown(socket.SHUT_RD)
            sock.close()
            self._budget.give_back()
        self._leave_shared(accept_rest=accept_rest, shut=shut)
        self._listeners.clear()
        self._adopted.clear()
        self._empty_inbox()
        self._left = True

    def _leave_shared(self, *, accept_rest: bool, shut: bool) -> None:
        """The same for UNIX sockets: what is queued there can be accepted after a shutdown too."""
        for sock in self._shared:
            self._acceptor.remove(sock)
            if shut:
                with contextlib.suppress(OSError):  # another worker was first
                    sock.shutdown(socket.SHUT_RD)
            if accept_rest:
                drain_queue(sock, self._on_client, self._quota.room_by_descriptors)
            sock.close()
            self._budget.give_back()
        self._shared.clear()
        for sock in self._lent:  # who waits there is its service manager's to see to
            self._acceptor.remove(sock)
            sock.close()
            self._budget.give_back()
        self._lent.clear()

    def close(self) -> None:
        """At the very end: take what was in flight to us, close who is held back."""
        self._leaving = True
        self._update_taking()
        self._empty_inbox()
        self._quota.close()
        if self._rate_timer is not None:
            self._rate_timer.cancel()

    def _all_listeners(self) -> list[socket.socket]:
        return [*self._listeners, *(sock for each in self._adopted.values() for sock in each)]

    # -- clients ----------------------------------------------------------------------------

    def _screen(self, fd: int, peer: Any) -> None:
        """A new client while ``--allow`` is set; one that was handed over was screened before."""
        if self._sessions.headers_in.rules.admits_peer(peer):
            self._on_client(fd, peer)
        else:
            self._sessions.deny(fd, peer)

    def _on_client(self, fd: int, peer: Any) -> None:
        if self._rate is not None:
            self._count_client()
        handoff = self._handoff
        if (
            handoff.pays
            and not self._leaving  # at a stop the others leave as well
            and (slot := handoff.receiver(self._counters.sessions, time.monotonic_ns())) is not None
            and handoff.send(fd, slot)
        ):
            self._counters.handed_over += 1
        elif self._quota.max_sessions:
            self._quota.admit(fd)
        else:
            self._sessions.serve(fd, peer)
            self._publish_sessions()
        if self._quota.max_sessions:
            self._quota.served()

    def _set_rate(self, per_s: int) -> None:
        """Take at most so many clients a second, over all workers; 0 is any number."""
        if per_s == (self._rate.per_s if self._rate is not None else 0):
            return
        if self._rate_timer is not None:
            self._rate_timer.cancel()
            self._rate_timer = None
        self._rate = None
        if per_s:
            self._rate = RateLimit(per_s, self._scoreboard.accepted(), time.monotonic())
        self._quota.rate_limited = per_s > 0
        self._quota.rate_reached = False

    def _count_client(self) -> None:
        """One more came; leave the next one in the kernel's queue until its time has come."""
        self._scoreboard.count_client(self._row)
        if self._rate_timer is None and not self._leaving:
            self._wait_for_rate()

    def _wait_for_rate(self) -> None:
        """Accept if another client may come now, else look again when one may."""
        self._rate_timer = None
        if self._rate is None:
            return
        wait_s = self._rate.wait_s(self._scoreboard.accepted(), time.monotonic())
        self._quota.rate_reached = wait_s > 0
        if wait_s:
            self._rate_timer = self._loop.call_later(wait_s, self._wait_for_rate)
        else:
            self._acceptor.recheck()

    def _serve(self, fd: int) -> None:
        peer: SocketAddress | None = None
        if self._has_unix_clients and is_unix_socket(fd):
            peer = UNIX_PEER
        elif self._sessions.settings.access_log:
            peer = peer_of(fd)
        self._sessions.serve(fd, peer)
        self._publish_sessions()

    def session_ended(self) -> None:
        """One session is over: its place goes to whoever waited longest, here or elsewhere."""
        self._ended += 1
        self._publish_sessions()
        slot = self._quota.next_in_line()
        if slot is None or not self._handoff.offer_place(slot):
            self._acceptor.recheck()
            if self._quota.held_back:
                self._quota.serve_held_back()
        if self._left and self._counters.sessions == 0 and not self._quota.held_back:
            self._on_empty()

    def _publish_sessions(self) -> None:
        self._scoreboard.set_sessions(self._row, self._counters.sessions + self._received)

    # -- the slot, its inbox and the other slots --------------------------------------------

    def add_peer(self, slot: int, sock: socket.socket) -> None:
        """Clients may be handed over to that slot from now on, into the inbox behind ``sock``."""
        if self._handoff.add_peer(slot, sock):
            self._budget.spend()

    def tick(self, interval_s: float) -> None:
        """Once every ``interval_s``: show that we live, and look after what no event tells."""
        self._scoreboard.beat(self._row, time.monotonic_ns())
        self._publish_sessions()
        self._handoff.tick(self._ended, interval_s)
        self._ended = 0
        if self._quota.max_sessions:  # places that nobody offered us, and new clients
            self._use_places()
            self._note_waiting(time.monotonic_ns())
        else:
            self._quota.serve_held_back()
            self._acceptor.recheck()
        if self._inbox_full and self._quota.room_by_descriptors():
            self._inbox_full = False
            self._update_taking()

    def _update_taking(self) -> None:
        """Say whether clients may be handed to us, and read the inbox only then.

        While descriptors are short, those that are in flight wait there as others do in the
        kernel's queue. The successor in our slot reads the same inbox, and whatever waits.
        """
        short = self._acceptor.pause_reason not in (None, PauseReason.LIMIT)
        taking = self._knows_endpoints and not self._leaving and not short and not self._inbox_full
        self._scoreboard.set_accepting(self._row, taking)
        taking = taking and not self._handoff.cut_off  # else its end would wake us for ever
        if taking and not self._reading_inbox:
            self._loop.add_reader(self._inbox, self._on_inbox)
        elif self._reading_inbox and not taking:
            self._loop.remove_reader(self._inbox)
        self._reading_inbox = taking

    def _on_inbox(self) -> None:
        room = self._quota.room_by_descriptors()
        clients, offered = self._handoff.receive(room)
        self._received = len(clients)
        for fd in clients:
            os.set_blocking(fd, False)
            self._received -= 1
            self._quota.admit(fd)
        if self._handoff.lost:
            self._log.error("clients lost", sessions=self._handoff.lost, error=LOST)
            self._handoff.lost = 0
        if not room:
            self._inbox_full = True
            self._acceptor.pause(PauseReason.DESCRIPTORS)
        if self._inbox_full or self._handoff.cut_off:
            self._update_taking()
        if offered:
            self._use_places()

    def _empty_inbox(self) -> None:
        """Take who is in flight to us, unless another worker of the slot does."""
        if self._knows_endpoints and not self._scoreboard.has_taker(self._slot, beside=self._row):
            self._on_inbox()

    def _use_places(self) -> None:
        """Give a free place to a client held back here, else to one in the kernel's queue."""
        if self._quota.held_back:
            self._quota.serve_held_back()
            self._quota.served()
        self._acceptor.recheck()

    def _on_pause(self, reason: PauseReason, error: str) -> None:
        paused = self._counters.accept_paused
        paused[reason.value] = paused.get(reason.value, 0) + 1
        now_ns = time.monotonic_ns()
        if reason is PauseReason.LIMIT:
            self._note_waiting(now_ns)
            flag = "--max-session-rate" if self._quota.rate_reached else "--max-sessions"
            error = f"{flag} is reached: further clients wait"
        else:
            error = error or "the limit of open files is reached: further clients wait"
        self._update_taking()
        if self._quota.may_tell(now_ns):
            self._log.warn(
                "accepting paused",
                reason=reason.value,
                error=error,
                sessions=self._scoreboard.total_sessions(),
            )

    def _note_waiting(self, now_ns: int) -> None:
        """Keep our place in the line of workers whose clients wait for the limit."""
        limited = self._acceptor.pause_reason is PauseReason.LIMIT and not self._quota.rate_reached
        self._quota.note(limited and self._acceptor.has_clients(), now_ns)


def _open_files() -> tuple[int, int]:
    """The limit of open files of this process, and how many it has now."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = sys.maxsize if soft == resource.RLIM_INFINITY else soft
    try:
        return most, len(os.listdir("/proc/self/fd")) - 1  # but the one for looking
    except OSError:  # there is none for looking
        return most, sum(map(_is_open, range(min(most, _LOOKED_AT))))


def _is_open(fd: int) -> bool:
    try:
        fcntl.fcntl(fd, fcntl.F_GETFD)
    except OSError:
        return False
    return True
