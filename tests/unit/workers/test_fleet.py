"""The fleet decides about workers: every decision, and the invariants of all of them together."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.core.messages import MAX_SLOTS
from supervisor.core.workers import commands, events
from supervisor.core.workers.adopters import ADOPT_RETRY_S
from supervisor.core.workers.fleet import (
    FAILED_STARTS_MOST,
    FIRST_CHANCE_S,
    GAP_S,
    SETTLED_TICK_S,
    SHORT_LIFE_S,
    SHUT_AFTER_S,
    TICK_S,
    UNKILLABLE_AFTER_S,
    UPGRADE_RETRY_S,
    Fleet,
    Phase,
)
from supervisor.core.workers.slot import (
    ADOPT_AFTER_S,
    KILL_MARGIN_S,
    LATE_AFTER_S,
    SILENT_AFTER_S,
    Limits,
    backoff_s,
)
from supervisor.core.workers.worker_id import WorkerId
from supervisor.core.workers.worker_state import (
    TRANSITIONS,
    Happening,
    IllegalTransitionError,
    WorkerState,
    draw_diagram,
    next_state,
)
from supervisor.workers.handles import REPORT_HOLDS_S


class Play:
    """A fleet, a clock that goes on in ticks, and everything it ordered."""

    def __init__(
        self,
        slots: int = 2,
        left: tuple[events.FormerSlot, ...] = (),
        by_upgrade: bool = False,
        **limits: Any,
    ) -> None:
        self.now = 100.0
        self.fleet = Fleet(Limits(**limits), now=self.now)
        self.seen: list[commands.Command] = []
        self.do(events.Start(slots, left, by_upgrade))

    def do(self, event: events.Event) -> list[commands.Command]:
        issued = self.fleet.step(event, self.now)
        self.seen += issued
        return issued

    def ticks(self, seconds: float, alive: tuple[WorkerId, ...] | None = None) -> list[Any]:
        """Let time go by; by default everybody shows signs of life."""
        issued: list[commands.Command] = []
        for _ in range(round(seconds / TICK_S)):
            self.now += TICK_S
            who = tuple(w.who for w in self.fleet.workers()) if alive is None else alive
            issued += self.do(events.Tick(dict.fromkeys(who, self.now)))
        return issued

    def renew(self) -> list[commands.Command]:
        """Every worker is to be replaced, as those of a former master are."""
        for slot in self.fleet.slots:
            if slot.occupant is not None:
                slot.occupant.stale = "upgrade"
        return self.do(events.Tick())

    def fill(self) -> None:
        """Bring every starting worker to Ready, slot 0 first."""
        while starting := [w for w in self.fleet.workers() if w.state is WorkerState.STARTING]:
            for worker in starting:
                self.do(events.WorkerBound(worker.who))
                self.do(events.WorkerReady(worker.who))


def filled(slots: int = 2, **limits: Any) -> Play:
    play = Play(slots, **limits)
    play.fill()
    play.ticks(2 * SHORT_LIFE_S)
    play.seen.clear()
    return play


A, B, C = WorkerId(0, 1), WorkerId(1, 1), WorkerId(2, 1)


def test_slot_0_binds_first_and_exclusively() -> None:
    """The others are forked once slot 0 holds the address; ready is said once, when all are."""
    play = Play(3)
    assert play.seen == [commands.Spawn(A, True, "start")]
    assert play.do(events.WorkerBound(A)) == [
        commands.Spawn(B, False, "start"),
        commands.Spawn(C, False, "start"),
    ]
    assert play.do(events.WorkerReady(A)) == []
    play.do(events.WorkerBound(B))
    assert play.do(events.WorkerReady(B)) == []
    play.do(events.WorkerBound(C))
    assert play.do(events.WorkerReady(C)) == [commands.AnnounceReady()]
    assert play.ticks(1.0) == []


def test_a_dead_worker_is_replaced_at_once() -> None:
    """The first respawn waits for nothing, and a quick one needs no adoption."""
    play = filled()
    assert play.do(events.WorkerExited(B)) == [commands.Spawn(WorkerId(1, 2), False, "exit")]
    assert play.do(events.WorkerReady(WorkerId(1, 2))) == []


def test_a_slow_replacement_has_its_sockets_adopted() -> None:
    """Nobody waits for a fork that takes long; the sockets go back when it is ready."""
    play = filled()
    play.do(events.WorkerExited(B))
    assert play.ticks(ADOPT_AFTER_S + TICK_S) == [commands.AdoptListeners(A, 1)]
    assert play.do(events.WorkerReady(WorkerId(1, 2))) == [commands.ReleaseListeners(A, 1)]


def test_an_adoption_that_failed_is_tried_again() -> None:
    """It is not believed, and not repeated without a rest."""
    play = filled()
    play.do(events.WorkerExited(B))
    assert play.ticks(ADOPT_AFTER_S + TICK_S) == [commands.AdoptListeners(A, 1)]
    assert play.do(events.AdoptionFailed(1)) == []
    assert play.ticks(ADOPT_RETRY_S - TICK_S) == []
    assert play.ticks(2 * TICK_S) == [commands.AdoptListeners(A, 1)]
    assert play.do(events.WorkerReady(WorkerId(1, 2))) == [commands.ReleaseListeners(A, 1)]


def test_an_adopter_of_before_takes_nothing_from_the_one_of_now() -> None:
    """It says late that it could not adopt, or of a slot that there is not: nothing changes."""
    play = filled()
    play.do(events.WorkerExited(B))
    assert play.ticks(ADOPT_AFTER_S + TICK_S) == [commands.AdoptListeners(A, 1)]
    assert play.do(events.AdoptionFailed(1, by=WorkerId(0, 99))) == []
    assert play.do(events.AdoptionFailed(99, by=A)) == []
    assert play.ticks(ADOPT_RETRY_S + TICK_S) == []
    assert play.do(events.AdoptionFailed(1, by=A)) == []
    assert play.ticks(ADOPT_RETRY_S + TICK_S) == [commands.AdoptListeners(A, 1)]


def test_workers_of_the_same_program_are_kept() -> None:
    """After a crash of the master: nothing is forked, and ready is said at once.

    Whatever they had adopted for the former master they give back.
    """
    left = tuple(events.FormerSlot(slot, 3, bound=True, serving=3, keep=True) for slot in (0, 1))
    play = Play(2, left)
    assert play.seen == [
        commands.ReleaseListeners(WorkerId(0, 3), 1),
        commands.ReleaseListeners(WorkerId(1, 3), 0),
        commands.AnnounceReady(),
    ]
    assert play.ticks(5.0) == []
    assert play.do(events.WorkerExited(WorkerId(1, 3))) == [
        commands.Spawn(WorkerId(1, 4), False, "exit")
    ]


def test_a_kept_worker_that_cannot_be_replaced_is_no_failed_upgrade() -> None:
    """A host that is short of memory for a moment costs seconds, as at any other time."""
    left = tuple(events.FormerSlot(slot, 3, bound=True, serving=3, keep=True) for slot in (0, 1))
    play = Play(2, left)
    play.ticks(2 * SHORT_LIFE_S)
    play.do(events.WorkerExited(WorkerId(1, 3)))
    for gen in range(4, 4 + 2 * FAILED_STARTS_MOST):
        assert play.fleet.find(WorkerId(1, gen)), "another one is tried"
        play.do(events.WorkerExited(WorkerId(1, gen)))
        play.ticks(backoff_s(99) + TICK_S)
    assert commands.ReportUpgradeFailed() not in play.seen
    assert play.fleet.phase is Phase.RUNNING


def test_after_an_upgrade_a_listener_has_one_acceptor() -> None:
    """Whatever the old workers adopted for the former master, until new ones have their places."""
    left = (
        *(events.FormerSlot(slot, 1, bound=True, serving=1) for slot in (0, 1)),
        events.FormerSlot(2, 1, bound=True),
    )
    play = Play(2, left)
    released = [commands.ReleaseListeners(A, slot) for slot in (1, 2)]
    released += [commands.ReleaseListeners(B, slot) for slot in (0, 2)]
    assert play.seen[:4] == released
    assert commands.AdoptListeners(A, 2) in play.seen[4:]


def test_an_upgrade_whose_workers_die_leaves_the_old_ones() -> None:
    """After five that were never ready: told, and tried again once a minute and not in a loop."""
    left = tuple(events.FormerSlot(slot, 1, bound=True, serving=1) for slot in (0, 1))
    play = Play(2, left)

    def let_die() -> int:
        starting = [w for w in play.fleet.workers() if w.state is WorkerState.STARTING]
        for worker in starting:
            play.do(events.WorkerExited(worker.who))
        return len(starting)

    died = 0
    while commands.ReportUpgradeFailed() not in play.seen:
        died += let_die()
        play.ticks(TICK_S)
    assert died in (FAILED_STARTS_MOST, FAILED_STARTS_MOST + 1)
    let_die()
    play.seen.clear()
    play.ticks(UPGRADE_RETRY_S - 1.0)
    assert play.seen == []
    play.ticks(1.0 + TICK_S)
    assert let_die() == 2
    assert play.seen.count(commands.ReportUpgradeFailed()) == 1
    assert all(slot.serving for slot in play.fleet.slots)
    play.do(events.WorkerExited(A))
    play.do(events.WorkerExited(B))
    play.ticks(5.0)
    assert let_die(), "where nobody serves, there is no rest of a minute"
    play.ticks(5.0)
    play.fill()
    assert commands.AnnounceReady() in play.seen
    assert play.fleet.phase is Phase.RUNNING


@pytest.mark.parametrize("by_upgrade", [True, False], ids=["upgrade", "restart"])
def test_an_upgrade_goes_back_also_if_all_old_workers_just_ended(by_upgrade: bool) -> None:
    """The old program can have workers again; at a restart the service manager starts anew."""
    play = Play(2, tuple(events.FormerSlot(slot, 1, bound=True) for slot in (0, 1)), by_upgrade)
    for _ in range(FAILED_STARTS_MOST):
        for worker in [w for w in play.fleet.workers() if w.state is WorkerState.STARTING]:
            play.do(events.WorkerExited(worker.who))
        play.ticks(1.0)
    assert (commands.ReportUpgradeFailed() in play.seen) is by_upgrade
    assert play.fleet.phase is (Phase.RUNNING if by_upgrade else Phase.OVER)
    assert (commands.Finish(70) in play.seen) is not by_upgrade


def test_backoff_after_early_deaths() -> None:
    """A worker that keeps dying is tried again ever later, its sockets adopted meanwhile."""
    play = filled()
    play.do(events.WorkerExited(B))
    assert play.do(events.WorkerExited(WorkerId(1, 2))) == [
        commands.Spawn(WorkerId(1, 3), False, "exit")
    ]
    assert play.do(events.WorkerExited(WorkerId(1, 3))) == [commands.AdoptListeners(A, 1)]
    assert play.ticks(backoff_s(2) + TICK_S) == [commands.Spawn(WorkerId(1, 4), False, "exit")]
    play.do(events.WorkerReady(WorkerId(1, 4)))
    assert play.do(events.WorkerExited(WorkerId(1, 4))) == [commands.AdoptListeners(A, 1)], (
        "short-lived counts too"
    )
    assert [backoff_s(n) for n in (0, 1, 2, 3, 4, 99)] == [0.0, 0.0, 0.1, 0.2, 0.4, 2.0]


def test_a_crash_loop_before_the_first_ready_ends_with_70() -> None:
    """Five in a row that never became ready: give up."""
    play = Play(1)
    for gen in itertools.count(1):
        play.do(events.WorkerExited(WorkerId(0, gen)))
        if play.fleet.phase is Phase.OVER:
            break
        play.ticks(2.0)
    assert gen == FAILED_STARTS_MOST
    assert play.seen[-1] == commands.Finish(70)


def test_giving_up_kills_the_others() -> None:
    """The exit waits until every worker is reaped."""
    play = Play(2)
    play.do(events.WorkerBound(A))
    for gen in range(1, FAILED_STARTS_MOST + 1):
        issued = play.do(events.WorkerExited(WorkerId(1, gen)))
        issued += play.ticks(1.0) if gen < FAILED_STARTS_MOST else []
    assert issued == [commands.Kill(A, "giving-up"), commands.ShutListeners()]
    assert play.do(events.WorkerExited(A)) == [commands.Finish(70)]


def test_a_host_with_room_for_few_workers_is_no_crash_loop() -> None:
    """More forks than are tried fail at once: those that worked have the time to get ready."""
    play = Play(2 + FAILED_STARTS_MOST)
    play.do(events.WorkerBound(A))
    failing = [WorkerId(slot, 1) for slot in range(2, 2 + FAILED_STARTS_MOST)]
    for who in failing:
        play.do(events.WorkerExited(who))
    play.ticks(1.0)
    assert play.fleet.phase is Phase.RUNNING
    play.do(events.WorkerReady(A))
    for slot in range(2, 2 + FAILED_STARTS_MOST):
        play.do(events.WorkerExited(WorkerId(slot, play.fleet.slots[slot].gen)))
    play.ticks(1.0)
    assert play.fleet.phase is Phase.RUNNING


def test_a_host_on_which_no_worker_gets_ready_is_given_up() -> None:
    """Those that could be forked have so long, and no longer."""
    play = Play(1 + FAILED_STARTS_MOST)
    play.do(events.WorkerBound(A))
    while play.fleet.phase is Phase.RUNNING:
        assert play.now < 100.0 + 2 * FIRST_CHANCE_S
        for slot in play.fleet.slots[1:]:
            if slot.occupant is not None:
                play.do(events.WorkerExited(slot.occupant.who))
        play.ticks(TICK_S)
    assert commands.Kill(A, "giving-up") in play.seen


def test_a_taken_address_ends_with_1_at_start_only() -> None:
    """Another holder of the address is an error; later it is something to retry."""
    play = Play(1)
    play.do(events.WorkerFailed(A, "bind"))
    assert play.do(events.WorkerExited(A))[-1] == commands.Finish(1)
    play = filled(1)
    play.do(events.Resize(+1))
    play.do(events.WorkerFailed(B, "bind"))
    assert play.do(events.WorkerExited(B)) == [commands.Spawn(WorkerId(1, 2), False, "exit")]
    assert play.fleet.phase is Phase.RUNNING
    assert Play(1).do(events.WorkerFailed(A, "whatever")) == []


def test_an_unbound_slot_waits_until_its_old_worker_is_reaped() -> None:
    """One that was killed while it bound may still hold the address."""
    play = Play(1, worker_timeout_s=1.0)
    assert play.ticks(1.1) == [commands.Kill(A, "start-timeout")]
    assert play.ticks(1.0) == []
    assert play.do(events.WorkerExited(A)) == [
        commands.Spawn(WorkerId(0, 2), True, "start-timeout")
    ]


def test_a_hang_is_adopted_then_killed_then_refilled() -> None:
    """Clients wait for the adoption, not for --worker-timeout."""
    play = filled(worker_timeout_s=3.0)
    assert play.ticks(LATE_AFTER_S + 2 * TICK_S, (A,)) == [commands.AdoptListeners(A, 1)]
    issued = play.ticks(3.0, (A,))
    assert issued == [commands.Kill(B, "timeout"), commands.Spawn(WorkerId(1, 2), False, "timeout")]
    assert play.do(events.WorkerReady(WorkerId(1, 2))) == [commands.ReleaseListeners(A, 1)]
    assert play.do(events.WorkerExited(B)) == []


def test_a_worker_that_wakes_up_gets_its_sockets_back() -> None:
    """A late heartbeat is as good as one in time."""
    play = filled()
    play.ticks(1.0, (A,))
    assert play.ticks(TICK_S) == [commands.ReleaseListeners(A, 1)]


def test_workers_that_give_signs_seldom_serve_until_two_are_missing() -> None:
    """Those of a release with another scoreboard, while none of ours gets ready."""
    left = tuple(events.FormerSlot(slot, 1, bound=True, serving=1) for slot in (0, 1))
    play = Play(2, left, by_upgrade=True, worker_timeout_s=300.0)
    for _ in range(60):
        play.do(events.Tick({A: play.now + REPORT_HOLDS_S, B: play.now + REPORT_HOLDS_S}))
        assert play.ticks(1.0, ()) == []
        assert all(slot.serving for slot in play.fleet.slots)
    play.do(events.Tick({A: play.now + 60.0}))
    play.ticks(1.5, ())
    assert play.fleet.slots[1].serving
    assert play.ticks(1.0, ()) == [commands.AdoptListeners(A, 1)]


def test_a_settled_fleet_is_looked_at_seldom() -> None:
    """Until something is under way, in any slot: every reason is one for frequent looks."""
    play = filled()

    def due_s() -> float:
        return round(play.fleet.due_at - play.now, 6)

    signs = {A: play.now, B: play.now}
    play.do(events.Tick(signs))
    assert due_s() == SETTLED_TICK_S
    play.now += SILENT_AFTER_S + 0.01
    play.do(events.Tick({A: play.now}))
    assert due_s() == TICK_S  # B is silent
    play.do(events.Tick({B: play.now}))
    assert due_s() == SETTLED_TICK_S
    play.do(events.WorkerExited(B))
    assert due_s() == TICK_S
    play.do(events.WorkerReady(second := WorkerId(1, 2)))
    assert due_s() == SETTLED_TICK_S
    play.do(events.Resize(+1))
    assert due_s() == TICK_S
    third = WorkerId(2, 1)
    play.do(events.WorkerBound(third))
    play.do(events.WorkerReady(third))
    assert due_s() == SETTLED_TICK_S
    play.do(events.Resize(-1))
    assert due_s() == TICK_S  # its worker drains
    play.do(events.WorkerExited(third))
    assert play.fleet.slots[2].adopter is not None
    assert due_s() == SETTLED_TICK_S
    play.do(events.AdoptionFailed(2))
    assert due_s() == TICK_S  # nobody accepts from its listeners
    play.fleet.slots[1].occupant.stale = "age"  # type: ignore[union-attr]
    play.do(events.Tick({A: play.now, second: play.now}))
    assert due_s() == TICK_S
    play.do(events.DrainAll(1.0))
    assert due_s() == TICK_S


def test_a_slot_that_nobody_wants_nor_serves_is_settled() -> None:
    """One more worker was asked for, and taken back before it could be forked."""
    play = filled(1)
    play.do(events.Resize(+1))
    play.do(events.Resize(-1))
    play.do(events.WorkerExited(WorkerId(1, 1)))
    play.do(events.Tick({A: play.now}))
    assert [slot.wanted for slot in play.fleet.slots] == [True, False]
    assert play.fleet.due_at == pytest.approx(play.now + SETTLED_TICK_S)


def test_a_short_worker_timeout_keeps_the_looks_frequent() -> None:
    """A worker is late after half of it, which may be sooner than a look at a settled fleet."""
    play = filled(worker_timeout_s=0.4)
    assert play.fleet.due_at == pytest.approx(play.now + TICK_S)


@pytest.mark.parametrize("silent_since_s", [0.0, 0.05, 0.1, 0.149, 0.151, 0.2, 0.249])
def test_a_hang_is_noticed_as_soon_in_a_settled_fleet(silent_since_s: float) -> None:
    """0.3 s after the last sign of life, and a tenth of a second later at most."""
    play = filled()
    last = play.now
    play.now += silent_since_s
    play.do(events.Tick({A: play.now, B: last}))
    for _ in range(10):
        if not play.seen:
            play.now = play.fleet.due_at
            play.do(events.Tick({A: play.now}))
    assert play.seen == [commands.AdoptListeners(A, 1)]
    assert LATE_AFTER_S < play.now - last <= LATE_AFTER_S + 0.1 + 1e-9


@pytest.mark.parametrize("event", [events.WorkerExited(B), events.Resize(+1)])
def test_an_event_between_two_ticks_is_no_evidence_of_a_hang(event: events.Event) -> None:
    """The signs of life are as old as the last tick then."""
    play = filled(3)
    play.now += 2 * TICK_S
    play.do(events.Tick(dict.fromkeys((A, B, C), play.now - 0.09)))
    play.now += 0.22
    assert [type(each) for each in play.do(event)] == [commands.Spawn]
    assert [slot.hangs for slot in play.fleet.slots] == [False] * len(play.fleet.slots)


def test_an_old_sign_takes_nothing_back() -> None:
    """A report came after the heartbeat that is read from the scoreboard."""
    play = filled()
    before = play.fleet.slots[1].occupant
    assert before is not None
    at = before.beat_at
    play.do(events.Tick({B: at - 10.0}))
    assert before.beat_at == at


def test_an_adopter_that_fails_is_replaced() -> None:
    """A hung adopter is told to let go when it wakes; a dead one needs no telling."""
    play = filled(3)
    play.ticks(1.0, (A, B))
    assert play.seen == [commands.AdoptListeners(A, 2)]
    play.seen.clear()
    play.ticks(1.0, (B,))
    assert play.seen == [
        commands.AdoptListeners(B, 0),
        commands.ReleaseListeners(A, 2),
        commands.AdoptListeners(B, 2),
    ]
    assert play.do(events.WorkerExited(B))[0] == commands.Spawn(WorkerId(1, 2), False, "exit")
    issued = play.do(events.WorkerReady(WorkerId(1, 2)))
    assert set(issued) == {
        commands.AdoptListeners(WorkerId(1, 2), 0),
        commands.AdoptListeners(WorkerId(1, 2), 2),
    }


def test_a_pause_of_our_own_harms_nobody() -> None:
    """A suspended machine or a stopped master is no worker's fault."""
    play = filled(worker_timeout_s=1.0, max_age_s=1000.0)
    play.do(events.WorkerExited(B))
    play.do(events.WorkerExited(WorkerId(1, 2)))
    play.do(events.WorkerExited(WorkerId(1, 3)))
    play.seen.clear()
    for jump_s in (3600.0, -50.0, SETTLED_TICK_S + GAP_S + 0.01):
        play.now += jump_s
        assert play.do(events.Tick()) == []
    play.do(events.DrainAll(1.0))
    play.now += 3600.0
    assert play.do(events.Tick()) == []


