"""Starts workers: what each is born with, and what becomes of one that cannot be started."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gateway.core.address import Address, tcp_only
from gateway.core.log import Log
from gateway.worker import WorkerStart
from supervisor.core.workers import commands
from supervisor.core.workers.worker_id import WorkerId
from supervisor.workers.fork import Birth, Child, fork_workers
from supervisor.workers.scoreboard_rows import ScoreboardRows
from supervisor.workers.slot_sockets import Sockets


@dataclass(frozen=True, slots=True, kw_only=True)
class Spawner:
    """Forks workers; owns nothing. ``restarts`` counts workers that were replaced, by reason."""

    listen: tuple[Address, ...]
    rows: ScoreboardRows
    sockets: Sockets
    log: Log
    entry: Callable[[WorkerStart], int]
    restarts: Counter[str]

    def spawn(
        self, spawns: Sequence[commands.Spawn], *, slots: int, pin: bool
    ) -> list[tuple[WorkerId, Child | OSError]]:
        """Fork these workers in one go; or why one could not be started.

        Their slots are open. ``pin``: each runs on the slot's CPU only.
        """
        for spawn in spawns:
            if spawn.reason != "start":
                self.restarts[spawn.reason] += 1
        births: list[Birth] = []
        started: list[tuple[WorkerId, Child | OSError]] = []
        for spawn in spawns:
            try:
                births.append(self._birth(spawn, slots=slots, pin=pin))
            except OSError as error:
                started.append((spawn.who, error))
        children = fork_workers(births)
        return started + [(birth.who, child) for birth, child in zip(births, children, strict=True)]

    def tell_failure(self, who: WorkerId, error: OSError) -> None:
        """One worker could not be started."""
        self.rows.take_back(who)
        self.log.error("cannot start worker", slot=who.slot, gen=who.gen, error=str(error))

    def _birth(self, spawn: commands.Spawn, *, slots: int, pin: bool) -> Birth:
        who = spawn.who
        slot = self.sockets[who.slot]
        return Birth(
            who=who,
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
            make_log=lambda who: self.log.bind(slot=who.slot, gen=who.gen, pid=os.getpid()),
            entry=self.entry,
        )


def _cpu_of(slot: int) -> int:
    """The slot's CPU among those that this process may use."""
    allowed = sorted(os.sched_getaffinity(0))
    return allowed[slot % len(allowed)]
