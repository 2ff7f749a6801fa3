"""What a pool gives to the next master's pool, and how that takes it over.

Workers that are still starting are neither given on nor killed: they read the end of their pipe and
leave by themselves, with whatever client they had accepted. Only their pidfds go along, so that
they are reaped.
"""

from __future__ import annotations

from gateway.core import messages, wire
from gateway.core.records import dataclass
from supervisor.core.workers.descriptor_names import Kind, compose_name
from supervisor.core.workers.fleet import Fleet
from supervisor.core.workers.slot import KILL_MARGIN_S
from supervisor.core.workers.worker_id import WorkerId
from supervisor.core.workers.worker_state import WorkerState
from supervisor.workers.handles import WorkerHandles
from supervisor.workers.inherited import InheritedDescriptors
from supervisor.workers.scoreboard_rows import ScoreboardRows
from supervisor.workers.slot_sockets import Sockets


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolHandover:
    """``descriptors`` by name, which stay the pool's; the rest as in ``HandoverState``."""

    descriptors: dict[str, int]
    workers: int
    gens: dict[int, int]
    draining: tuple[WorkerId, ...]
    drains_until: dict[WorkerId, float]
    replacing: tuple[WorkerId, ...]


def hand_over(
    fleet: Fleet,
    handles: WorkerHandles,
    sockets: Sockets,
    rows: ScoreboardRows,
    *,
    workers: int,
) -> PoolHandover:
    """Everything that the next master needs; nothing changes.

    ``workers``: how many there are to be, which the fleet does not know before its start.
    """
    named = {compose_name(Kind.SCOREBOARD): rows.scoreboard.fd} | sockets.named_descriptors()
    for worker in fleet.workers():
        handle = handles.find(worker.who)
        if handle is None:
            continue
        if worker.state is WorkerState.STARTING:
            named[compose_name(Kind.UNREADY, worker.who.slot, worker.who.gen)] = handle.child.pidfd
        else:
            named |= handle.descriptors(worker.who)
    return PoolHandover(
        descriptors=named,
        workers=workers,
        gens={slot.index: slot.gen for slot in fleet.slots},
        draining=tuple(
            worker.who
            for worker in fleet.workers()
            if worker.state in (WorkerState.DRAINING, WorkerState.DYING)
        ),
        drains_until={
            worker.who: worker.due_at - KILL_MARGIN_S
            for worker in fleet.workers()
            if worker.due_at is not None
        },
        replacing=tuple(
            slot.occupant.who
            for slot in fleet.slots
            if slot.occupant is not None and slot.occupant.stale == "upgrade"
        ),
    )


def take_over(
    inherited: InheritedDescriptors,
    handles: WorkerHandles,
    sockets: Sockets,
    rows: ScoreboardRows,
    *,
    drain_timeout_s: float,
    now: float,
) -> None:
    """Own the inherited descriptors: sockets and workers of every slot.

    A worker that is to leave may not know it yet, if the former master crashed, or if the worker
    read nothing: it is told. It has the rest of the time that it was given, or ``drain_timeout_s``
    if nobody knows of any.
    """
    for pidfd in inherited.unready:
        handles.reap_unready(pidfd, inherited.pids[pidfd])
    for index, left in sorted(inherited.slots.items()):
        sockets.inherit(index, left, by_upgrade=inherited.told_to_drain)
        for who, child in inherited.children(index):
            rows.inherit(who, child.pid)
            handle = handles.take(who, child, inherited=True)
            handle.leaving = who.gen in left.draining
            if handle.leaving and (who.gen in left.ends_at or not inherited.told_to_drain):
                ends_at = left.ends_at.get(who.gen, now + drain_timeout_s)
                drain = messages.Drain(max(ends_at - now, 0.0))
                handle.channel.send(wire.encode(drain), messages.Drain)
    rows.watch_others()
