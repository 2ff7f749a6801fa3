"""The crew: carries out what the fleet decides, with real processes, sockets and pipes.

Owns the slots' listeners and inboxes, the workers' channels and the board.
Everything that happens becomes an event for the fleet at :meth:`Crew._feed`, and every command of
the fleet is carried out at :meth:`Crew._perform`.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, assert_never

from gateway.board import Board
from gateway.core import messages, wire
from gateway.core.address import HostPort
from gateway.core.log import Log
from gateway.worker import WorkerStart, run
from supervisor.channel import Channel, close_quietly, receive
from supervisor.core import orders
from supervisor.core.config import Config
from supervisor.core.fleet import (
    EXIT_CRASH_LOOP,
    GIVING_UP,
    STILLBORN_MOST,
    TICK_S,
    Fleet,
    Phase,
)
from supervisor.core.life import IllegalTurnError, Life
from supervisor.core.orders import WorkerId
from supervisor.core.slot import Limits, Worker
from supervisor.core.status import WorkerState, WorkerView
from supervisor.estate import Estate, listener_name, worker_names
from supervisor.process import Birth, Child, fork_workers
from supervisor.store import NO_STORE, Store

HANGS = "worker hangs"
GOES_ON = "worker goes on"
HANG_TOLD_AFTER_S = 1.0
"""Others accept in its place much earlier; the log is spared what a busy host does to all."""

EXPECTED_ADDRESS = "in --listen-addr an address of this host on which no other program listens"

_SHOWN = {
    Life.STARTING: WorkerState.STARTING,
    Life.READY: WorkerState.READY,
    # No word of its own in the contract: a slot whose worker hangs is not live.
    Life.HUNG: WorkerState.STARTING,
    Life.DRAINING: WorkerState.DRAINING,
    Life.DYING: WorkerState.DRAINING,
}


_OneByOne = (
    orders.Kill
    | orders.Retire
    | orders.Adopt
    | orders.Release
    | orders.Announce
    | orders.Shut
    | orders.Finish
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Handlers:
    """Whom the crew tells; all are called on the loop and must not block.

    ``on_message`` gets every message of every worker, after the crew has seen to it.
    ``on_end`` is the last call: no worker is left (or the next master has them).
    """

    on_message: Callable[[int, int, messages.Up], None]
    on_ready: Callable[[], None]
    on_worker_gone: Callable[[int, int, messages.Report | None], None]
    on_change: Callable[[], None]
    on_end: Callable[[int], None]


@dataclass(slots=True)
class _Slot:
    """What the master holds of a slot as long as it lives; all of it is inherited by workers."""

    inbox_r: socket.socket
    inbox_w: socket.socket
    listeners: tuple[socket.socket, ...] = ()


@dataclass(slots=True)
class _Hand:
    """One live worker: its process, its channel and what it said last."""

    child: Child
    channel: Channel
    report: messages.Report | None = None
    version: int = 0
    heard_at: float | None = None
    beat_ns: int = 0
    told_why: bool = field(default=False)
    """Whether the log says already why it ends, other than by ``exit 0``."""
    told_hang: bool = False


class Crew:
    """All workers of one gateway. Methods never block; ``entry`` is what a child runs."""

    def __init__(
        self,
        config: Config,
        listen: tuple[HostPort, ...],
        log: Log,
        handlers: Handlers,
        *,
        slots: int,
        estate: Estate | None = None,
        store: Store = NO_STORE,
        entry: Callable[[WorkerStart], int] = run,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._config = config
        self._listen = listen
        self._log = log
        self._handlers = handlers
        self._wanted = slots
        self._store = store
        self._entry = entry
        self._estate = estate if estate is not None else Estate()
        self._estate.settle(listen)
        for name in self._estate.dropped:
            store.remove(name)
        self._board = Board(self._estate.board)
        self._fleet = Fleet(_limits(config), now=self._loop.time())
        self._slots: dict[int, _Slot] = {}
        self._hands: dict[WorkerId, _Hand] = {}
        self._alive: set[WorkerId] = set()
        self._events: deque[orders.Event] = deque()
        self._stepping = False
        self._snapshot = b""
        self._stranded: deque[tuple[int, bytes, int]] = deque()
        self._ticker: asyncio.TimerHandle | None = None
        self.restarts: Counter[str] = Counter()
        """Workers that were replaced, by reason, since the master's start."""

    # What the master asks for

    def start(self, snapshot: messages.Snapshot) -> None:
        """Fork the workers; ``on_ready`` follows once every slot is filled."""
        self._snapshot = wire.encode(snapshot)
        wire.prepare()
        # What exists now is for good. Else each full collection would write to all of it, and the
        # workers' shared copy of it would be a second one.
        gc.freeze()
        store = self._store
        store.keep("board", self._board.fd)
        for index in sorted(self._estate.slots):
            self._inherit(index)
        for index in range(self._wanted):
            self._slot(index)
        for hand in self._hands.values():
            hand.channel.send(self._snapshot, messages.Snapshot)
        self._feed(orders.Start(self._wanted, self._estate.left()))
        self._tick()

    def push(self, snapshot: messages.Snapshot) -> None:
        """Send a newer snapshot to every worker; those to come get it at birth."""
        self._snapshot = wire.encode(snapshot)
        for hand in self._hands.values():
            hand.channel.send(self._snapshot, messages.Snapshot)

    def push_loads(self, loads: messages.Loads) -> None:
        """Send Loads to every worker; a slow one gets the newest only."""
        line = wire.encode(loads)
        for hand in self._hands.values():
            hand.channel.send(line, messages.Loads)

    def resize(self, by: int) -> int:
        """So many workers more or fewer; returns how many there are to be now."""
        self._feed(orders.Resize(by))
        return self._fleet.wanted

    def renew(self, reason: str) -> None:
        """Replace every worker; the replacements accept before the old ones stop."""
        self._feed(orders.Renew(reason))

    def reconfigure(self, config: Config) -> None:
        """Take over what a reload may change: timeouts and ages (not the number of workers)."""
        self._config = config
        self._fleet.limits = _limits(config)

    def drain(self, deadline_s: float) -> None:
        """Stop for good; ``on_end`` follows when the last worker left."""
        self._feed(orders.Drain(deadline_s))

    def stop_now(self) -> None:
        """Stop for good; sessions are cut, not waited for."""
        self._feed(orders.Stop())

    def leave(self) -> None:
        """Go and let the workers go on: the store holds what the next master needs."""
        self._feed(orders.Leave())

    # What the master may look at

    @property
    def board(self) -> Board:
        return self._board

    @property
    def wanted(self) -> int:
        """How many workers there are to be."""
        return self._fleet.wanted

    @property
    def all_live(self) -> bool:
        """Whether every slot's own worker accepts and its heartbeats come in time."""
        return all(slot.serving for slot in self._fleet.slots if slot.wanted)

    @property
    def any_live(self) -> bool:
        """Whether at least one worker is alive and not late."""
        return any(slot.serving for slot in self._fleet.slots)

    def listener_inodes(self) -> set[int]:
        """Of all listening sockets that are ours."""
        return {
            os.fstat(sock.fileno()).st_ino
            for slot in self._slots.values()
            for sock in slot.listeners
        }

    def view(self) -> tuple[WorkerView, ...]:
        """All workers, and the slots that wait for one, by slot and generation.

        What a worker served in all is in the books of the master, not here.
        """
        views = [self._view_of(worker) for worker in self._fleet.workers()]
        views += [
            WorkerView(slot=slot.index, gen=slot.gen, pid=None, state=WorkerState.BACKOFF)
            for slot in self._fleet.slots
            if slot.wanted and slot.occupant is None and self._fleet.phase is Phase.RUNNING
        ]
        return tuple(sorted(views, key=lambda view: (view.slot, view.gen)))

    def _view_of(self, worker: Worker) -> WorkerView:
        hand = self._hands.get(worker.who)
        heard_at = hand.heard_at if hand is not None else None
        report = hand.report if hand is not None else None
        return WorkerView(
            slot=worker.who.slot,
            gen=worker.who.gen,
            pid=hand.child.pid if hand is not None else None,
            state=_SHOWN[worker.life],
            snapshot_version=hand.version if hand is not None else 0,
            heartbeat_age_s=None if heard_at is None else max(self._loop.time() - heard_at, 0.0),
            hangs=worker.life is Life.HUNG,
            report=report,
        )

    # Events in, commands out

    def _feed(self, event: orders.Event) -> None:
        """One event at a time: what carrying out a command brings about waits its turn."""
        self._events.append(event)
        if self._stepping:
            return
        self._stepping = True
        try:
            while self._events:
                event = self._events.popleft()
                try:
                    commands = self._fleet.step(event, self._loop.time())
                except IllegalTurnError as error:
                    self._condemn(event, str(error))
                    continue
                self._perform(commands)
                if commands or not isinstance(event, orders.Tick):
                    self._handlers.on_change()
        finally:
            self._stepping = False

    def _perform(self, commands: Sequence[orders.Command]) -> None:
        """In their order; spawns that follow each other are one."""
        spawns: list[orders.Spawn] = []
        for command in commands:
            if isinstance(command, orders.Spawn):
                spawns.append(command)
                continue
            if spawns:
                self._spawn(spawns)
                spawns = []
            self._carry_out(command)
        if spawns:
            self._spawn(spawns)

    def _carry_out(self, command: _OneByOne) -> None:
        match command:
            case orders.Kill(who, reason):
                if hand := self._hands.get(who):
                    hand.told_why = hand.told_why or reason == GIVING_UP
                    level = self._log.debug if reason == GIVING_UP else self._log.warn
                    level(
                        "killing worker", slot=who.slot, gen=who.gen, pid=hand.child.pid, why=reason
                    )
                    hand.child.kill()
            case orders.Retire(who, deadline_s, close_listeners):
                if hand := self._hands.get(who):
                    drain = messages.Drain(deadline_s, close_listeners)
                    hand.channel.send(wire.encode(drain), messages.Drain)
            case orders.Adopt(by, slot):
                if hand := self._hands.get(by):
                    self._log.debug("adopting listeners", slot=by.slot, gen=by.gen, of_slot=slot)
                    listeners = self._slots[slot].listeners
                    hand.channel.pass_down(
                        messages.Adopt(slot), [sock.fileno() for sock in listeners]
                    )
            case orders.Release(by, slot):
                if hand := self._hands.get(by):
                    hand.channel.pass_down(messages.Release(slot))
            case orders.Announce():
                self._handlers.on_ready()
            case orders.Shut():
                self._shut()
            case orders.Finish(code):
                self._finish(code)
            case _:
                assert_never(command)

    def _tick(self) -> None:
        """Collect signs of life; the board's tell of hangs long before the reports would."""
        now = self._loop.time()
        self._ticker = self._loop.call_at(now + TICK_S, self._tick)
        for slot in self._fleet.slots:
            hand = self._hands.get(slot.occupant.who) if slot.occupant is not None else None
            if hand is not None and (beat_ns := self._board.beat_ns(slot.index)) != hand.beat_ns:
                hand.beat_ns, hand.heard_at = beat_ns, now
                self._alive.add(slot.occupant.who)  # type: ignore[union-attr]
            if slot.adopter is not None:
                self._rescue(slot.index, slot.adopter.slot)
        alive, self._alive = self._alive, set()
        self._feed(orders.Tick(tuple(alive)))
        for slot in self._fleet.slots:
            if slot.occupant is not None and (hand := self._hands.get(slot.occupant.who)):
                silent_s = now - slot.occupant.beat_at
                self._tell_hang(
                    slot.occupant.who, hand, slot.hangs and silent_s > HANG_TOLD_AFTER_S
                )

    def _tell_hang(self, who: WorkerId, hand: _Hand, hangs: bool) -> None:
        if hangs != hand.told_hang:
            hand.told_hang = hangs
            tell, msg = (self._log.warn, HANGS) if hangs else (self._log.info, GOES_ON)
            tell(msg, slot=who.slot, gen=who.gen, pid=hand.child.pid)

    # Workers

    def _slot(self, index: int) -> _Slot:
        """The slot; a new one is made known to the workers that live already."""
        if index not in self._slots:
            inbox_r, inbox_w = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self._adopt_slot(index, _Slot(inbox_r, inbox_w))
            for who, hand in self._hands.items():
                if who.slot != index:
                    hand.channel.pass_down(messages.Peer(index), [inbox_w.fileno()])
        return self._slots[index]

    def _adopt_slot(self, index: int, slot: _Slot) -> None:
        self._slots[index] = slot
        if self._config.handover:
            self._store.keep(f"inbox-r.{index}", slot.inbox_r.fileno())
            self._store.keep(f"inbox-w.{index}", slot.inbox_w.fileno())

    def _spawn(self, spawns: Sequence[orders.Spawn]) -> None:
        """Fork these workers in one go."""
        for spawn in spawns:  # each is born with the inboxes of all
            self._slot(spawn.who.slot)
            if spawn.reason != "start":
                self.restarts[spawn.reason] += 1
        births = [self._birth(spawn.who, exclusive=spawn.exclusive) for spawn in spawns]
        for spawn, child in zip(spawns, fork_workers(births), strict=True):
            who = spawn.who
            if isinstance(child, OSError):
                error = str(child)
                self._log.error("cannot start worker", slot=who.slot, gen=who.gen, error=error)
                self._feed(orders.Exited(who))
            else:
                self._watch(who, child)
                self._hands[who].channel.send(self._snapshot, messages.Snapshot)

    def _birth(self, who: WorkerId, *, exclusive: bool) -> Birth:
        slot = self._slots[who.slot]
        return Birth(
            who=who,
            slots=max(self._fleet.wanted, 1),
            listen=self._listen,
            listeners=slot.listeners,
            exclusive=exclusive,
            inbox=slot.inbox_r,
            peers={i: each.inbox_w for i, each in self._slots.items() if i != who.slot},
            board=self._board,
            cpu=_cpu_of(who.slot) if self._config.pin_workers else None,
            title=",".join(map(str, self._listen)),
            make_log=lambda who: self._log.bind(slot=who.slot, gen=who.gen, pid=os.getpid()),
            entry=self._entry,
        )

    def _watch(self, who: WorkerId, child: Child, *, inherited: bool = False) -> None:
        channel = Channel(
            self._loop,
            pipe_w=child.pipe_w,
            control=child.control,
            on_message=lambda message, fds: self._on_message(who, message, fds),
            on_broken=lambda reason: self._on_broken(who, reason),
            inherited=inherited,
        )
        # A beat of the predecessor in this slot is no sign of life of this one.
        hand = _Hand(child, channel, beat_ns=self._board.beat_ns(who.slot))
        self._hands[who] = hand
        self._loop.add_reader(child.pidfd, self._on_exit, who)

    def _on_message(self, who: WorkerId, message: messages.Up, fds: list[int]) -> None:
        hand = self._hands[who]
        self._alive.add(who)
        hand.heard_at = self._loop.time()
        match message:
            case messages.Bound():
                self._on_bound(who, fds)
            case messages.Ready(snapshot_version):
                hand.version = snapshot_version
                if self._config.handover:
                    kept = (child := hand.child).control.fileno(), child.pipe_w, child.pidfd
                    for name, fd in zip(worker_names(who), kept, strict=True):
                        self._store.keep(name, fd)
                self._log.info("worker ready", slot=who.slot, gen=who.gen, pid=hand.child.pid)
                self._feed(orders.Ready(who))
            case messages.Failed(reason, error):
                hand.told_why = True
                hint = {"expected": EXPECTED_ADDRESS} if reason == "bind" else {}
                self._log.error(
                    "worker cannot start",
                    slot=who.slot,
                    gen=who.gen,
                    reason=reason,
                    error=error,
                    **hint,
                )
                self._feed(orders.Failed(who, reason))
            case messages.Report():
                hand.report, hand.version = message, message.snapshot_version
            case messages.DialFailed() | messages.DialSucceeded() | messages.Drained():
                pass
            case _:
                assert_never(message)
        self._handlers.on_message(who.slot, who.gen, message)

    def _on_bound(self, who: WorkerId, fds: list[int]) -> None:
        slot = self._slots[who.slot]
        if slot.listeners or len(fds) != len(self._listen):
            close_quietly(fds)
            self._on_broken(who, f"Bound with {len(fds)} listeners, not expected")
            return
        slot.listeners = tuple(socket.socket(fileno=fd) for fd in fds)
        for index, fd in enumerate(fds):
            self._store.keep(listener_name(who.slot, index), fd)
        self._feed(orders.Bound(who))

    def _on_broken(self, who: WorkerId, reason: str) -> None:
        """The two ends disagree about the protocol: that is a bug, and the worker has to go."""
        if hand := self._hands.get(who):
            self._log.error("worker breaks the protocol", slot=who.slot, gen=who.gen, error=reason)
            hand.child.kill()

    def _condemn(self, event: orders.Event, reason: str) -> None:
        if isinstance(event, orders.Ready):
            self._on_broken(event.who, reason)

    def _on_exit(self, who: WorkerId) -> None:
        hand = self._hands[who]
        self._loop.remove_reader(hand.child.pidfd)
        hand.channel.drain()
        hand.channel.close()
        how = hand.child.reap()
        os.close(hand.child.pidfd)
        del self._hands[who]
        self._alive.discard(who)
        if self._config.handover:
            for name in worker_names(who):
                self._store.remove(name)
        expected = how in ("exit 0", "gone") or hand.told_why
        level = self._log.info if expected else self._log.warn
        level("worker exited", slot=who.slot, gen=who.gen, pid=hand.child.pid, how=how)
        self._handlers.on_worker_gone(who.slot, who.gen, hand.report)
        self._feed(orders.Exited(who))
        if self._slots:  # else that was the last one, and everything is closed
            self._give_cells(who.slot, hand.child.pid)

    def _give_cells(self, index: int, gone_pid: int) -> None:
        """Whose the slot's cells on the board are, now that their owner is gone."""
        if not self._board.is_owner(index, gone_pid):
            return  # a leaver: a successor that is still starting keeps what it entered
        occupant = self._fleet.slots[index].occupant
        if occupant is None:
            self._board.leave(index)
            return
        hand = self._hands.get(occupant.who)
        if occupant.life is not Life.READY or hand is None:
            return
        # Its successor had entered, and died before it was ready.
        self._board.enter(index, hand.child.pid)
        self._board.set_accepting(index, True)

    def _rescue(self, index: int, to: int) -> None:
        """Accepted sockets in the inbox of a slot without a live worker go to its adopter's."""
        slot = self._slots[index]
        with contextlib.suppress(BlockingIOError):
            while True:
                data, fds = receive(slot.inbox_r, 128, 1)
                if not data and not fds:
                    break
                self._board.took(index)
                self._stranded.extend((index, data, fd) for fd in fds)
        while self._stranded:
            origin, data, fd = self._stranded[0]
            try:
                socket.send_fds(
                    self._slots[to].inbox_w, [data], [fd], socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
                )
            except OSError:
                return
            self._board.put(origin, to)
            os.close(fd)
            self._stranded.popleft()

    # The beginning and the end

    def _inherit(self, index: int) -> None:
        """Take one slot's descriptors over from the estate."""
        left = self._estate.slots[index]
        if left.inbox_r is not None and left.inbox_w is not None:
            inbox_r, inbox_w = (
                socket.socket(fileno=left.inbox_r),
                socket.socket(fileno=left.inbox_w),
            )
        else:
            inbox_r, inbox_w = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listeners = tuple(socket.socket(fileno=fd) for _, fd in sorted(left.listeners.items()))
        self._slots[index] = _Slot(inbox_r, inbox_w, listeners)
        pids = {}
        for who, child in self._estate.children(index):
            self._watch(who, child, inherited=True)
            pids[who.gen] = child.pid
        serving = max(set(pids) - left.leaving, default=None)
        if serving is not None and self._board.owner(index) not in pids.values():
            # A worker that was starting when the master before us died had entered the slot.
            self._board.enter(index, pids[serving])
            self._board.set_accepting(index, True)

    def _shut(self) -> None:
        """Nobody is to connect any more, whoever else still holds a duplicate."""
        for index, slot in self._slots.items():
            for number, sock in enumerate(slot.listeners):
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RD)
                sock.close()
                self._store.remove(listener_name(index, number))
            slot.listeners = ()

    def _finish(self, code: int) -> None:
        if code == EXIT_CRASH_LOOP:
            self._log.error(
                "giving up, workers keep dying before they are ready", attempts=STILLBORN_MOST
            )
        self.close()
        self._handlers.on_end(code)

    def close(self) -> None:
        """Give every descriptor back; workers that live read the end of their pipe (or go on,
        if somebody else holds it)."""
        if self._ticker is not None:
            self._ticker.cancel()
        for hand in self._hands.values():
            self._loop.remove_reader(hand.child.pidfd)
            hand.channel.close()
            os.close(hand.child.pidfd)
        self._hands.clear()
        for slot in self._slots.values():
            for sock in (*slot.listeners, slot.inbox_r, slot.inbox_w):
                sock.close()
        self._slots.clear()
        close_quietly([fd for _, _, fd in self._stranded])
        self._stranded.clear()
        self._board.close()

    def heirlooms(self) -> dict[str, int]:
        """Everything the next master needs, by name; descriptors stay ours. For ``execve``.

        Workers that are still starting are left out: kill them (:meth:`kill_unready`) first.
        """
        named = {"board": self._board.fd}
        for index, slot in self._slots.items():
            named[f"inbox-r.{index}"] = slot.inbox_r.fileno()
            named[f"inbox-w.{index}"] = slot.inbox_w.fileno()
            for number, sock in enumerate(slot.listeners):
                named[listener_name(index, number)] = sock.fileno()
        for worker in self._fleet.workers():
            hand = self._hands.get(worker.who)
            if hand is not None and worker.life is not Life.STARTING:
                kept = hand.child.control.fileno(), hand.child.pipe_w, hand.child.pidfd
                named |= dict(zip(worker_names(worker.who), kept, strict=True))
        return named

    def facts(self) -> dict[str, Any]:
        """What the next master has to know beside the descriptors; JSON."""
        return {
            "wanted": self._fleet.wanted,
            "gens": [[slot.index, slot.gen] for slot in self._fleet.slots],
            "leaving": [
                [worker.who.slot, worker.who.gen]
                for worker in self._fleet.workers()
                if worker.life in (Life.DRAINING, Life.DYING)
            ],
        }

    def kill_unready(self) -> None:
        """Kill the workers that are still starting: the next master forks its own."""
        for worker in list(self._fleet.workers()):
            if worker.life is Life.STARTING and (hand := self._hands.get(worker.who)):
                hand.child.kill()


def _limits(config: Config) -> Limits:
    return Limits(
        worker_timeout_s=config.worker_timeout_s,
        drain_timeout_s=config.drain_timeout_s,
        max_age_s=config.worker_max_age_s,
    )


def _cpu_of(slot: int) -> int:
    """The slot's CPU among those that this process may use."""
    allowed = sorted(os.sched_getaffinity(0))
    return allowed[slot % len(allowed)]
