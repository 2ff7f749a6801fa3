"""Who accepts for a slot without a live worker."""

from __future__ import annotations

import pytest

from supervisor.core.workers import commands
from supervisor.core.workers.adopters import (
    ADOPT_RETRY_S,
    assign_adopter,
    note_failure,
    release_unknown,
)
from supervisor.core.workers.slot import ADOPT_AFTER_S, Slot, Worker, find_worker
from supervisor.core.workers.worker_id import WorkerId
from supervisor.core.workers.worker_state import WorkerState

NOW = 100.0


def serving(index: int) -> Slot:
    """A slot whose worker accepts."""
    slot = Slot(index, bound=True, gen=1)
    slot.occupant = Worker(WorkerId(index, 1), since=0.0, beat_at=NOW, state=WorkerState.READY)
    return slot


def empty(index: int) -> Slot:
    """A slot that has been without a worker for long enough to be adopted."""
    return Slot(index, bound=True, gen=1, unserved_at=NOW - 2 * ADOPT_AFTER_S)


def test_the_worker_with_the_fewest_adoptions_adopts() -> None:
    """Three slots without a worker are shared out among two workers."""
    slots = [serving(0), serving(1), empty(2), empty(3), empty(4)]
    issued = [command for slot in slots for command in assign_adopter(slots, slot, NOW)]
    assert issued == [
        commands.AdoptListeners(WorkerId(0, 1), 2),
        commands.AdoptListeners(WorkerId(1, 1), 3),
        commands.AdoptListeners(WorkerId(0, 1), 4),
    ]


def test_an_unbound_slot_has_nothing_to_adopt() -> None:
    """Nobody is asked for listeners that do not exist."""
    slots = [serving(0), Slot(1, unserved_at=0.0)]
    assert assign_adopter(slots, slots[1], NOW) == []


def test_without_any_worker_nobody_adopts() -> None:
    """The slot is looked at again with the next event."""
    slots = [empty(0)]
    assert assign_adopter(slots, slots[0], NOW) == []
    assert slots[0].adopter is None


@pytest.mark.parametrize(
    ("state", "told"),
    [(WorkerState.READY, True), (WorkerState.HUNG, True), (WorkerState.DRAINING, False)],
)
def test_an_adopter_lets_go_of_a_slot_that_serves(state: WorkerState, told: bool) -> None:
    """A draining adopter has closed its duplicates already and is told nothing."""
    slots = [serving(0), serving(1)]
    adopter = slots[0].occupant
    assert adopter is not None
    adopter.state, slots[1].adopter = state, adopter.who
    expected = [commands.ReleaseListeners(adopter.who, 1)] if told else []
    assert assign_adopter(slots, slots[1], NOW) == expected
    assert slots[1].adopter is None


def test_a_failed_adoption_is_tried_again_later() -> None:
    """Unless it failed in a worker that is not the adopter any more."""
    slots = [serving(0), empty(1)]
    assign_adopter(slots, slots[1], NOW)
    note_failure(slots[1], WorkerId(0, 7), NOW)
    assert slots[1].adopter == WorkerId(0, 1)
    note_failure(slots[1], WorkerId(0, 1), NOW)
    assert assign_adopter(slots, slots[1], NOW + ADOPT_RETRY_S / 2) == []
    assert assign_adopter(slots, slots[1], NOW + ADOPT_RETRY_S) == [
        commands.AdoptListeners(WorkerId(0, 1), 1)
    ]


def test_former_workers_release_what_nobody_knows_of() -> None:
    """Also one that is to be replaced: its successor may be slow to start."""
    slots = [serving(0), serving(1)]
    assert slots[1].occupant is not None
    slots[1].occupant.stale = "upgrade"
    assert release_unknown(slots) == [
        commands.ReleaseListeners(WorkerId(0, 1), 1),
        commands.ReleaseListeners(WorkerId(1, 1), 0),
    ]


def test_a_worker_is_found_while_it_lives() -> None:
    """Slots that never existed have no workers."""
    slots = [serving(0)]
    assert find_worker(slots, WorkerId(0, 1)) is slots[0].occupant
    for who in (WorkerId(0, 2), WorkerId(1, 1), WorkerId(-1, 1)):
        assert find_worker(slots, who) is None