def test_fewer_workers() -> None:
    """A survivor accepts first, then the worker drains; the last worker stays."""
    play = filled()
    issued = play.do(events.Resize(-5))
    assert issued == [commands.AdoptListeners(A, 1), commands.Retire(B, 30.0, False)]
    assert play.fleet.wanted == 1
    assert play.do(events.WorkerExited(B)) == []
    assert play.do(events.Resize(+1)) == [commands.Spawn(WorkerId(1, 2), False, "start")]
    assert play.do(events.WorkerReady(WorkerId(1, 2))) == [commands.ReleaseListeners(A, 1)]
    assert play.do(events.Resize(+1)) == [commands.Spawn(C, False, "start")]


def test_no_more_workers_than_there_are_slots() -> None:
    """TTIN beyond the most changes nothing."""
    play = Play(MAX_SLOTS)
    assert play.do(events.Resize(+1)) == []
    assert play.fleet.wanted == MAX_SLOTS


def test_a_worker_retired_while_it_starts() -> None:
    """First somebody else accepts. Its Ready may cross our order: it drains all the same."""
    play = filled(1)
    play.do(events.Resize(+1))
    assert play.do(events.Resize(-1)) == [], "nobody else may have what it has bound"
    assert play.do(events.WorkerBound(B)) == [
        commands.AdoptListeners(A, 1),
        commands.Retire(B, 30.0, False),
    ]
    assert play.do(events.WorkerReady(B)) == []
    assert play.ticks(30.0 + KILL_MARGIN_S + 2 * TICK_S) == [commands.Kill(B, "deadline")]
    assert play.do(events.WorkerExited(B)) == []


