"""The worker: composition root of the data plane, entered in the forked child.

Life: bind (or inherit) the listeners, wait for the first snapshot, accept, and report about every
second; adopt and release other slots' listeners as the master says; drain and leave when it says
so, or when it died.
"""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import traceback
from typing import Any, assert_never

import uvloop

from gateway.control import Control
from gateway.core import messages
from gateway.core.counters import End, WorkerCounters
from gateway.core.descriptor_budget import DescriptorBudget
from gateway.core.log import Log
from gateway.core.outcome import EXHAUSTED
from gateway.core.records import dataclass
from gateway.core.table import Table
from gateway.heartbeat import Heartbeat
from gateway.ingress.ingress import Ingress
from gateway.poller import Poller
from gateway.process_title import set_title
from gateway.sessions.listing import SessionListing
from gateway.sessions.register import Sessions
from gateway.worker_spec import WorkerSpec

CUT_LINGER_S = 0.05
"""After the last session was cut at the deadline, until the process ends: resets get out."""

UNREAD_S = 0.5
"""How long a process that ends waits for the master to read how it ended.

Half of STOP_MARGIN_S: the master kills workers that have not ended then."""

LOOK_AGAIN_S = 0.005
"""How often it looks whether the master has."""


@dataclass(frozen=True, slots=True)
class WorkerStart:
    """What a worker is born with; it owns every descriptor in here, and its ends of the channel."""

    spec: WorkerSpec
    pipe_r: int
    control: socket.socket
    log: Log


def run(start: WorkerStart) -> int:
    """Live a worker's whole life; returns the process's exit status."""
    spec = start.spec
    set_title(f"worker {spec.slot}", spec.title)
    if spec.cpu is not None:
        os.sched_setaffinity(0, {spec.cpu})
    # Sessions hold no cycles of their own: the collector finds next to nothing and each run of it
    # is a pause for every session of the worker.
    gc.set_threshold(100_000, 50, 100)
    loop = uvloop.new_event_loop()
    start.log.attach(loop)
    worker = Worker(start, loop)
    if not worker.listen():
        return 1
    loop.run_forever()
    return 0 if worker.ready else 1


