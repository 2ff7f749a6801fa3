"""Adopters: which worker accepts from the listeners of a slot that has no live worker.

Clients of such a slot would wait in the kernel's queue until its next worker is ready. The rules
look at all slots; what they change is the ``adopter`` of one, and they return the commands for it.
"""

from __future__ import annotations

from collections.abc import Sequence

from supervisor.core.workers import commands
from supervisor.core.workers.commands import Command
from supervisor.core.workers.slot import Slot, find_worker
from supervisor.core.workers.worker_id import WorkerId
from supervisor.core.workers.worker_state import WorkerState

ADOPT_RETRY_S = 0.2
"""Between two attempts to have a slot's listeners adopted: descriptors come back with sessions."""


def assign_adopter(slots: Sequence[Slot], slot: Slot, now: float) -> list[Command]:
    """Have another worker accept for ``slot`` while it needs one, and no longer."""
    if not slot.bound:
        return []
    if slot.serving:
        slot.unserved_at = None
        return _release(slots, slot)
    if slot.unserved_at is None:
        slot.unserved_at = now
    issued: list[Command] = []
    if slot.adopter is not None and not _serves(slots, slot.adopter):
        issued += _release(slots, slot)
    if slot.adopter is None and slot.may_be_adopted(now):
        slot.adopter = _find_adopter(slots, slot)
        if slot.adopter is not None:
            issued.append(commands.AdoptListeners(slot.adopter, slot.index))
    return issued


def note_failure(slot: Slot, by: WorkerId | None, now: float) -> None:
    """The adoption failed, in the worker ``by`` or before it heard of it (None): try again."""
    if by is None or slot.adopter == by:
        slot.adopter = None
        slot.adopt_at = now + ADOPT_RETRY_S


def release_unknown(slots: Sequence[Slot]) -> list[Command]:
    """What workers of a former master adopted for it is not known here.

    Those that are to be replaced release it as well: if their successors are slow to start, they
    would accept for long beside workers and adopters of ours.
    """
    former = [slot.occupant for slot in slots if slot.occupant is not None]
    return [
        commands.ReleaseListeners(worker.who, slot.index)
        for worker in former
        for slot in slots
        if slot.bound and slot.index != worker.who.slot
    ]


def _serves(slots: Sequence[Slot], who: WorkerId) -> bool:
    """Whether the worker is its slot's occupant and accepts."""
    slot = slots[who.slot]
    return slot.serving and slot.occupant is not None and slot.occupant.who == who


def _find_adopter(slots: Sequence[Slot], slot: Slot) -> WorkerId | None:
    """The accepting worker that has adopted the fewest slots; None if no worker accepts."""
    adopters = [each.adopter.slot for each in slots if each.adopter is not None]
    return min(
        (
            each.occupant.who
            for each in slots
            if each.serving and each.occupant is not None and each is not slot
        ),
        key=lambda who: adopters.count(who.slot),
        default=None,
    )


def _release(slots: Sequence[Slot], slot: Slot) -> list[Command]:
    """End an adoption. A draining or dead adopter has closed its duplicates already."""
    who, slot.adopter = slot.adopter, None
    adopter = None if who is None else find_worker(slots, who)
    if adopter is None or adopter.state not in (WorkerState.READY, WorkerState.HUNG):
        return []
    return [commands.ReleaseListeners(adopter.who, slot.index)]