def test_a_worker_that_is_not_wanted_any_more_and_never_binds_is_killed() -> None:
    """None takes its place. One that is ready has bound all that it is to bind."""
    play = filled(1, worker_timeout_s=1.0)
    play.do(events.Resize(+1))
    play.do(events.Resize(-1))
    assert play.ticks(1.1, (A,)) == [commands.Kill(B, "start-timeout")]
    assert play.do(events.WorkerExited(B)) == []
    play.do(events.Resize(+1))
    play.do(events.Resize(-1))
    next_one = WorkerId(1, 2)
    assert play.do(events.WorkerReady(next_one)) == [commands.Retire(next_one, 30.0, False)]


def test_a_draining_worker_that_hangs_is_killed() -> None:
    """The deadline is for sessions; a worker that does not turn has none that work."""
    play = filled(worker_timeout_s=1.0, drain_timeout_s=600.0)
    play.do(events.Resize(-1))
    assert play.ticks(1.1, (A,)) == [commands.Kill(B, "timeout")]


def test_renewal() -> None:
    """The replacement accepts before the old one stops; one that fails leaves the old one."""
    play = filled(1)
    assert play.renew() == [commands.Spawn(WorkerId(0, 2), False, "upgrade")]
    assert play.do(events.WorkerExited(WorkerId(0, 2))) == [
        commands.Spawn(WorkerId(0, 3), False, "upgrade")
    ]
    assert play.do(events.WorkerReady(WorkerId(0, 3))) == [commands.Retire(A, 30.0, False)]
    assert play.do(events.WorkerExited(A)) == []


