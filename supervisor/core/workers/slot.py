"""What the fleet knows of one slot and of one worker, and the rules that concern only one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field

from gateway.core.records import dataclass
from supervisor.core.backoff import doubled_s
from supervisor.core.workers import events
from supervisor.core.workers.worker_id import WorkerId
from supervisor.core.workers.worker_state import WorkerState

LATE_AFTER_S = 0.3
"""Three heartbeats of 0.1 s: with the tick and the adoption, clients wait for less than 0.5 s."""
SILENT_AFTER_S = 0.15
"""A worker from which nothing came for this long has missed a heartbeat, and is looked at often."""
ADOPT_AFTER_S = 0.1
"""A respawn at once takes 20 to 50 ms and needs no adoption."""
BACKOFF_FIRST_S, BACKOFF_MOST_S = 0.1, 2.0
"""Clients of a gateway without a live worker wait for at most this long; a fork every two seconds
is cheap."""
KILL_MARGIN_S = 2.0
"""A draining worker cuts its sessions at the deadline itself; after this long it is killed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What of the configuration decides about workers, in seconds; ``max_age_s`` 0 is off."""

    worker_timeout_s: float = 30.0
    drain_timeout_s: float = 30.0
    max_age_s: float = 0.0

    @property
    def late_after_s(self) -> float:
        return min(LATE_AFTER_S, self.worker_timeout_s / 2)


@dataclass(slots=True)
class Worker:
    """One process; instants are of the monotonic clock.

    ``since``: its fork, or when it was taken over. ``beat_at``: its last sign of life, in the
    future while a report holds. ``due_at``: when one that drains is killed. ``stale`` says why it
    is to be replaced; empty if it is not.
    """

    who: WorkerId
    since: float
    beat_at: float
    state: WorkerState = WorkerState.STARTING
    ready_at: float | None = None
    due_at: float | None = None
    killed_at: float | None = None
    stale: str = ""

    def shift(self, by_s: float) -> None:
        self.since += by_s
        self.beat_at += by_s
        self.ready_at = None if self.ready_at is None else self.ready_at + by_s
        self.due_at = None if self.due_at is None else self.due_at + by_s
        self.killed_at = None if self.killed_at is None else self.killed_at + by_s


@dataclass(slots=True)
class Slot:
    """A worker's place.

    ``successor`` is starting to replace ``occupant``; ``draining`` drain or die.
    ``adopter`` accepts from the slot's listeners while it has no live worker of its own, which it
    has not had since ``unserved_at``; before ``adopt_at`` nobody is asked to.
    ``wanted``: whether there is to be a worker. ``bound``: whether the master has its listeners.
    ``gen``: the highest generation so far. ``failures``: workers in a row that ended too soon;
    before ``retry_at`` none is forked. ``reason``: of the next fork, see ``commands.Spawn``.
    """

    index: int
    wanted: bool = True
    bound: bool = False
    gen: int = 0
    occupant: Worker | None = None
    successor: Worker | None = None
    draining: dict[int, Worker] = field(default_factory=dict)
    failures: int = 0
    retry_at: float = 0.0
    reason: str = "start"
    unserved_at: float | None = None
    adopter: WorkerId | None = None
    adopt_at: float = 0.0

    @property
    def serving(self) -> bool:
        """Whether this slot's own worker accepts, and is to."""
        return (
            self.wanted and self.occupant is not None and self.occupant.state is WorkerState.READY
        )

    @property
    def hangs(self) -> bool:
        return self.occupant is not None and self.occupant.state is WorkerState.HUNG

    def is_settled(self, now: float) -> bool:
        """Whether its worker serves and is heard from; or no worker is wanted, and another one
        accepts from what was bound here."""
        if self.successor is not None or self.draining:
            return False
        if self.occupant is None:
            return not self.wanted and (self.adopter is not None or not self.bound)
        heard = now - self.occupant.beat_at <= SILENT_AFTER_S
        return self.serving and heard and not self.occupant.stale and self.adopter is None

    def may_be_adopted(self, now: float) -> bool:
        """Whether it is time to look for an adopter, and not for a worker that is about to come."""
        if now < self.adopt_at:
            return False
        respawns_at_once = self.wanted and self.retry_at <= now and not self.hangs
        unserved_s = 0.0 if self.unserved_at is None else now - self.unserved_at
        return not respawns_at_once or unserved_s >= ADOPT_AFTER_S

    def shift(self, by_s: float) -> None:
        """Move every instant: the master itself did not run for so long."""
        self.retry_at += by_s
        self.adopt_at += by_s
        if self.unserved_at is not None:
            self.unserved_at += by_s

    def workers(self) -> list[Worker]:
        present = [w for w in (self.occupant, self.successor) if w is not None]
        return present + list(self.draining.values())


def find_worker(slots: Sequence[Slot], who: WorkerId) -> Worker | None:
    """The worker, or None if it was reaped (or never was)."""
    if not 0 <= who.slot < len(slots):
        return None
    return next((worker for worker in slots[who.slot].workers() if worker.who == who), None)


def backoff_s(failures: int) -> float:
    """How long to wait before the next fork: not at all after one failure, then doubling."""
    if failures <= 1:
        return 0.0
    return doubled_s(failures - 1, first_s=BACKOFF_FIRST_S, most_s=BACKOFF_MOST_S)


def vacate(slot: Slot, worker: Worker) -> None:
    """Take ``worker`` out of its place; if it was the occupant, the successor becomes it."""
    if slot.occupant is worker:
        slot.occupant, slot.successor = slot.successor, None
    elif slot.successor is worker:
        slot.successor = None


def take_over(slot: Slot, left: events.FormerSlot, now: float, drain_timeout_s: float) -> None:
    """A former master's workers: the one that serves goes on until ours is ready, or for good.

    Those that drain have the time that they were given, whatever the configuration says now.
    """
    slot.bound, slot.gen, slot.reason = left.bound, left.gen, "upgrade"
    if left.serving is not None:
        slot.occupant = Worker(
            WorkerId(slot.index, left.serving),
            since=now,
            beat_at=now,
            state=WorkerState.READY,
            ready_at=now,
            stale="" if left.keep else "upgrade",
        )
    for gen in left.draining:
        slot.draining[gen] = Worker(
            WorkerId(slot.index, gen),
            since=now,
            beat_at=now,
            state=WorkerState.DRAINING,
            due_at=max(now, left.ends_at.get(gen, now + drain_timeout_s)) + KILL_MARGIN_S,
        )
