"""Decides everything about workers: when to fork, kill, drain, and who accepts for whom.

Pure: :meth:`Fleet.step` takes an event and the time and returns commands; ``pool`` performs them.
After every event :meth:`Fleet._command_missing` looks at the whole fleet and commands what is
missing, so that no rule depends on the order in which the events of a crash arrive.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import assert_never

from gateway.core import messages
from supervisor.core.exit_codes import EXIT_CRASH_LOOP, EXIT_FAILURE
from supervisor.core.workers import adopters, commands, events
from supervisor.core.workers.commands import Command
from supervisor.core.workers.events import Event
from supervisor.core.workers.slot import (
    KILL_MARGIN_S,
    LATE_AFTER_S,
    Limits,
    Slot,
    Worker,
    backoff_s,
    find_worker,
    take_over,
    vacate,
)
from supervisor.core.workers.worker_id import WorkerId
from supervisor.core.workers.worker_state import Happening, WorkerState, next_state

TICK_S = 0.05
"""How often Tick is due while something is under way, or a worker is silent."""
SETTLED_TICK_S = 0.25
"""How often while every slot is settled. Each wake-up of an idle master takes 0.2 ms of CPU."""
GAP_S = 0.2
"""When a tick is later than this, the master itself did not run (the host was suspended, the master
stopped or starved), and the time since the last step is not held against the workers."""
SHORT_LIFE_S = 1.0
"""A worker that ends this soon after Ready is respawned with backoff, as if it never was ready."""
FAILED_STARTS_MOST = 5
"""So many workers in a row that never became ready: exit 70, or an upgrade that failed."""
FIRST_CHANCE_S = 3.0
"""How long a worker may take to its Ready while others fail. On a host with room for a few workers
the forks of all others fail at once; those few need a moment each, and more on a busy host."""
UPGRADE_RETRY_S = 60.0
"""Between two attempts to replace a former master's workers, after FAILED_STARTS_MOST in a row."""
STOP_MARGIN_S = 1.0
"""KILL_MARGIN_S at a stop that does not wait for sessions."""
SHUT_AFTER_S = 0.5
"""At a stop the workers shut their listeners; after this long the master does it for those that
hang."""

UNKILLABLE_AFTER_S = 10.0
"""A killed worker closes its sockets first: tens of thousands take a second, and more on a busy
host. One that is not gone then is in state D or frozen, and a stop would wait for ever."""

GIVING_UP = "giving-up"
"""Why a worker is killed when the gateway cannot start."""


class Phase(enum.Enum):
    RUNNING = "running"
    STOPPING = "stopping"
    OVER = "over"
    """The fleet has issued Finish and issues nothing more."""