def test_an_old_worker_that_dies_during_renewal() -> None:
    """Its successor moves up and is simply the worker."""
    play = filled(1)
    play.renew()
    assert play.do(events.WorkerExited(A)) == []
    assert play.do(events.WorkerReady(WorkerId(0, 2))) == []
    assert play.fleet.slots[0].serving


def test_a_successor_that_never_gets_ready() -> None:
    """It is killed and tried again; the old one goes on."""
    play = filled(1, worker_timeout_s=1.0)
    play.renew()
    issued = play.ticks(1.1)
    assert issued == [
        commands.Kill(WorkerId(0, 2), "start-timeout"),
        commands.Spawn(WorkerId(0, 3), False, "upgrade"),
    ]
    assert play.fleet.slots[0].serving


def test_workers_are_recycled_by_age_one_at_a_time() -> None:
    """The oldest first, the next once it is replaced."""
    play = filled(max_age_s=10.0)
    issued = play.ticks(12.0)
    assert issued == [commands.Spawn(WorkerId(0, 2), False, "age")]
    assert play.do(events.WorkerReady(WorkerId(0, 2))) == [
        commands.Retire(A, 30.0, False),
        commands.Spawn(WorkerId(1, 2), False, "age"),
    ]


def test_the_oldest_worker_is_recycled_first() -> None:
    """Where a reload makes several too old at once, also if it is not in the first slot."""
    play = filled()
    play.ticks(5.0)
    play.do(events.WorkerExited(A))
    play.do(events.WorkerReady(WorkerId(0, 2)))
    play.ticks(20.0)
    play.fleet.limits = Limits(max_age_s=10.0)
    assert play.ticks(1.0) == [commands.Spawn(WorkerId(1, 2), False, "age")]