class Worker:
    """Makes the parts of one worker, owns everything in ``start``, and obeys the master."""

    def __init__(self, start: WorkerStart, loop: asyncio.AbstractEventLoop) -> None:
        self._spec = spec = start.spec
        self._loop = loop
        self._log = start.log
        self._drain: messages.Drain | None = None
        self.ready = False
        self._finished = False
        self._drained_before: int | None = None
        """Sessions that ended with ``drained`` before this drain cut the first one."""
        loop.set_exception_handler(self._on_exception)
        self._control = Control(
            loop,
            pipe_r=start.pipe_r,
            sock=start.control,
            on_message=self._on_message,
            on_orphaned=self._on_orphaned,
            on_lost=self._on_lost,
            on_garbage=lambda error: start.log.error("message not understood", error=error),
        )
        self._counters = counters = WorkerCounters()
        budget = DescriptorBudget(counters)
        self._table = Table(spec.slot, spec.slots)
        poller = self._poller = Poller(loop)
        self._sessions = Sessions(
            loop,
            poller,
            self._table,
            counters,
            budget,
            start.log,
            settings=messages.Settings(),
            on_end=self._on_session_end,
            on_dial_failed=lambda *what: self._control.send(messages.DialFailed(*what)),
            on_dial_succeeded=lambda *place: self._control.send(messages.DialSucceeded(*place)),
        )
        self._ingress = Ingress(
            loop,
            poller,
            spec,
            self._sessions,
            counters,
            budget,
            start.log,
            on_empty=self._finish,
        )
        self._listing = SessionListing(
            loop,
            sessions=self._sessions.all,
            held_back=self._ingress.clients_held_back,
            send=self._control.send,
        )
        self._heartbeat = Heartbeat(
            loop,
            ingress=self._ingress,
            sessions=self._sessions,
            table=self._table,
            counters=counters,
            control=self._control,
            log=start.log,
        )

    def listen(self) -> bool:
        """Bind unless the listeners were inherited; False: it could not be, the master knows."""
        if not self._spec.listeners:
            try:
                fds = self._ingress.listeners.bind(
                    self._spec.listen, exclusive=self._spec.exclusive
                )
            except OSError as error:
                reason = "start" if error.errno in EXHAUSTED else "bind"
                self._control.send(messages.Failed(reason, error.strerror or str(error)))
                self._control.close()
                return False
            self._control.send(messages.Bound(len(fds)), fds)
        self._heartbeat.start()
        return True

    # -- messages from the master -----------------------------------------------------------

    def _on_message(self, message: messages.Down, fds: list[int]) -> None:
        match message:
            case messages.Snapshot():
                self._apply(message)
            case messages.Loads():
                self._table.take_loads(message)
            case messages.GiveUp(endpoints, older_than_s, towards):
                self._table.direct(towards)
                self._sessions.give_up(endpoints, older_than_s)
            case messages.ListSessions():
                self._listing.tell_rows(message)
            case messages.DescribeSessions():
                self._listing.tell_details(message)
            case messages.Drain():
                self._begin_drain(message)
            case messages.Adopt(slot):
                self._ingress.listeners.adopt(slot, [socket.socket(fileno=fd) for fd in fds])
            case messages.Release(slot):
                self._ingress.listeners.release(slot)
            case messages.Peer(slot):
                self._ingress.add_peer(slot, socket.socket(fileno=fds[0]))
            case _ as never:
                assert_never(never)

    def _on_lost(self, message: messages.Down | messages.Up) -> None:
        """We had no room for what came with a message: the master is to send it again."""
        match message:
            case messages.Adopt(slot) | messages.Peer(slot):
                kind = type(message).__name__
                self._log.warn("no descriptor left for a message", message=kind, of_slot=slot)
                self._control.send(messages.Missed(kind, slot))
            case _:
                pass  # nothing else comes with descriptors

    def _apply(self, snapshot: messages.Snapshot) -> None:
        before = self._table.snapshot
        if not self._table.apply(snapshot):
            return
        self._log.set_level(snapshot.settings.log_level)
        self._sessions.apply(snapshot)
        self._ingress.apply(snapshot.settings)
        if before is not None:
            if before.without_health() != snapshot.without_health():
                self._heartbeat.hasten()  # a reload waits for it
        elif self._drain is None:
            self._ingress.start()
            self.ready = True
            self._control.send(messages.Ready(snapshot.version))
            self._heartbeat.report()

    def _on_session_end(self) -> None:
        self._ingress.session_ended()

    # -- the end ----------------------------------------------------------------------------

    def _on_orphaned(self) -> None:
        """The master died: nobody will fill our slot again, so the listen address goes with us.

        Unless a service manager keeps duplicates for the next master: so nothing is shut down.
        """
        snapshot = self._table.snapshot
        deadline_s = snapshot.settings.drain_timeout_s if snapshot else 0.0
        self._log.warn("master is gone, draining", deadline_s=deadline_s)
        self._begin_drain(messages.Drain(deadline_s), accept_rest=True)

    def _begin_drain(self, drain: messages.Drain, *, accept_rest: bool = False) -> None:
        if self._finished:
            return
        if self._drain is None:
            set_title(f"worker {self._spec.slot}", self._spec.title, "draining")
        self._drain = drain
        try:
            self._ingress.leave(
                accept_rest=accept_rest or drain.close_listeners, shut=drain.close_listeners
            )
        finally:  # a worker that could not leave in order has an end all the same
            self._await_end(drain)

    def _await_end(self, drain: messages.Drain) -> None:
        if drain.deadline_s <= 0:
            if self._ingress.empty:
                self._finish()
            else:
                self._cut_sessions()
        else:
            spread_s = min(self._sessions.settings.close_spread_s, drain.deadline_s / 4)
            self._loop.call_later(drain.deadline_s - spread_s, self._begin_cuts, drain, spread_s)
            self._loop.call_later(drain.deadline_s, self._on_deadline, drain)
            self._ingress.end_if_empty()

    def _begin_cuts(self, drain: messages.Drain, spread_s: float) -> None:
        """The deadline is near: cut a little earlier, so that not all clients come back at once."""
        if self._drain is drain and not self._finished:
            self._note_cuts_from_now_on()
            self._ingress.serve_no_more()
            self._sessions.cut_over(spread_s, End.DRAINED)

    def _on_deadline(self, drain: messages.Drain) -> None:
        if self._drain is drain:  # else a later order moved the deadline
            self._cut_sessions()

    def _cut_sessions(self) -> None:
        self._note_cuts_from_now_on()
        self._finish()

    def _note_cuts_from_now_on(self) -> None:
        if self._drained_before is None:
            self._drained_before = self._counters.ended.get(End.DRAINED, 0)

    def _count_cuts(self) -> int:
        return self._counters.ended.get(End.DRAINED, 0) - (self._drained_before or 0)

    def _finish(self) -> None:
        if self._finished:
            return
        self._finished = True
        # First: whatever fails below, the process ends.
        cutting = self._drained_before is not None
        linger_s = CUT_LINGER_S if cutting else 0.0
        self._loop.call_later(linger_s, self._leave_when_read, self._loop.time() + UNREAD_S)
        self._note_cuts_from_now_on()
        self._heartbeat.stop()
        # Before the cuts: who is held back would be dialed for, in the places of those who are cut.
        self._ingress.close()
        if self._counters.sessions:  # at the deadline; or one was in flight to us
            self._sessions.cut_all(End.DRAINED)
        # Before the report, which may be larger than the socket has room for.
        self._control.send(messages.Drained(self._count_cuts()))
        self._heartbeat.report()

    def _leave_when_read(self, latest_at: float) -> None:
        """Leave when all that was said fits into the control socket, at ``latest_at`` in any case.

        What fits is read by the master when we have ended.
        """
        if self._control.waiting() and self._loop.time() < latest_at:
            self._loop.call_later(LOOK_AGAIN_S, self._leave_when_read, latest_at)
        else:
            self._leave()

    def _leave(self) -> None:
        self._loop.stop()  # when what runs now is done, or has failed
        self._sessions.close()
        self._listing.close()
        self._control.close()
        self._heartbeat.close()
        self._poller.shut()
        self._log.close()

    def _on_exception(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """A bug must cost one event, not the worker and all its sessions."""
        error = context.get("exception")
        self._log.error(
            "internal error",
            error=repr(error or context.get("message")),
            trace="".join(traceback.format_exception(error))[-2000:] if error else "",
        )
        if not self.ready and self._drain is None and not self._finished:
            # It has no client and may never be ready; the next worker may.
            self._finished = True
            self._control.send(messages.Failed("start", repr(error)))
            self._leave()
