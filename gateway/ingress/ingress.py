"""Where clients come in: a worker's listeners and its inbox, within the limits of sessions.

A client that is accepted here is served here, or handed to a less loaded worker, or held back
while the gateway is full.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

from gateway.core.address import HostPort
from gateway.core.counters import WorkerCounters
from gateway.core.log import Log
from gateway.core.messages import Settings
from gateway.core.rate import RateLimit
from gateway.ingress.handoff import Handoff
from gateway.ingress.listener import Acceptor, drain_queue, open_listener, tune_listener
from gateway.ingress.quota import Quota
from gateway.poller import Poller
from gateway.scoreboard import Scoreboard
from gateway.sessions.register import Sessions
from gateway.tcp import borrowed

RATE = "rate"
"""Why accepting is paused: --max-session-rate."""


class Ingress:
    """Owns the listeners, the slot's own and adopted ones, and the held_back; borrows the rest.

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
        log: Log,
        *,
        slot: int,
        slots: int,
        listeners: Sequence[socket.socket],
        inbox: socket.socket,
        peers: dict[int, socket.socket],
        on_empty: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._scoreboard = scoreboard
        self._sessions = sessions
        self._counters = counters
        self._log = log
        self._slot = slot
        self._slots = slots
        self._listeners = list(listeners)
        self._inbox = inbox
        self._on_empty = on_empty
        self._adopted: dict[int, list[socket.socket]] = {}
        self._acceptor = Acceptor(
            loop, poller, self._on_client, counters=counters, log=log, on_limit=self._on_limit
        )
        self._handoff = Handoff(scoreboard, slot=slot, slots=slots, inbox=inbox, peers=peers)
        self._quota = Quota(
            scoreboard, slot=slot, slots=slots, own=lambda: counters.sessions, serve=self._serve
        )
        self._rate: RateLimit | None = None
        self._rate_timer: asyncio.TimerHandle | None = None
        self._owns_slot = True
        self._knows_endpoints = False
        self._reading_inbox = False
        self._leaving = False
        self._left = False
        self._ended = 0
        scoreboard.enter(slot, os.getpid())

    @property
    def empty(self) -> bool:
        """Nobody is served, and nobody waits to be."""
        return self._counters.sessions == 0 and not self._quota.held_back

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
        for sock in self._all_listeners():
            tune_listener(sock, settings)
        self._acceptor.limit = self._quota.limit
        self._quota.serve_held_back()
        self._set_rate(settings.max_session_rate)

    def start(self) -> None:
        """Accept, and take what others hand over."""
        self._read_inbox(self._check_owner())
        for sock in self._listeners:
            self._acceptor.add(sock)
        self._scoreboard.set_accepting(self._slot, True)

    def adopt(self, slot: int, socks: list[socket.socket]) -> None:
        """Accept from another slot's listeners, too, until :meth:`release`."""
        self.release(slot)
        if self._leaving:
            for sock in socks:
                sock.close()
            return
        self._adopted[slot] = socks
        for sock in socks:
            self._acceptor.add(sock)

    def release(self, slot: int) -> None:
        """Close our duplicates; what is queued on them waits for whoever holds the others."""
        for sock in self._adopted.pop(slot, []):
            self._acceptor.remove(sock)
            sock.close()

    def leave(self, *, accept_rest: bool, shut: bool) -> None:
        """Accept no more, and close our duplicates of all listeners.

        ``accept_rest``: nobody else will accept, so what is queued is taken first. ``shut``: nobody
        is to connect any more; it takes the sockets out of the kernel's group at once, whoever else
        holds them.
        """
        self._leaving = True
        if self._check_owner():
            self._scoreboard.set_accepting(self._slot, False)
        for sock in self._all_listeners():
            self._acceptor.remove(sock)
            if accept_rest:
                drain_queue(sock, self._on_client)
            if shut:
                with contextlib.suppress(OSError):  # another worker was first
                    sock.shutdown(socket.SHUT_RD)
            sock.close()
        self._listeners.clear()
        self._adopted.clear()
        self._on_inbox()
        self._left = True

    def close(self) -> None:
        """At the very end: take what was in flight to us, turn away who is held_back."""
        self._on_inbox()
        self._quota.close()
        if self._rate_timer is not None:
            self._rate_timer.cancel()

    def _all_listeners(self) -> list[socket.socket]:
        return [*self._listeners, *(sock for each in self._adopted.values() for sock in each)]

    # -- clients ----------------------------------------------------------------------------

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
            if self._quota.max_sessions:
                self._quota.served()
                self._acceptor.limit = self._quota.limit
        elif self._quota.max_sessions:
            self._quota.admit(fd)
            self._quota.served()
            self._acceptor.limit = self._quota.limit
        else:
            self._sessions.serve(fd, peer)
            if self._owns_slot:
                self._scoreboard.set_sessions(self._slot, self._counters.sessions)

    def _set_rate(self, per_s: int) -> None:
        """Take at most so many clients a second, over all workers; 0 is any number."""
        if per_s == (self._rate.per_s if self._rate is not None else 0):
            return
        if self._rate_timer is not None:
            self._rate_timer.cancel()
            self._rate_timer = None
        self._rate = None
        if per_s:
            accepted = self._scoreboard.accepted(self._slots)
            self._rate = RateLimit(per_s, accepted, time.monotonic())
        self._acceptor.resume(RATE)

    def _count_client(self) -> None:
        """One more came; leave the next one in the kernel's queue until its time has come."""
        if self._owns_slot:
            self._scoreboard.count_client(self._slot)
        if self._rate_timer is None and not self._leaving:
            self._wait_for_rate()

    def _wait_for_rate(self) -> None:
        """Accept if another client may come now, else look again when one may."""
        self._rate_timer = None
        if self._rate is None:
            return
        wait_s = self._rate.wait_s(self._scoreboard.accepted(self._slots), time.monotonic())
        if not wait_s:
            self._acceptor.resume(RATE)
            return
        self._acceptor.pause(RATE)
        self._rate_timer = self._loop.call_later(wait_s, self._wait_for_rate)
        self._tell_limit("--max-session-rate")

    def _serve(self, fd: int) -> None:
        self._sessions.serve(fd, _peer_of(fd) if self._sessions.settings.access_log else None)
        if self._owns_slot:
            self._scoreboard.set_sessions(self._slot, self._counters.sessions)

    def session_ended(self) -> None:
        """One session is over: its place goes to whoever waited longest, here or elsewhere."""
        self._ended += 1
        if self._owns_slot:
            self._scoreboard.set_sessions(self._slot, self._counters.sessions)
        slot = self._quota.next_in_line()
        if slot is None or not self._handoff.give_turn(slot):
            self._acceptor.ended()
            if self._quota.held_back:
                self._quota.serve_held_back()
        if self._left and self._counters.sessions == 0 and not self._quota.held_back:
            self._on_empty()

    # -- the slot, its inbox and the other slots --------------------------------------------

    def add_peer(self, slot: int, sock: socket.socket) -> None:
        """Clients may be handed over to that slot from now on, into the inbox behind ``sock``."""
        self._handoff.add_peer(slot, sock)
        self._quota.set_slots(slot + 1)

    def tick(self, interval_s: float) -> None:
        """Once every ``interval_s``: show that we live, and look after what no event tells."""
        if self._check_owner():
            self._read_inbox(self._knows_endpoints)
            self._scoreboard.beat(self._slot, time.monotonic_ns())
            self._scoreboard.set_sessions(self._slot, self._counters.sessions)
        self._handoff.tick(self._ended, interval_s)
        self._ended = 0
        if self._quota.max_sessions:  # what no turn told us: places that others left, new clients
            self._take_turn()
            self._note_waiting(time.monotonic_ns())

    def _check_owner(self) -> bool:
        """Whether the slot's cells and inbox are still ours; a successor takes them over."""
        self._owns_slot = self._scoreboard.is_owner(self._slot, os.getpid())
        return self._owns_slot

    def _read_inbox(self, reading: bool) -> None:
        """The inbox is its slot owner's; where a successor died it becomes ours again."""
        reading = reading and not self._handoff.cut_off  # else its end would wake us for ever
        if reading and not self._reading_inbox:
            self._loop.add_reader(self._inbox, self._on_inbox)
        elif self._reading_inbox and not reading:
            self._loop.remove_reader(self._inbox)
        self._reading_inbox = reading

    def _on_inbox(self) -> None:
        if not self._knows_endpoints:
            return  # what waits there is for a worker that does
        if not self._check_owner():
            self._read_inbox(False)
            return
        fds, turn = self._handoff.receive()
        for fd in fds:
            os.set_blocking(fd, False)
            self._quota.admit(fd)
        self._handoff.received_are_served()
        if self._handoff.cut_off:
            self._read_inbox(False)
        if turn:
            self._take_turn()

    def _take_turn(self) -> None:
        """Give a free place to a client held back here, else to one in the kernel's queue."""
        if self._quota.held_back:
            self._quota.serve_held_back()
            self._quota.served()
        self._acceptor.limit = self._quota.limit

    def _on_limit(self) -> None:
        self._note_waiting(time.monotonic_ns())
        self._tell_limit(
            "--max-sessions" if self._quota.max_sessions else "the limit of open files"
        )

    def _tell_limit(self, limit: str) -> None:
        if self._quota.may_tell(time.monotonic_ns()):
            self._log.warn(
                "accepting paused",
                error=f"{limit} is reached: further clients wait",
                sessions=sum(self._scoreboard.sessions(self._slots)),
            )

    def _note_waiting(self, now_ns: int) -> None:
        """Keep our place in the line of slots whose clients wait for the limit."""
        if self._owns_slot:
            waiting = self._acceptor.limited and self._acceptor.has_clients()
            self._quota.note(waiting, now_ns)


def _peer_of(fd: int) -> Any:
    with borrowed(fd) as sock:
        try:
            return sock.getpeername()
        except OSError:  # the client is gone already
            return ("", 0)