def test_stop() -> None:
    """Everybody drains, hung sockets are shut after a while, the end comes with the last exit."""
    play = filled()
    assert play.do(events.DrainAll(5.0)) == [
        commands.Retire(A, 5.0, True),
        commands.Retire(B, 5.0, True),
    ]
    assert play.ticks(SHUT_AFTER_S + 2 * TICK_S) == [commands.ShutListeners()]
    assert play.do(events.WorkerExited(A)) == []
    assert play.do(events.StopAll()) == [commands.Retire(B, 0.0, True)]
    assert play.ticks(1.2) == [commands.Kill(B, "deadline")]
    assert play.do(events.StopAll()) == []
    assert play.do(events.WorkerExited(B)) == [commands.Finish(0)]
    assert play.ticks(1.0) == []


def test_a_stop_does_not_wait_for_a_worker_that_cannot_be_killed() -> None:
    """One in state D or frozen is left behind, also if it was killed long before the stop; as long
    as another one may go on, nobody is."""
    play = filled(worker_timeout_s=3.0)
    play.ticks(4.0, alive=(B,))
    play.do(events.WorkerReady(WorkerId(0, 2)))
    assert commands.Kill(A, "timeout") in play.seen
    play.ticks(UNKILLABLE_AFTER_S + 1.0)
    play.do(events.DrainAll(5.0))
    play.do(events.WorkerExited(WorkerId(0, 2)))
    assert play.ticks(1.0) == [commands.ShutListeners()]
    assert play.do(events.WorkerExited(B)) == [commands.LeaveBehind(A), commands.Finish(0)]

    play = filled()
    play.do(events.StopAll())
    issued = play.ticks(UNKILLABLE_AFTER_S + 2.0)
    assert commands.Kill(B, "deadline") in issued
    assert issued[-3:] == [commands.LeaveBehind(A), commands.LeaveBehind(B), commands.Finish(0)]


