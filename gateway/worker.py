"""The worker: composition root of the data plane, entered in the forked child.

Life: bind (or inherit) the listeners, wait for the first snapshot, accept, and report about every
second; adopt and release other slots' listeners as the master says; drain and leave when it says
so, or when it died.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import time
import traceback
from dataclasses import dataclass
from typing import Any, assert_never

import setproctitle
import uvloop

from gateway.board import Board
from gateway.control import Control
from gateway.core import messages
from gateway.core.address import HostPort
from gateway.core.counters import End, WorkerCounters
from gateway.core.log import Log
from gateway.core.reports import report_of
from gateway.core.table import Table
from gateway.handoff import Handoff
from gateway.listener import Acceptor, drain_queue, open_listener, tune_listener
from gateway.poller import Poller
from gateway.quota import Quota
from gateway.sessions import Sessions
from gateway.tcp import borrowed

BEAT_INTERVAL_S = 0.1
"""How often a worker shows on the board that its loop turns; a hang is seen within three."""

REPORT_EVERY_BEATS = 10
"""Reports, which also are the heartbeat over the control socket: about one a second."""

CUT_LINGER_S = 0.05
"""After the last session was cut at the deadline, until the process ends: resets get out."""

_IGNORED_SIGNALS = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGPIPE,
)
"""Workers take no orders by signal: a terminal or ``pkill`` reaches the whole process group."""


@dataclass(slots=True, kw_only=True)
class WorkerStart:
    """What a worker is born with; it owns every descriptor in here.

    ``listen`` holds literal IPs, or "" for all interfaces. ``listeners``: inherited sockets in
    the order of ``listen``, or none: then the worker binds its own and sends Bound.
    ``exclusive``: the first worker of slot 0 makes sure that nobody else holds the addresses.
    ``peers``: sending ends of the other slots' inboxes. ``title``: what the process title shows
    between brackets.
    """

    slot: int
    gen: int
    slots: int
    listen: tuple[HostPort, ...]
    listeners: tuple[socket.socket, ...]
    exclusive: bool
    pipe_r: int
    control: socket.socket
    inbox: socket.socket
    peers: dict[int, socket.socket]
    board: Board
    cpu: int | None
    log: Log
    title: str


def run(start: WorkerStart) -> int:
    """Live a worker's whole life; returns the process's exit status."""
    for number in _IGNORED_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    setproctitle.setproctitle(f"etcd-gateway: worker {start.slot} [{start.title}]")
    if start.cpu is not None:
        os.sched_setaffinity(0, {start.cpu})
    # Sessions hold no cycles of their own: the collector finds next to nothing and each run of it
    # is a pause for every session of the worker.
    gc.set_threshold(100_000, 50, 100)
    loop = uvloop.new_event_loop()
    start.log.attach(loop)
    worker = Worker(start, loop)
    if not worker.listen():
        return 1
    loop.run_forever()
    return 0


class Worker:
    """Owns everything in ``start``, the poller, the sessions and the timers of one worker."""

    def __init__(self, start: WorkerStart, loop: asyncio.AbstractEventLoop) -> None:
        self._start = start
        self._loop = loop
        self._log = start.log
        self._board = start.board
        self._board.enter(start.slot, os.getpid())
        self._owns_slot = True
        self._listeners = list(start.listeners)
        self._adopted: dict[int, list[socket.socket]] = {}
        self._drain: messages.Drain | None = None
        self._finished = False
        self._cut = 0
        self._lag_s = 0.0
        self._beats = 0
        self._ended = 0
        loop.set_exception_handler(self._on_exception)
        self._control = Control(
            loop,
            pipe_r=start.pipe_r,
            sock=start.control,
            listeners=len(start.listen),
            on_message=self._on_message,
            on_orphaned=self._on_orphaned,
            on_garbage=lambda error: start.log.error("message not understood", error=error),
        )
        self._counters = WorkerCounters()
        self._table = Table(start.slot, start.slots)
        self._poller = Poller(loop)
        self._sessions = Sessions(
            loop,
            self._poller,
            self._table,
            self._counters,
            start.log,
            settings=messages.Settings(),
            on_dial_failed=self._on_dial_failed,
            on_dial_succeeded=lambda name: self._control.send(messages.DialSucceeded(name)),
            on_end=self._on_session_end,
        )
        self._acceptor = Acceptor(
            loop,
            self._poller,
            self._on_client,
            counters=self._counters,
            log=start.log,
            on_limit=self._on_limit,
        )
        self._handoff = Handoff(
            start.board,
            slot=start.slot,
            slots=start.slots,
            inbox=start.inbox,
            peers=start.peers,
        )
        self._quota = Quota(
            start.board,
            slot=start.slot,
            slots=start.slots,
            own=lambda: self._counters.sessions,
            serve=self._serve,
        )
        self._reading_inbox = False

    def listen(self) -> bool:
        """Bind unless the listeners were inherited; False: it could not be, the master knows."""
        if not self._listeners:
            try:
                for address in self._start.listen:
                    listener = open_listener(address, exclusive=self._start.exclusive)
                    self._listeners.append(listener)
            except OSError as error:
                self._control.send(messages.Failed("bind", error.strerror or str(error)))
                self._control.close()
                return False
            self._control.send(
                messages.Bound(len(self._listeners)), [sock.fileno() for sock in self._listeners]
            )
        self._beat_due_at = self._loop.time()
        self._beat()
        return True

    # -- orders from the master -------------------------------------------------------------

    def _on_message(self, message: messages.Down, fds: list[int]) -> None:
        match message:
            case messages.Snapshot():
                self._apply(message)
            case messages.Loads():
                self._table.loads(message)
            case messages.Drain():
                self._begin_drain(message)
            case messages.Adopt(slot):
                self._adopt(slot, [socket.socket(fileno=fd) for fd in fds])
            case messages.Release(slot):
                self._release(slot)
            case messages.Peer(slot):
                self._handoff.add_peer(slot, socket.socket(fileno=fds[0]))
                self._quota.set_slots(slot + 1)
            case _ as never:
                assert_never(never)

    def _apply(self, snapshot: messages.Snapshot) -> None:
        first = self._table.version == 0
        if not self._table.apply(snapshot):
            return
        self._log.set_level(snapshot.settings.log_level)
        self._sessions.apply(snapshot)
        self._quota.max_sessions = snapshot.settings.max_sessions
        for sock in self._all_listeners():
            tune_listener(sock, snapshot.settings)
        self._acceptor.limit = self._quota.limit
        self._quota.admit_parked()
        if first and self._drain is None:
            self._read_inbox(self._check_owner())
            for sock in self._listeners:
                self._acceptor.add(sock)
            self._board.set_accepting(self._start.slot, True)
            self._control.send(messages.Ready(snapshot.version))
            self._report()

    def _adopt(self, slot: int, socks: list[socket.socket]) -> None:
        self._release(slot)
        if self._drain is not None:
            for sock in socks:
                sock.close()
            return
        self._adopted[slot] = socks
        for sock in socks:
            self._acceptor.add(sock)

    def _release(self, slot: int) -> None:
        """Close our duplicates; what is queued on them waits for whoever holds the others."""
        for sock in self._adopted.pop(slot, []):
            self._acceptor.remove(sock)
            sock.close()

    # -- clients ----------------------------------------------------------------------------

    def _on_client(self, fd: int, peer: Any) -> None:
        handoff = self._handoff
        if (
            handoff.pays
            and self._drain is None  # at a stop the others leave as well
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
                self._board.set_sessions(self._start.slot, self._counters.sessions)

    def _on_inbox(self) -> None:
        if self._table.version == 0:
            return  # what waits there is for a worker that knows the endpoints
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
        """A place may be free: for the parked first, then for who waits in the kernel's queue."""
        if self._quota.parked:
            self._quota.admit_parked()
            self._quota.served()
        self._acceptor.limit = self._quota.limit

    def _on_limit(self) -> None:
        now_ns = time.monotonic_ns()
        self._note_waiting(now_ns)
        if self._quota.may_tell(now_ns):
            limit = "--max-sessions" if self._quota.max_sessions else "the limit of open files"
            self._log.warn(
                "accepting paused",
                error=f"{limit} is reached: further clients wait",
                sessions=sum(self._board.sessions(self._start.slots)),
            )

    def _note_waiting(self, now_ns: int) -> None:
        """Keep our place in the line of slots whose clients wait for the limit."""
        if self._owns_slot:
            waiting = self._acceptor.limited and self._acceptor.has_clients()
            self._quota.note(waiting, now_ns)

    def _serve(self, fd: int) -> None:
        self._sessions.serve(fd, _peer_of(fd) if self._sessions.settings.access_log else None)
        if self._owns_slot:
            self._board.set_sessions(self._start.slot, self._counters.sessions)

    def _on_session_end(self) -> None:
        self._ended += 1
        if self._owns_slot:
            self._board.set_sessions(self._start.slot, self._counters.sessions)
        slot = self._quota.next_in_line()
        if slot is None or not self._handoff.give_turn(slot):
            self._acceptor.ended()
            if self._quota.parked:
                self._quota.admit_parked()
        if self._drain is not None and self._counters.sessions == 0 and not self._quota.parked:
            self._finish()

    def _on_dial_failed(self, endpoint: str, address: str, result: str, error: str) -> None:
        self._control.send(messages.DialFailed(endpoint, address, result, error))

    # -- heartbeat --------------------------------------------------------------------------

    def _beat(self) -> None:
        if self._finished:
            return
        now = self._loop.time()
        self._lag_s = max(self._lag_s, now - self._beat_due_at)
        self._beat_due_at = now + BEAT_INTERVAL_S
        self._loop.call_at(self._beat_due_at, self._beat)
        if self._check_owner():
            self._read_inbox(self._table.version > 0)
            self._board.beat(self._start.slot, time.monotonic_ns())
            self._board.set_sessions(self._start.slot, self._counters.sessions)
        self._handoff.tick(self._ended, BEAT_INTERVAL_S)
        self._ended = 0
        if self._quota.max_sessions:  # what no turn told us: places that others left, new clients
            self._take_turn()
            self._note_waiting(time.monotonic_ns())
        self._beats += 1
        if self._beats % REPORT_EVERY_BEATS == 0:
            self._report()

    def _read_inbox(self, reading: bool) -> None:
        """The inbox is its slot owner's; where a successor died it becomes ours again."""
        reading = reading and not self._handoff.cut_off  # else its end would wake us for ever
        if reading and not self._reading_inbox:
            self._loop.add_reader(self._start.inbox, self._on_inbox)
        elif self._reading_inbox and not reading:
            self._loop.remove_reader(self._start.inbox)
        self._reading_inbox = reading

    def _check_owner(self) -> bool:
        """Whether the slot's cells and inbox are still ours; a successor takes them over."""
        self._owns_slot = self._board.is_owner(self._start.slot, os.getpid())
        return self._owns_slot

    def _report(self) -> None:
        self._sessions.settle()
        self._table.reported()
        self._counters.log_dropped = self._log.dropped
        self._control.send(
            report_of(
                self._counters,
                snapshot_version=self._table.version,
                loop_lag_s=max(self._lag_s, 0.0),
                rss_bytes=_rss_bytes(),
            )
        )
        self._sessions.reported()
        self._lag_s = 0.0

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
        again = self._drain is not None
        self._drain = drain
        if not again:
            setproctitle.setproctitle(
                f"etcd-gateway: worker {self._start.slot} [{self._start.title}] draining"
            )
            if self._check_owner():
                self._board.set_accepting(self._start.slot, False)
        self._leave_listeners(accept_rest or drain.close_listeners, shut=drain.close_listeners)
        self._on_inbox()
        if self._counters.sessions == 0:
            self._finish()
        elif drain.deadline_s <= 0:
            self._cut_sessions()
        else:
            self._loop.call_later(drain.deadline_s, self._on_deadline, drain)

    def _leave_listeners(self, accept_rest: bool, *, shut: bool) -> None:
        """Close our duplicates; ``accept_rest``: nobody else will accept, so take what is queued.

        ``shut``: nobody is to connect any more. It takes the socket out of the kernel's group at
        once, whoever else holds it.
        """
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

    def _all_listeners(self) -> list[socket.socket]:
        return [*self._listeners, *(sock for each in self._adopted.values() for sock in each)]

    def _on_deadline(self, drain: messages.Drain) -> None:
        if self._drain is drain:  # else a later order moved the deadline
            self._cut_sessions()

    def _cut_sessions(self) -> None:
        self._cut = self._counters.sessions
        self._sessions.cut_all(End.DRAINED)
        if not self._finished:
            self._finish()

    def _finish(self) -> None:
        if self._finished:
            return
        self._finished = True
        self._on_inbox()
        self._quota.close()
        if self._counters.sessions:  # one was in flight to us
            self._sessions.cut_all(End.DRAINED)
        self._report()
        self._control.send(messages.Drained(self._cut))
        self._loop.call_later(CUT_LINGER_S if self._cut else 0.0, self._leave)

    def _leave(self) -> None:
        self._sessions.close()
        self._control.close()
        self._log.close()
        self._loop.stop()

    def _on_exception(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """A bug must cost one event, not the worker and all its sessions."""
        error = context.get("exception")
        self._log.error(
            "internal error",
            error=repr(error or context.get("message")),
            trace="".join(traceback.format_exception(error))[-2000:] if error else "",
        )


def _rss_bytes() -> int:
    with open("/proc/self/statm", "rb") as statm:
        return int(statm.read().split()[1]) * _PAGE_BYTES


def _peer_of(fd: int) -> Any:
    with borrowed(fd) as sock:
        try:
            return sock.getpeername()
        except OSError:  # the client is gone already
            return ("", 0)


_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
