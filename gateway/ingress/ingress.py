"""Where clients come in: a worker's listeners and its inbox, within the limits of sessions.

A client that is accepted here is served here, or handed to a less loaded worker, or held back
while the gateway is full.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable
from typing import Any

from gateway.core.counters import PauseReason, WorkerCounters
from gateway.core.descriptor_budget import DescriptorBudget
from gateway.core.log import Log
from gateway.core.messages import Settings
from gateway.ingress.accept_rate import AcceptRate
from gateway.ingress.acceptor import Acceptor
from gateway.ingress.freed_places import FreedPlaces
from gateway.ingress.handoff import Handoff
from gateway.ingress.inbox import Inbox
from gateway.ingress.listener_set import ListenerSet
from gateway.ingress.open_files import count_open_files
from gateway.ingress.quota import QUIET_NS, Quota
from gateway.poller import Poller
from gateway.scoreboard import STALE_NS
from gateway.sessions.register import Sessions
from gateway.tcp import peer_of, turn_away
from gateway.timer import Timer
from gateway.unix import UNIX_PEER, is_unix_socket
from gateway.worker_spec import WorkerSpec

LOOK_AGAIN_S = 0.005
"""How often a worker that is empty at a stop looks whether the others have heard of it."""

ON_THE_WAY_NS = STALE_NS
"""For how long it looks. Nobody begins to hand a client to us once the scoreboard says that we
leave, and who had begun is done by then, or hangs. Those that accept later belong to a master that
was started beside us, after a crash of ours."""

COUNT_AGAIN_NS = QUIET_NS
"""A pause that lasts counts once a minute: who looks at the last five must not take it for over."""


class Ingress:
    """Owns ``listeners`` and the clients held back; borrows the rest.

    Whoever made ``sessions`` sees to it that each end of one is told to :meth:`session_ended`.
    ``on_empty()``: after :meth:`leave`, the last client is gone.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        poller: Poller,
        spec: WorkerSpec,
        sessions: Sessions,
        counters: WorkerCounters,
        budget: DescriptorBudget,
        log: Log,
        *,
        on_empty: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._scoreboard = scoreboard = spec.scoreboard
        self._sessions = sessions
        self._counters = counters
        self._budget = budget
        self._log = log
        self._row = row = spec.row
        self._slot = spec.slot
        self._on_empty = on_empty
        self._freed = FreedPlaces(poller, log, self._give_place_away)
        self._handoff = Handoff(scoreboard, row=row, inbox=spec.inbox, peers=spec.peers)
        self._handoff.unix_clients = bool(spec.shared or spec.lent)
        self._quota = Quota(
            scoreboard,
            row=row,
            counters=counters,
            budget=budget,
            serve=self._serve,
            over=lambda: self._freed.waiting,
            closing=poller.closing,
            in_flight=self._handoff.in_flight,
            reclaim=sessions.relay.pipes.close_spare,
            close_client=turn_away,
        )
        self._inbox = Inbox(
            loop,
            spec.inbox,
            self._handoff,
            self._quota,
            log,
            on_place=self._use_places,
            on_change=self._on_inbox_change,
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
        self.listeners = ListenerSet(
            self._acceptor,
            budget,
            own=spec.listeners,
            shared=spec.shared,
            lent=spec.lent,
            room=self._quota.room_by_descriptors,
        )
        self._rate: AcceptRate | None = None
        self._pause_error = ""
        self._pause_counted_ns = 0
        self._knows_endpoints = False
        self._leaving = False
        self._left = False
        self._all_leave = False
        """Nobody else will take who is in flight to us when this process has ended."""
        self._leaving_since_ns = 0
        self._look_again = Timer(loop, self.end_if_empty)
        self._ended = 0
        scoreboard.enter(row, os.getpid())

    @property
    def empty(self) -> bool:
        """Nobody is served, and nobody waits to be."""
        return self._counters.sessions == 0 and not self._quota.held_back

    def clients_held_back(self) -> tuple[tuple[int, float], ...]:
        """Descriptors of the clients held back, which stay ours, and since when each waits."""
        return self._quota.clients_held_back()

    # -- from the first settings to the end -------------------------------------------------

    def apply(self, settings: Settings) -> None:
        """New settings; the endpoints of their snapshot are known to the sessions already."""
        self._knows_endpoints = True
        self._quota.max_sessions = settings.max_sessions
        self._acceptor.on_client = self._screen if settings.allow else self._on_client
        self.listeners.tune(settings)
        self._quota.serve_held_back()
        self._set_rate(settings.max_session_rate)
        self._acceptor.recheck()

    def start(self) -> None:
        """Accept, and take what others hand over."""
        self._budget.limit(*count_open_files())
        self.listeners.start()
        self._update_taking()

    def leave(self, *, accept_rest: bool, shut: bool) -> None:
        """Accept no more, and close our duplicates of all listeners, see :meth:`ListenerSet.close`.

        Clients that are served are left to the end of their sessions, and so are those that wait
        to be, unless a worker that stays takes them. Then ``on_empty`` is called. Ask for that with
        :meth:`end_if_empty`, too: there may be none.
        """
        self._leaving = True
        self._all_leave |= accept_rest
        self._update_taking()
        self._leaving_since_ns = time.monotonic_ns()
        self.listeners.close(accept_rest=accept_rest, shut=shut)
        self._empty_inbox()
        if not self._all_leave:
            self._quota.give_up_held_back(self._hand_to_stayer)
        self._left = True

    def serve_no_more(self) -> None:
        """Sessions are about to be cut: nobody who waits gets one of their places."""
        self._quota.closed = True

    def end_if_empty(self) -> None:
        """After :meth:`leave`: call ``on_empty()`` if nobody is served, waits to be, or may come.

        A worker that has not heard of a stop yet may be handing over a client to us.
        """
        if not self._left or not self.empty or self._inbox.serving:
            return
        now_ns = time.monotonic_ns()
        if (
            self._all_leave
            and now_ns - self._leaving_since_ns < ON_THE_WAY_NS
            and self._scoreboard.any_takes_clients(now_ns, beside=self._row)
        ):
            self._look_again.start(LOOK_AGAIN_S)
            return
        self._empty_inbox()
        if self.empty:
            self._on_empty()

    def close(self) -> None:
        """At the very end: take what was in flight to us, close who is held back."""
        self._look_again.stop()
        self._leaving = True
        self._update_taking()
        self._empty_inbox()
        if held_back := self._quota.held_back:
            self._quota.close()
            self._log.warn("clients turned away at the end", clients=held_back)
        if self._rate is not None:
            self._rate.close()

    # -- clients ----------------------------------------------------------------------------

    def _screen(self, fd: int, peer: Any) -> None:
        """A new client while ``--allow`` is set; one that was handed over was screened before."""
        try:
            admitted = self._sessions.headers_in.rules.admits_peer(peer)
        except Exception:
            turn_away(fd)
            raise
        if admitted:
            self._on_client(fd, peer)
        else:
            ended = self._ended
            self._sessions.deny(fd, peer)
            self._ended = ended  # it was not served, and tells nothing of how long sessions last

    def _on_client(self, fd: int, peer: Any) -> None:
        handoff = self._handoff
        try:
            if self._rate is not None:
                self._rate.count_client(accepting=not self._leaving)
            slot = None
            if handoff.pays and not self._leaving:  # at a stop the others leave as well
                slot = handoff.receiver(self._counters.sessions, time.monotonic_ns())
            handed_over = slot is not None and handoff.send(fd, slot, unix=peer is UNIX_PEER)
        except Exception:
            turn_away(fd)
            raise
        if handed_over:
            self._counters.handed_over += 1
            self._quota.served()
        elif self._quota.max_sessions:
            self._quota.admit(fd, peer)
        else:
            self._sessions.serve(fd, peer)
            self._publish_sessions()

    def _hand_to_stayer(self, fd: int) -> bool:
        """Hand a client over that would wait here in vain: places go to the workers that stay."""
        slot = self._handoff.stayer(time.monotonic_ns())
        if slot is None or not self._handoff.send(fd, slot, unix=self._is_unix_client(fd)):
            return False
        self._counters.handed_over += 1
        return True

    def _set_rate(self, per_s: int) -> None:
        """Take at most so many clients a second, over all workers; 0 is any number."""
        if per_s == (self._rate.per_s if self._rate is not None else 0):
            return
        if self._rate is not None:
            self._rate.close()
            self._rate = None
        if per_s:
            self._rate = AcceptRate(
                self._loop,
                self._scoreboard,
                row=self._row,
                per_s=per_s,
                quota=self._quota,
                recheck=self._acceptor.recheck,
            )

    def _serve(self, fd: int, peer: Any) -> None:
        try:
            if peer is None:  # another worker accepted the client
                if self._is_unix_client(fd):
                    peer = UNIX_PEER
                elif self._sessions.settings.access_log:
                    peer = peer_of(fd)
        except Exception:
            turn_away(fd)
            raise
        self._sessions.serve(fd, peer)
        self._publish_sessions()

    def _is_unix_client(self, fd: int) -> bool:
        return self._handoff.unix_clients and is_unix_socket(fd)

    def session_ended(self) -> None:
        """One session is over: its place is given away."""
        self._ended += 1
        if self._quota.max_sessions:
            self._freed.add()
        else:
            self._give_place_away()

    def _give_place_away(self) -> None:
        """To whoever waited longest, here or elsewhere."""
        self._publish_sessions()
        slot = self._quota.next_in_line(time.monotonic_ns()) if self._quota.max_sessions else None
        if slot is None or not self._handoff.offer_place(slot):
            if self._inbox.full:
                self._inbox.go_on()
            if self._acceptor.pause_reason is not None:  # a call less for each session
                self._acceptor.recheck()
            if self._quota.held_back:
                self._quota.serve_held_back()
        if self._left:
            self.end_if_empty()

    def _publish_sessions(self) -> None:
        sessions = self._counters.sessions + self._freed.waiting + self._inbox.received
        self._scoreboard.set_sessions(self._row, sessions)

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
        if self._inbox.unheard:
            self._update_taking()
        if self._inbox.full:
            self._inbox.go_on()
            self.end_if_empty()
        elif self._left:  # a worker that had not seen yet that we leave may have sent us one
            self._empty_inbox()
        self._use_places()  # also those that nobody offered us
        if self._quota.max_sessions:
            self._note_waiting(time.monotonic_ns())
        if self._acceptor.pause_reason is not None:
            self._count_lasting_pause(self._acceptor.pause_reason)

    def _count_lasting_pause(self, reason: PauseReason) -> None:
        now_ns = time.monotonic_ns()
        if now_ns - self._pause_counted_ns >= COUNT_AGAIN_NS and (
            self._quota.held_back or self._acceptor.has_clients()
        ):
            self._on_pause(reason, self._pause_error)

    def _update_taking(self) -> None:
        """Say whether clients may be handed to us, and read the inbox only then.

        While descriptors are short, those that are in flight wait there as others do in the
        kernel's queue. The successor in our slot reads the same inbox, and whatever waits.
        """
        short = self._acceptor.pause_reason not in (None, PauseReason.LIMIT)
        taking = self._knows_endpoints and not self._leaving and not short and not self._inbox.full
        self._scoreboard.set_accepting(self._row, self._inbox.watch(taking))

    def _on_inbox_change(self) -> None:
        if self._inbox.full:
            self._acceptor.pause(PauseReason.DESCRIPTORS)
        self._update_taking()

    def _empty_inbox(self) -> None:
        """Take who is in flight to us, unless another worker of the slot does."""
        if self._knows_endpoints and not self._scoreboard.has_taker(self._slot, beside=self._row):
            self._inbox.take()

    def _use_places(self) -> None:
        """Give a free place to a client held back here, else to one in the kernel's queue."""
        self._quota.serve_held_back()
        self._acceptor.recheck()

    def _on_pause(self, reason: PauseReason, error: str) -> None:
        paused = self._counters.accept_paused
        paused[reason.value] = paused.get(reason.value, 0) + 1
        self._pause_error = error
        self._pause_counted_ns = now_ns = time.monotonic_ns()
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