def test_a_quick_stop_shuts_its_sockets_too() -> None:
    """The service manager may keep them, and would give them to the next start."""
    play = filled()
    play.do(events.DrainAll(5.0))
    play.do(events.WorkerExited(A))
    assert play.do(events.WorkerExited(B)) == [commands.ShutListeners(), commands.Finish(0)]


def test_leaving_the_workers_to_the_next_master() -> None:
    """Nothing is killed, nothing drained."""
    assert filled().do(events.LeaveWorkers()) == [commands.Finish(0)]


def test_taking_over() -> None:
    """The old workers serve until ours are ready; a slot too many is given up after that."""
    left = (
        events.FormerSlot(0, 4, bound=True, serving=4, draining=(2,)),
        events.FormerSlot(1, 1, bound=True),
        events.FormerSlot(2, 7, bound=True, serving=7),
    )
    play = Play(2, left, drain_timeout_s=9.0)
    assert play.seen[:6] == [
        commands.ReleaseListeners(WorkerId(0, 4), 1),
        commands.ReleaseListeners(WorkerId(0, 4), 2),
        commands.ReleaseListeners(WorkerId(2, 7), 0),
        commands.ReleaseListeners(WorkerId(2, 7), 1),
        commands.Spawn(WorkerId(0, 5), False, "upgrade"),
        commands.Spawn(WorkerId(1, 2), False, "upgrade"),
    ]
    assert commands.Retire(WorkerId(2, 7), 9.0, False) in play.seen
    assert commands.AdoptListeners(WorkerId(0, 4), 2) in play.seen
    play.seen.clear()
    play.do(events.WorkerFailed(WorkerId(0, 5), "bind"))
    assert play.fleet.phase is Phase.RUNNING, "the old ones serve: nothing to end for"
    play.fill()
    assert commands.Retire(WorkerId(0, 4), 9.0, False) in play.seen
    assert commands.AnnounceReady() in play.seen
    assert (
        play.ticks(9.0 + KILL_MARGIN_S + 2 * TICK_S).count(
            commands.Kill(WorkerId(0, 2), "deadline")
        )
        == 1
    )