class Fleet:
    """All slots and their workers; one instance per master."""

    def __init__(self, limits: Limits, *, now: float) -> None:
        self.limits = limits
        self.slots: list[Slot] = []
        self.phase = Phase.RUNNING
        self.announced = False
        self._code = 0
        self._shut_at: float | None = None
        self._ever_ready = self._took_over = False
        self._failed_starts = 0
        self._report_at = now
        self._last = now
        self.due_at = now
        """When the next Tick is due; each step sets it anew."""
        self._out: list[Command] = []

    def step(self, event: Event, now: float) -> list[Command]:
        """Take an event and return the commands that follow from it.

        Raises IllegalTransitionError, and changes nothing, if the worker breaks the protocol.
        """
        self._forgive_gap(now)
        self.due_at = now + TICK_S
        self._out = []
        self._handle(event, now)
        if isinstance(event, events.Tick):  # only then are the signs of life new
            for worker in list(self.workers()):
                self._check(worker, now)
        if self.phase is Phase.RUNNING:
            self._command_missing(now)
            if self._is_settled(now):
                self.due_at = now + SETTLED_TICK_S
        elif self.phase is Phase.STOPPING:
            self._finish(now)
        return self._out

    def workers(self) -> Iterator[Worker]:
        for slot in self.slots:
            yield from slot.workers()

    def find(self, who: WorkerId) -> Worker | None:
        """The worker, or None if it was reaped (or never was)."""
        return find_worker(self.slots, who)

    @property
    def wanted(self) -> int:
        """How many workers there are to be."""
        return sum(slot.wanted for slot in self.slots)

    def _handle(self, event: Event, now: float) -> None:
        match event:
            case events.Start():
                self._start(event, now)
            case events.WorkerBound(who):
                if self.find(who) is not None:
                    self.slots[who.slot].bound = True
            case events.WorkerReady(who):
                self._ready(who, now)
            case events.WorkerFailed(_, reason):
                if reason == "bind" and not self.announced and not self._took_over:
                    self._end(EXIT_FAILURE, now)
            case events.WorkerExited(who):
                self._exited(who, now)
            case events.AdoptionFailed(slot, by):
                if 0 <= slot < len(self.slots):
                    adopters.note_failure(self.slots[slot], by, now)
            case events.Resize(by):
                self._resize(by, now)
            case events.DrainAll(deadline_s):
                self._stop(deadline_s, KILL_MARGIN_S, now)
            case events.StopAll():
                self._stop(0.0, STOP_MARGIN_S, now)
            case events.LeaveWorkers():
                self.phase = Phase.OVER
                self._out.append(commands.Finish(0))
            case events.Tick(signs):
                for who, at in signs.items():
                    self._note_sign(who, at)
            case _:
                assert_never(event)

    # What happened

    def _start(self, event: events.Start, now: float) -> None:
        left = {each.slot: each for each in event.left}
        # Workers that serve make a failure of ours something to retry, never a reason to end. So
        # does a former image, also if its workers all ended just now: it can be gone back to.
        serving = any(each.serving is not None for each in event.left)
        self._took_over = serving or event.by_upgrade
        # Those that are kept are of this program: it can have workers that get ready.
        self._ever_ready = any(each.keep and each.serving is not None for each in event.left)
        for index in range(max([event.slots, *(slot + 1 for slot in left)])):
            slot = Slot(index, wanted=index < event.slots, retry_at=now)
            self.slots.append(slot)
            if index in left:
                take_over(slot, left[index], now, self.limits.drain_timeout_s)
        self._out += adopters.release_unknown(self.slots)

    def _ready(self, who: WorkerId, now: float) -> None:
        worker = self.find(who)
        if worker is None:
            return
        was, worker.state = worker.state, next_state(worker.state, Happening.READY)
        if was is not WorkerState.STARTING:
            return
        self._ever_ready = True
        worker.ready_at = worker.beat_at = now
        slot = self.slots[who.slot]
        if worker is slot.successor and slot.occupant is not None:
            self._retire(slot.occupant, now, deadline_s=self.limits.drain_timeout_s)

    def _note_sign(self, who: WorkerId, at: float) -> None:
        worker = self.find(who)
        if worker is not None:
            worker.state = next_state(worker.state, Happening.BEAT)
            worker.beat_at = max(worker.beat_at, at)

    def _exited(self, who: WorkerId, now: float) -> None:
        worker = self.find(who)
        if worker is None:
            return
        was, worker.state = worker.state, next_state(worker.state, Happening.EXIT)
        slot = self.slots[who.slot]
        if slot.draining.pop(who.gen, None) is None:
            self._lose(slot, worker, was, now)
            if worker is not slot.successor:
                slot.reason = "exit"
            vacate(slot, worker)

    def _lose(self, slot: Slot, worker: Worker, was: WorkerState, now: float) -> None:
        """Count the unexpected end of a worker and set when its slot is filled again."""
        if was is WorkerState.STARTING:
            slot.failures += 1
            self._failed_starts += 1
        elif worker.ready_at is not None and now - worker.ready_at < SHORT_LIFE_S:
            slot.failures += 1
        else:
            slot.failures = 0
        slot.retry_at = now + backoff_s(slot.failures)
        if was is WorkerState.STARTING and not self._ever_ready:
            self._on_failed_start(now)

    def _on_failed_start(self, now: float) -> None:
        if self._failed_starts < FAILED_STARTS_MOST or self._may_get_ready(now):
            return
        if self._took_over:
            self._give_up_upgrade(now)
        else:
            self._end(EXIT_CRASH_LOOP, now)

    def _may_get_ready(self, now: float) -> bool:
        """Whether a worker has just been started in a slot where none has failed."""
        return any(
            worker.state is WorkerState.STARTING
            and not slot.failures
            and now - worker.since < FIRST_CHANCE_S
            for slot in self.slots
            for worker in slot.workers()
        )

    def _give_up_upgrade(self, now: float) -> None:
        """No worker of ours gets ready: leave the old ones in service, try once a minute."""
        if any(slot.serving for slot in self.slots):
            for slot in self.slots:
                slot.retry_at = now + UPGRADE_RETRY_S
        if now >= self._report_at:
            self._report_at = now + UPGRADE_RETRY_S / 2
            self._out.append(commands.ReportUpgradeFailed())

    def _resize(self, by: int, now: float) -> None:
        for _ in range(abs(by)):
            count = self.wanted
            if by > 0 and count == messages.MAX_SLOTS:
                return
            if by > 0 and count == len(self.slots):
                self.slots.append(Slot(count, retry_at=now))
            elif by > 0:
                slot = self.slots[count]
                slot.wanted, slot.failures, slot.retry_at = True, 0, now
                slot.reason = "start"
            elif count > 1:
                self.slots[count - 1].wanted = False

    def _stop(self, deadline_s: float, margin_s: float, now: float) -> None:
        if self.phase is Phase.RUNNING:
            self.phase = Phase.STOPPING
            self._shut_at = now + SHUT_AFTER_S
        for worker in list(self.workers()):
            if worker.state is not WorkerState.DYING:
                self._retire(worker, now, deadline_s=deadline_s, margin_s=margin_s, close=True)

    def _end(self, code: int, now: float) -> None:
        self.phase, self._code = Phase.STOPPING, code
        self._shut_at = now
        for worker in list(self.workers()):
            if worker.state not in (WorkerState.DYING, WorkerState.REAPED):
                self._kill(worker, GIVING_UP, now)

    # What time brings

    def _forgive_gap(self, now: float) -> None:
        gap_s = now - self._last
        self._last = now
        if gap_s >= 0.0 and now - self.due_at <= GAP_S:
            return
        for slot in self.slots:
            slot.shift(gap_s)
        for worker in self.workers():
            worker.shift(gap_s)
        if self._shut_at is not None:
            self._shut_at += gap_s

    def _is_settled(self, now: float) -> bool:
        """Whether only a hang or an event can bring anything about before long."""
        usual = self.limits.late_after_s == LATE_AFTER_S
        return usual and self.announced and all(slot.is_settled(now) for slot in self.slots)

    def _check(self, worker: Worker, now: float) -> None:
        """Act on what the clock says about one worker: late, hung, or past its deadline."""
        silent_s = now - worker.beat_at
        timeout_s = self.limits.worker_timeout_s
        match worker.state:
            case WorkerState.STARTING if now - worker.since > timeout_s:
                self._kill_occupant(worker, "start-timeout", now)
            case WorkerState.READY if silent_s > self.limits.late_after_s:
                worker.state = next_state(worker.state, Happening.LATE)
            case WorkerState.HUNG if silent_s > timeout_s:
                self._kill_occupant(worker, "timeout", now)
            case WorkerState.DRAINING if worker.due_at is not None and now > worker.due_at:
                self._kill(worker, "deadline", now)
            case WorkerState.DRAINING if silent_s > timeout_s:
                self._kill(worker, "timeout", now)
            case _:
                pass

    def _kill_occupant(self, worker: Worker, reason: str, now: float) -> None:
        """Kill a worker and refill its slot at once, because a process in state D may exit late."""
        slot, was = self.slots[worker.who.slot], worker.state
        if worker is not slot.successor:
            slot.reason = reason
        self._kill(worker, reason, now)
        self._lose(slot, worker, was, now)

    def _kill(self, worker: Worker, reason: str, now: float) -> None:
        worker.state = next_state(worker.state, Happening.KILL)
        worker.killed_at = now
        self._out.append(commands.Kill(worker.who, reason))
        self._make_draining(worker)

    def _retire(
        self,
        worker: Worker,
        now: float,
        *,
        deadline_s: float,
        margin_s: float = KILL_MARGIN_S,
        close: bool = False,
    ) -> None:
        """Have it drain within ``deadline_s``, and no later than it was told before.

        It believes the newest order: if it went on for longer than we wait for it, it would be
        killed with its sessions.
        """
        worker.state = next_state(worker.state, Happening.RETIRE)
        if worker.due_at is not None:
            deadline_s = max(min(deadline_s, worker.due_at - KILL_MARGIN_S - now), 0.0)
        due_at = now + deadline_s + margin_s
        worker.due_at = due_at if worker.due_at is None else min(worker.due_at, due_at)
        self._out.append(commands.Retire(worker.who, deadline_s, close))
        self._make_draining(worker)

    def _make_draining(self, worker: Worker) -> None:
        slot = self.slots[worker.who.slot]
        slot.draining[worker.who.gen] = worker
        vacate(slot, worker)

    # What is missing

    def _command_missing(self, now: float) -> None:
        self._find_aged(now)
        for slot in self.slots:
            self._fill(slot, now)
        for slot in self.slots:
            self._out += adopters.assign_adopter(self.slots, slot, now)
        for slot in self.slots:
            if not slot.wanted:
                self._empty(slot, now)
        if not self.announced and all(
            slot.serving and slot.occupant is not None and not slot.occupant.stale
            for slot in self.slots
            if slot.wanted
        ):
            self.announced = bool(self.slots)
            self._out += [commands.AnnounceReady()] if self.slots else []

    def _empty(self, slot: Slot, now: float) -> None:
        """Have the workers of a slot leave once others accept from its listeners.

        A worker that starts may have bound them, and nobody else would have them if it left now and
        the master ended before it heard of that: clients that wait there would be reset.
        """
        for worker in (slot.occupant, slot.successor):
            if worker is None or (slot.bound and slot.adopter is None):
                continue
            if slot.bound or worker.state is not WorkerState.STARTING:
                self._retire(worker, now, deadline_s=self.limits.drain_timeout_s)

    def _find_aged(self, now: float) -> None:
        """Mark the oldest worker that is past its age, one at a time."""
        occupants = [s.occupant for s in self.slots if s.occupant is not None]
        if self.limits.max_age_s <= 0.0 or any(worker.stale for worker in occupants):
            return
        aged = [
            worker
            for worker in occupants
            if worker.state is WorkerState.READY and now - worker.since > self.limits.max_age_s
        ]
        if aged:
            min(aged, key=lambda worker: worker.since).stale = "age"

    def _fill(self, slot: Slot, now: float) -> None:
        may_bind = slot.bound or slot.index == 0 or self.slots[0].bound
        if not slot.wanted or now < slot.retry_at or not may_bind:
            return
        if slot.occupant is None:
            # The old one of an unbound slot may hold the address until it is reaped.
            if slot.bound or not slot.draining:
                slot.occupant = self._spawn(slot, slot.reason, now)
        elif slot.occupant.stale and slot.successor is None:
            slot.successor = self._spawn(slot, slot.occupant.stale, now)

    def _spawn(self, slot: Slot, reason: str, now: float) -> Worker:
        slot.gen += 1
        who = WorkerId(slot.index, slot.gen)
        # Workers of a former master hold the address, also if their sockets were lost on the way.
        ours = any(each.bound or each.occupant is not None for each in self.slots)
        exclusive = slot.index == 0 and not ours
        self._out.append(commands.Spawn(who, exclusive, reason))
        return Worker(who, since=now, beat_at=now)

    def _finish(self, now: float) -> None:
        left = list(self.workers())
        over = all(
            worker.killed_at is not None and now - worker.killed_at > UNKILLABLE_AFTER_S
            for worker in left
        )
        if self._shut_at is not None and (over or now >= self._shut_at):
            self._shut_at = None
            self._out.append(commands.ShutListeners())
        if over:
            self._out += [commands.LeaveBehind(worker.who) for worker in left]
            self.phase = Phase.OVER
            self._out.append(commands.Finish(self._code))
