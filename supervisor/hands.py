"""The crew's hands: the live workers, each with its process, its channel and what it said last."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from gateway.board import Board
from gateway.core import messages
from gateway.core.log import Log
from supervisor.channel import Channel
from supervisor.core.fleet import GIVING_UP
from supervisor.core.life import Life
from supervisor.core.orders import WorkerId
from supervisor.core.slot import Worker
from supervisor.core.status import WorkerState, WorkerView
from supervisor.estate import worker_names
from supervisor.process import Child
from supervisor.store import Store

HANGS = "worker hangs"
GOES_ON = "worker goes on"

_SHOWN = {
    Life.STARTING: WorkerState.STARTING,
    Life.READY: WorkerState.READY,
    # Not live, so no state of its own; ``hangs`` says the rest.
    Life.HUNG: WorkerState.STARTING,
    Life.DRAINING: WorkerState.DRAINING,
    Life.DYING: WorkerState.DRAINING,
}


@dataclass(slots=True)
class Hand:
    """One live worker; its owner is :class:`Hands`."""

    child: Child
    channel: Channel
    report: messages.Report | None = None
    version: int = 0
    heard_at: float | None = None
    beat_ns: int = 0
    told_why: bool = False
    """Whether the log says already why it ends, other than by ``exit 0``."""
    told_hang: bool = False

    def descriptors(self, who: WorkerId) -> dict[str, int]:
        """What another master needs to have this worker, by name."""
        kept = self.child.control.fileno(), self.child.pipe_w, self.child.pidfd
        return dict(zip(worker_names(who), kept, strict=True))


class Hands:
    """Owns the processes and channels of all live workers, until they are reaped or :meth:`close`.

    ``on_message(who, message, fds)`` owns the descriptors it is given.
    ``on_exit(who, hand)`` is called when a worker is reaped and its descriptors are closed.
    ``store`` keeps what the next master needs to have a worker that is ready.
    """

    def __init__(
        self,
        log: Log,
        board: Board,
        store: Store,
        *,
        on_message: Callable[[WorkerId, messages.Up, list[int]], None],
        on_exit: Callable[[WorkerId, Hand], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._log = log
        self._board = board
        self._store = store
        self._on_message = on_message
        self._on_exit = on_exit
        self._hands: dict[WorkerId, Hand] = {}
        self._alive: set[WorkerId] = set()

    def __getitem__(self, who: WorkerId) -> Hand:
        return self._hands[who]

    def find(self, who: WorkerId) -> Hand | None:
        """None if it was reaped, or never was."""
        return self._hands.get(who)

    def take(self, who: WorkerId, child: Child, *, inherited: bool = False) -> Hand:
        """Own a worker from now on."""
        channel = Channel(
            self._loop,
            pipe_w=child.pipe_w,
            control=child.control,
            on_message=lambda message, fds: self._hear(who, message, fds),
            on_broken=lambda reason: self.condemn(who, reason),
            inherited=inherited,
        )
        # A beat of the predecessor in this slot is no sign of life of this one.
        hand = Hand(child, channel, beat_ns=self._board.beat_ns(who.slot))
        self._hands[who] = hand
        self._loop.add_reader(child.pidfd, self._reap, who)
        return hand

    def keep(self, who: WorkerId) -> None:
        """Have the store keep what the next master needs."""
        for name, fd in self[who].descriptors(who).items():
            self._store.keep(name, fd)

    def tell_all(self, line: bytes, kind: type) -> None:
        """Send an encoded message to every worker; a slow one gets the newest of a kind only."""
        for hand in self._hands.values():
            hand.channel.send(line, kind)

    def introduce(self, slot: int, inbox_w: socket.socket) -> None:
        """Make a new slot's inbox known to the workers of the others."""
        for who, hand in self._hands.items():
            if who.slot != slot:
                hand.channel.pass_down(messages.Peer(slot), [inbox_w.fileno()])

    def kill(self, who: WorkerId, reason: str) -> None:
        if hand := self._hands.get(who):
            hand.told_why = hand.told_why or reason == GIVING_UP
            level = self._log.debug if reason == GIVING_UP else self._log.warn
            level("killing worker", slot=who.slot, gen=who.gen, pid=hand.child.pid, why=reason)
            hand.child.kill()

    def condemn(self, who: WorkerId, reason: str) -> None:
        """The two ends disagree about the protocol: that is a bug, and the worker has to go."""
        if hand := self._hands.get(who):
            self._log.error("worker breaks the protocol", slot=who.slot, gen=who.gen, error=reason)
            hand.child.kill()

    def collect_alive(self, occupants: Iterable[WorkerId]) -> tuple[WorkerId, ...]:
        """Who gave a sign of life since the last call.

        The occupants' beats on the board tell of hangs long before missing reports would.
        """
        for who in occupants:
            hand = self._hands.get(who)
            if hand is not None and (beat_ns := self._board.beat_ns(who.slot)) != hand.beat_ns:
                hand.beat_ns, hand.heard_at = beat_ns, self._loop.time()
                self._alive.add(who)
        alive, self._alive = self._alive, set()
        return tuple(alive)

    def tell_hang(self, who: WorkerId, hangs: bool) -> None:
        """Log that a worker hangs, or goes on; once each."""
        hand = self._hands.get(who)
        if hand is None or hangs == hand.told_hang:
            return
        hand.told_hang = hangs
        tell, msg = (self._log.warn, HANGS) if hangs else (self._log.info, GOES_ON)
        tell(msg, slot=who.slot, gen=who.gen, pid=hand.child.pid)

    def view(self, worker: Worker) -> WorkerView:
        """What the fleet knows of a worker, and what it said itself."""
        hand = self._hands.get(worker.who)
        heard_at = hand.heard_at if hand is not None else None
        return WorkerView(
            slot=worker.who.slot,
            gen=worker.who.gen,
            pid=hand.child.pid if hand is not None else None,
            state=_SHOWN[worker.life],
            snapshot_version=hand.version if hand is not None else 0,
            heartbeat_age_s=None if heard_at is None else max(self._loop.time() - heard_at, 0.0),
            hangs=worker.life is Life.HUNG,
            report=hand.report if hand is not None else None,
        )

    def close(self) -> None:
        """Let go; workers that live read the end of their pipe (or go on, if somebody else holds
        it)."""
        for hand in self._hands.values():
            self._loop.remove_reader(hand.child.pidfd)
            hand.channel.close()
            os.close(hand.child.pidfd)
        self._hands.clear()

    def _hear(self, who: WorkerId, message: messages.Up, fds: list[int]) -> None:
        hand = self._hands[who]
        hand.heard_at = self._loop.time()
        self._alive.add(who)
        match message:
            case messages.Ready(snapshot_version):
                hand.version = snapshot_version
            case messages.Report():
                hand.report, hand.version = message, message.snapshot_version
        self._on_message(who, message, fds)

    def _reap(self, who: WorkerId) -> None:
        hand = self._hands[who]
        self._loop.remove_reader(hand.child.pidfd)
        hand.channel.drain()
        hand.channel.close()
        how = hand.child.reap()
        os.close(hand.child.pidfd)
        del self._hands[who]
        self._alive.discard(who)
        for name in worker_names(who):
            self._store.remove(name)
        expected = how in ("exit 0", "gone") or hand.told_why
        level = self._log.info if expected else self._log.warn
        level("worker exited", slot=who.slot, gen=who.gen, pid=hand.child.pid, how=how)
        self._on_exit(who, hand)