def test_a_worker_that_drains_keeps_the_time_that_it_was_given() -> None:
    """The former master had another ``--drain-timeout``, and told it so."""
    left = (
        events.FormerSlot(
            0, 4, bound=True, serving=4, draining=(2, 3), ends_at={2: 200.0, 3: 104.0}
        ),
    )
    play = Play(1, left, drain_timeout_s=9.0)
    play.fill()
    kills = play.ticks(4.0 + KILL_MARGIN_S - TICK_S)
    kills += play.ticks(3 * TICK_S)
    assert [each for each in kills if isinstance(each, commands.Kill)] == [
        commands.Kill(WorkerId(0, 3), "deadline")
    ]
    play.ticks(80.0)
    assert commands.Kill(WorkerId(0, 2), "deadline") not in play.seen


def test_a_worker_whose_time_is_over_is_cut_before_it_is_killed() -> None:
    """No master was there for longer than it had: it may have heard of nothing, and is told now."""
    left = (events.FormerSlot(0, 4, bound=True, serving=4, draining=(3,), ends_at={3: 20.0}),)
    play = Play(1, left)
    kill = commands.Kill(WorkerId(0, 3), "deadline")
    assert kill not in [*play.seen, *play.ticks(KILL_MARGIN_S - TICK_S)]
    assert kill in play.ticks(3 * TICK_S)


def test_a_stop_gives_no_worker_more_time_than_it_is_waited_for() -> None:
    """One that drains already is told what is left of its time: it believes the newest order."""
    play = filled(drain_timeout_s=9.0)
    play.renew()
    play.fill()
    assert commands.Retire(A, 9.0, False) in play.seen
    play.ticks(5.0)
    (left_s,) = {
        each.deadline_s
        for each in play.do(events.DrainAll(9.0))
        if isinstance(each, commands.Retire) and each.who in (A, B)
    }
    assert left_s == pytest.approx(4.0)
    killed = play.ticks(left_s + KILL_MARGIN_S - TICK_S)
    assert not [each for each in killed if isinstance(each, commands.Kill)]


def test_workers_whose_sockets_are_lost_are_replaced_beside_them() -> None:
    """They hold the address themselves, so it is no other program's; one after the other binds."""
    left = tuple(events.FormerSlot(slot, 1, bound=False, serving=1) for slot in (0, 1))
    play = Play(2, left)
    assert play.seen == [commands.Spawn(WorkerId(0, 2), False, "upgrade")]
    play.fill()
    assert commands.Spawn(WorkerId(1, 2), False, "upgrade") in play.seen
    assert play.seen[-1] == commands.AnnounceReady()
    for who in (WorkerId(0, 1), WorkerId(1, 1)):
        assert commands.Retire(who, 30.0, False) in play.seen


def test_news_of_the_dead_changes_nothing() -> None:
    """Messages and exits of workers that were reaped, or never were, are late news."""
    play = filled()
    play.do(events.WorkerExited(B))
    for event in (
        events.WorkerExited(B),
        events.WorkerReady(B),
        events.WorkerBound(B),
        events.WorkerReady(WorkerId(99, 1)),
        events.Tick({B: 100.0, WorkerId(-1, 1): 100.0}),
    ):
        assert play.do(event) == []


def test_an_illegal_turn_changes_nothing() -> None:
    """A second Ready is a bug of the worker."""
    play = filled()
    with pytest.raises(IllegalTransitionError, match="'Ready' while ready"):
        play.do(events.WorkerReady(A))
    assert play.fleet.slots[0].serving


def test_the_table_is_complete() -> None:
    """Every life can end, nothing follows the end, and the diagram shows every state."""
    for life in set(WorkerState) - {WorkerState.REAPED}:
        assert next_state(life, Happening.EXIT) is WorkerState.REAPED
    assert not any(before is WorkerState.REAPED for before, _ in TRANSITIONS)
    assert all(life.value in draw_diagram() for life in WorkerState)


