"""Starts workers: what each is born with, and what becomes of one that cannot be started."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence

from gateway.core import messages
from gateway.core.address import Address, tcp_only
from gateway.core.log import Log
from gateway.core.records import dataclass
from gateway.worker import WorkerStart
from gateway.worker_spec import WorkerSpec
from supervisor.core.workers import commands
from supervisor.core.workers.worker_id import WorkerId
from supervisor.system.limits import describe_shortage
from supervisor.workers.fork import Child, fork_workers
from supervisor.workers.handles import WorkerHandles
from supervisor.workers.scoreboard_rows import ScoreboardRows
from supervisor.workers.slot_sockets import Sockets


@dataclass(frozen=True, slots=True, kw_only=True)
class Spawner:
    """Forks workers and gives them to ``handles``; owns nothing.

    ``entry`` is what a child runs. ``restarts`` counts workers that were replaced, by reason.
    """

    listen: tuple[Address, ...]
    rows: ScoreboardRows
    sockets: Sockets
    handles: WorkerHandles
    log: Log
    entry: Callable[[WorkerStart], int]
    restarts: Counter[str]

    def open_slot(self, index: int) -> None:
        """Open a slot that is not open, and make its inbox known to the live workers.

        OSError: the host has no descriptors left for it.
        """
        if index not in self.sockets:
            self.sockets.open(index)
            self.handles.introduce(index, self.sockets[index].inbox_w)

    def spawn(
        self, spawns: Sequence[commands.Spawn], *, slots: int, pin: bool, snapshot: bytes
    ) -> list[tuple[WorkerId, OSError]]:
        """Fork these workers in one go, and send each ``snapshot``; those that did not start.

        ``slots``: how many workers there are to be. ``pin``: each runs on its slot's CPU only.
        """
        failed: list[tuple[WorkerId, OSError]] = []
        ready: list[commands.Spawn] = []
        for spawn in spawns:  # each is born with the inboxes of all
            try:
                self.open_slot(spawn.who.slot)
            except OSError as error:
                failed.append((spawn.who, error))
            else:
                ready.append(spawn)
        for who, child in self._fork(ready, slots=slots, pin=pin):
            if isinstance(child, OSError):
                failed.append((who, child))
                continue
            try:
                handle = self.handles.take(who, child)
            except OSError as error:
                failed.append((who, error))
            else:
                handle.channel.send(snapshot, messages.Snapshot)
        for who, why in failed:
            self.rows.take_back(who)
            text = describe_shortage(why)
            self.log.error("cannot start worker", slot=who.slot, gen=who.gen, error=text)
        return failed

    def _fork(
        self, spawns: Sequence[commands.Spawn], *, slots: int, pin: bool
    ) -> list[tuple[WorkerId, Child | OSError]]:
        """Each worker's process, or why it has none."""
        for spawn in spawns:
            if spawn.reason != "start":
                self.restarts[spawn.reason] += 1
        specs: list[WorkerSpec] = []
        forked: list[tuple[WorkerId, Child | OSError]] = []
        for spawn in spawns:
            try:
                specs.append(self._spec_of(spawn, slots=slots, pin=pin))
            except OSError as error:
                forked.append((spawn.who, error))
        children = fork_workers(specs, make_log=self._make_log, entry=self.entry)
        started = [WorkerId(spec.slot, spec.gen) for spec in specs]
        return forked + list(zip(started, children, strict=True))

    def _spec_of(self, spawn: commands.Spawn, *, slots: int, pin: bool) -> WorkerSpec:
        who = spawn.who
        slot = self.sockets[who.slot]
        return WorkerSpec(
            slot=who.slot,
            gen=who.gen,
            slots=max(slots, 1),
            listen=tcp_only(self.listen),
            listeners=slot.listeners,
            shared=self.sockets.shared.socks,
            lent=self.sockets.shared.lent,
            exclusive=spawn.exclusive,
            inbox=slot.inbox_r,
            peers=self.sockets.peers_of(who.slot),
            scoreboard=self.rows.scoreboard,
            row=self.rows.give(who),
            cpu=_cpu_of(who.slot) if pin else None,
            title=",".join(map(str, self.listen)),
        )

    def _make_log(self, spec: WorkerSpec) -> Log:
        """In the child: its lines say who writes them."""
        return self.log.bind(slot=spec.slot, gen=spec.gen, pid=os.getpid())


def _cpu_of(slot: int) -> int:
    """The slot's CPU among those that this process may use."""
    allowed = sorted(os.sched_getaffinity(0))
    return allowed[slot % len(allowed)]