class AnyFleet(RuleBasedStateMachine):
    """Any order of events; the machine's promises hold after each."""

    @initialize(slots=st.integers(1, 4), left=st.integers(0, 4))
    def begin(self, slots: int, left: int) -> None:
        self.now = 10.0
        self.spawned: set[WorkerId] = set()
        self.reaped: set[WorkerId] = set()
        self.killed: set[WorkerId] = set()
        self.adopted: set[tuple[WorkerId, int]] = set()
        self.stopped = False
        self.finished = False
        self.fleet = Fleet(Limits(worker_timeout_s=2.0, max_age_s=20.0), now=self.now)
        old = tuple(
            events.FormerSlot(i, 3, bound=True, serving=3, draining=(1,)) for i in range(left)
        )
        self.spawned |= {WorkerId(i, gen) for i in range(left) for gen in (1, 3)}
        self.do(events.Start(slots, old))

    def do(self, event: events.Event) -> None:
        if self.finished:
            return
        for command in self.fleet.step(event, self.now):
            assert not self.finished, "Finish is the last word"
            match command:
                case commands.Spawn(who, exclusive, _):
                    assert not self.stopped, "no spawn after the stop"
                    assert who not in self.spawned
                    assert not exclusive or who.slot == 0
                    self.spawned.add(who)
                case commands.Kill(who, _):
                    assert who in self.spawned - self.reaped - self.killed
                    self.killed.add(who)
                case (
                    commands.Retire(who)
                    | commands.AdoptListeners(who)
                    | commands.ReleaseListeners(who)
                ):
                    assert who in self.spawned - self.reaped
                case commands.LeaveBehind(who):
                    assert who in self.killed - self.reaped, "nobody who may still go by himself"
                    self.reaped.add(who)
                case commands.Finish():
                    assert self.spawned == self.reaped, "every spawn is reaped before the end"
                    self.finished = True
                case _:
                    pass

    def pick(self, draw: Any, *lives: WorkerState) -> WorkerId | None:
        found = [w.who for w in self.fleet.workers() if w.state in lives]
        return draw.draw(st.sampled_from(found)) if found else None

    @rule(draw=st.data())
    def get_ready(self, draw: Any) -> None:
        if who := self.pick(draw, WorkerState.STARTING):
            self.do(events.WorkerBound(who))
            self.do(events.WorkerReady(who))

    @rule(draw=st.data())
    def die(self, draw: Any) -> None:
        if who := self.pick(draw, *set(WorkerState) - {WorkerState.REAPED}):
            self.reaped.add(who)
            self.do(events.WorkerExited(who))

    @rule(draw=st.data(), ticks=st.integers(1, 80), lively=st.booleans())
    def go_on(self, draw: Any, ticks: int, lively: bool) -> None:
        silent = (
            None
            if lively
            else self.pick(draw, WorkerState.READY, WorkerState.HUNG, WorkerState.DRAINING)
        )
        for _ in range(ticks):
            self.now += TICK_S
            alive = [w.who for w in self.fleet.workers() if w.who != silent]
            self.do(events.Tick(dict.fromkeys(alive, self.now)))

    @rule(jump_s=st.floats(-1000, 1000).filter(lambda s: not 0 <= s <= SETTLED_TICK_S + GAP_S))
    def jump(self, jump_s: float) -> None:
        self.now += jump_s
        before = set(self.killed)
        self.do(events.Tick())
        assert self.killed == before, "a jump of the clock kills nobody"

    @rule(by=st.integers(-3, 3))
    def resize(self, by: int) -> None:
        self.do(events.Resize(by))
        assert self.fleet.wanted >= 1

    @rule()
    def renew(self) -> None:
        for slot in self.fleet.slots:
            if slot.occupant is not None:
                slot.occupant.stale = "upgrade"
        self.do(events.Tick())

    @precondition(lambda self: self.fleet.announced)
    @rule(at_once=st.booleans())
    def stop(self, at_once: bool) -> None:
        self.stopped = True
        self.do(events.StopAll() if at_once else events.DrainAll(1.0))

    @invariant()
    def one_ready_worker_in_a_slot(self) -> None:
        for slot in self.fleet.slots:
            assert (
                sum(w.state in (WorkerState.READY, WorkerState.HUNG) for w in slot.workers()) <= 1
            )
            assert len(slot.workers()) == len({w.who.gen for w in slot.workers()})

    @invariant()
    def the_books_agree(self) -> None:
        if not self.finished:
            assert {w.who for w in self.fleet.workers()} == self.spawned - self.reaped

    @invariant()
    def adopters_serve(self) -> None:
        if self.fleet.phase is Phase.RUNNING:
            for slot in self.fleet.slots:
                if slot.adopter is not None:
                    assert not slot.serving
                    assert self.fleet.slots[slot.adopter.slot].serving
                    assert slot.adopter.slot != slot.index


AnyFleet.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestAnyFleet = pytest.mark.slow(AnyFleet.TestCase)


def test_the_page_shows_the_table() -> None:
    """docs/life-of-a-worker.md has the diagram that the table draws."""
    page = (Path(__file__).parents[3] / "docs" / "life-of-a-worker.md").read_text()
    assert f"```mermaid\n{draw_diagram()}\n```" in page
