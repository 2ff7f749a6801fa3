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
from supervisor.core import orders
from supervisor.core.fleet import (
    ADOPT_AFTER_S,
    GAP_S,
    SHORT_LIFE_S,
    SHUT_AFTER_S,
    STILLBORN_MOST,
    TICK_S,
    Fleet,
    Phase,
)
from supervisor.core.life import TRANSITIONS, IllegalTurnError, Life, Turn, draw_diagram, turn
from supervisor.core.orders import WorkerId
from supervisor.core.slot import KILL_MARGIN_S, LATE_AFTER_S, Limits, backoff_s


class Play:
    """A fleet, a clock that goes on in ticks, and everything it ordered."""

    def __init__(self, slots: int = 2, left: tuple[orders.Left, ...] = (), **limits: Any) -> None:
        self.now = 100.0
        self.fleet = Fleet(Limits(**limits), now=self.now)
        self.seen: list[orders.Command] = []
        self.do(orders.Start(slots, left))

    def do(self, event: orders.Event) -> list[orders.Command]:
        commands = self.fleet.step(event, self.now)
        self.seen += commands
        return commands

    def ticks(self, seconds: float, alive: tuple[WorkerId, ...] | None = None) -> list[Any]:
        """Let time go by; by default everybody shows signs of life."""
        commands: list[orders.Command] = []
        for _ in range(round(seconds / TICK_S)):
            self.now += TICK_S
            who = tuple(w.who for w in self.fleet.workers()) if alive is None else alive
            commands += self.do(orders.Tick(who))
        return commands

    def fill(self) -> None:
        """Bring every starting worker to Ready, slot 0 first."""
        while starting := [w for w in self.fleet.workers() if w.life is Life.STARTING]:
            for worker in starting:
                self.do(orders.Bound(worker.who))
                self.do(orders.Ready(worker.who))


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
    assert play.seen == [orders.Spawn(A, True, "start")]
    assert play.do(orders.Bound(A)) == [
        orders.Spawn(B, False, "start"),
        orders.Spawn(C, False, "start"),
    ]
    assert play.do(orders.Ready(A)) == []
    play.do(orders.Bound(B))
    assert play.do(orders.Ready(B)) == []
    play.do(orders.Bound(C))
    assert play.do(orders.Ready(C)) == [orders.Announce()]
    assert play.ticks(1.0) == []


def test_a_dead_worker_is_replaced_at_once() -> None:
    """The first respawn waits for nothing, and a quick one needs no adoption."""
    play = filled()
    assert play.do(orders.Exited(B)) == [orders.Spawn(WorkerId(1, 2), False, "exit")]
    assert play.do(orders.Ready(WorkerId(1, 2))) == []


def test_a_slow_replacement_has_its_sockets_adopted() -> None:
    """Nobody waits for a fork that takes long; the sockets go back when it is ready."""
    play = filled()
    play.do(orders.Exited(B))
    assert play.ticks(ADOPT_AFTER_S + TICK_S) == [orders.Adopt(A, 1)]
    assert play.do(orders.Ready(WorkerId(1, 2))) == [orders.Release(A, 1)]


def test_backoff_after_early_deaths() -> None:
    """A worker that keeps dying is tried again ever later, its sockets adopted meanwhile."""
    play = filled()
    play.do(orders.Exited(B))
    assert play.do(orders.Exited(WorkerId(1, 2))) == [orders.Spawn(WorkerId(1, 3), False, "exit")]
    assert play.do(orders.Exited(WorkerId(1, 3))) == [orders.Adopt(A, 1)]
    assert play.ticks(backoff_s(2) + TICK_S) == [orders.Spawn(WorkerId(1, 4), False, "exit")]
    play.do(orders.Ready(WorkerId(1, 4)))
    assert play.do(orders.Exited(WorkerId(1, 4))) == [orders.Adopt(A, 1)], "short-lived counts too"
    assert [backoff_s(n) for n in (0, 1, 2, 3, 4, 99)] == [0.0, 0.0, 0.1, 0.2, 0.4, 2.0]


def test_a_crash_loop_before_the_first_ready_ends_with_70() -> None:
    """Five in a row that never became ready: give up."""
    play = Play(1)
    for gen in itertools.count(1):
        play.do(orders.Exited(WorkerId(0, gen)))
        if play.fleet.phase is Phase.OVER:
            break
        play.ticks(2.0)
    assert gen == STILLBORN_MOST
    assert play.seen[-1] == orders.Finish(70)


def test_giving_up_kills_the_others() -> None:
    """The exit waits until every worker is reaped."""
    play = Play(2)
    play.do(orders.Bound(A))
    for gen in range(1, STILLBORN_MOST + 1):
        commands = play.do(orders.Exited(WorkerId(1, gen)))
        commands += play.ticks(1.0) if gen < STILLBORN_MOST else []
    assert commands == [orders.Kill(A, "giving-up"), orders.Shut()]
    assert play.do(orders.Exited(A)) == [orders.Finish(70)]


def test_a_taken_address_ends_with_1_at_start_only() -> None:
    """Another holder of the address is an error; later it is something to retry."""
    play = Play(1)
    play.do(orders.Failed(A, "bind"))
    assert play.do(orders.Exited(A))[-1] == orders.Finish(1)
    play = filled(1)
    play.do(orders.Resize(+1))
    play.do(orders.Failed(B, "bind"))
    assert play.do(orders.Exited(B)) == [orders.Spawn(WorkerId(1, 2), False, "exit")]
    assert play.fleet.phase is Phase.RUNNING
    assert Play(1).do(orders.Failed(A, "whatever")) == []


def test_an_unbound_slot_waits_until_its_old_worker_is_reaped() -> None:
    """One that was killed while it bound may still hold the address."""
    play = Play(1, worker_timeout_s=1.0)
    assert play.ticks(1.1) == [orders.Kill(A, "start-timeout")]
    assert play.ticks(1.0) == []
    assert play.do(orders.Exited(A)) == [orders.Spawn(WorkerId(0, 2), True, "start-timeout")]


def test_a_hang_is_adopted_then_killed_then_refilled() -> None:
    """Clients wait for the adoption, not for --worker-timeout."""
    play = filled(worker_timeout_s=3.0)
    assert play.ticks(LATE_AFTER_S + 2 * TICK_S, (A,)) == [orders.Adopt(A, 1)]
    commands = play.ticks(3.0, (A,))
    assert commands == [orders.Kill(B, "timeout"), orders.Spawn(WorkerId(1, 2), False, "timeout")]
    assert play.do(orders.Ready(WorkerId(1, 2))) == [orders.Release(A, 1)]
    assert play.do(orders.Exited(B)) == []


def test_a_worker_that_wakes_up_gets_its_sockets_back() -> None:
    """A late heartbeat is as good as one in time."""
    play = filled()
    play.ticks(1.0, (A,))
    assert play.ticks(TICK_S) == [orders.Release(A, 1)]


def test_an_adopter_that_fails_is_replaced() -> None:
    """A hung adopter is told to let go when it wakes; a dead one needs no telling."""
    play = filled(3)
    play.ticks(1.0, (A, B))
    assert play.seen == [orders.Adopt(A, 2)]
    play.seen.clear()
    play.ticks(1.0, (B,))
    assert play.seen == [orders.Adopt(B, 0), orders.Release(A, 2), orders.Adopt(B, 2)]
    assert play.do(orders.Exited(B))[0] == orders.Spawn(WorkerId(1, 2), False, "exit")
    commands = play.do(orders.Ready(WorkerId(1, 2)))
    assert set(commands) == {orders.Adopt(WorkerId(1, 2), 0), orders.Adopt(WorkerId(1, 2), 2)}


def test_a_pause_of_our_own_harms_nobody() -> None:
    """A suspended machine or a stopped master is no worker's fault."""
    play = filled(worker_timeout_s=1.0, max_age_s=1000.0)
    play.do(orders.Exited(B))
    play.do(orders.Exited(WorkerId(1, 2)))
    play.do(orders.Exited(WorkerId(1, 3)))
    play.seen.clear()
    for jump_s in (3600.0, -50.0):
        play.now += jump_s
        assert play.do(orders.Tick()) == []
    play.do(orders.Drain(1.0))
    play.now += 3600.0
    assert play.do(orders.Tick()) == []


def test_fewer_workers() -> None:
    """A survivor accepts first, then the worker drains; the last worker stays."""
    play = filled()
    commands = play.do(orders.Resize(-5))
    assert commands == [orders.Adopt(A, 1), orders.Retire(B, 30.0, False)]
    assert play.fleet.wanted == 1
    assert play.do(orders.Exited(B)) == []
    assert play.do(orders.Resize(+1)) == [orders.Spawn(WorkerId(1, 2), False, "start")]
    assert play.do(orders.Ready(WorkerId(1, 2))) == [orders.Release(A, 1)]
    assert play.do(orders.Resize(+1)) == [orders.Spawn(C, False, "start")]


def test_no_more_workers_than_there_are_slots() -> None:
    """TTIN beyond the most changes nothing."""
    play = Play(MAX_SLOTS)
    assert play.do(orders.Resize(+1)) == []
    assert play.fleet.wanted == MAX_SLOTS


def test_a_worker_retired_while_it_starts() -> None:
    """Its Ready may cross our order: it drains all the same."""
    play = filled(1)
    play.do(orders.Resize(+1))
    assert play.do(orders.Resize(-1)) == [orders.Retire(B, 30.0, False)]
    assert play.do(orders.Ready(B)) == []
    assert play.ticks(30.0 + KILL_MARGIN_S + 2 * TICK_S) == [orders.Kill(B, "deadline")]
    assert play.do(orders.Exited(B)) == []


def test_a_draining_worker_that_hangs_is_killed() -> None:
    """The deadline is for sessions; a worker that does not turn has none that work."""
    play = filled(worker_timeout_s=1.0, drain_timeout_s=600.0)
    play.do(orders.Resize(-1))
    assert play.ticks(1.1, (A,)) == [orders.Kill(B, "timeout")]


def test_renewal() -> None:
    """The replacement accepts before the old one stops; one that fails leaves the old one."""
    play = filled(1)
    assert play.do(orders.Renew("upgrade")) == [orders.Spawn(WorkerId(0, 2), False, "upgrade")]
    assert play.do(orders.Exited(WorkerId(0, 2))) == [
        orders.Spawn(WorkerId(0, 3), False, "upgrade")
    ]
    assert play.do(orders.Ready(WorkerId(0, 3))) == [orders.Retire(A, 30.0, False)]
    assert play.do(orders.Exited(A)) == []


def test_an_old_worker_that_dies_during_renewal() -> None:
    """Its successor moves up and is simply the worker."""
    play = filled(1)
    play.do(orders.Renew("upgrade"))
    assert play.do(orders.Exited(A)) == []
    assert play.do(orders.Ready(WorkerId(0, 2))) == []
    assert play.fleet.slots[0].serving


def test_a_successor_that_never_gets_ready() -> None:
    """It is killed and tried again; the old one goes on."""
    play = filled(1, worker_timeout_s=1.0)
    play.do(orders.Renew("upgrade"))
    commands = play.ticks(1.1)
    assert commands == [
        orders.Kill(WorkerId(0, 2), "start-timeout"),
        orders.Spawn(WorkerId(0, 3), False, "upgrade"),
    ]
    assert play.fleet.slots[0].serving


def test_workers_are_recycled_by_age_one_at_a_time() -> None:
    """The oldest first, the next once it is replaced."""
    play = filled(max_age_s=10.0)
    commands = play.ticks(12.0)
    assert commands == [orders.Spawn(WorkerId(0, 2), False, "age")]
    assert play.do(orders.Ready(WorkerId(0, 2))) == [
        orders.Retire(A, 30.0, False),
        orders.Spawn(WorkerId(1, 2), False, "age"),
    ]


def test_stop() -> None:
    """Everybody drains, hung sockets are shut after a while, the end comes with the last exit."""
    play = filled()
    assert play.do(orders.Drain(5.0)) == [
        orders.Retire(A, 5.0, True),
        orders.Retire(B, 5.0, True),
    ]
    assert play.ticks(SHUT_AFTER_S + 2 * TICK_S) == [orders.Shut()]
    assert play.do(orders.Exited(A)) == []
    assert play.do(orders.Stop()) == [orders.Retire(B, 0.0, True)]
    assert play.ticks(1.2) == [orders.Kill(B, "deadline")]
    assert play.do(orders.Stop()) == []
    assert play.do(orders.Exited(B)) == [orders.Finish(0)]
    assert play.ticks(1.0) == []


def test_leaving_the_workers_to_the_next_master() -> None:
    """Nothing is killed, nothing drained."""
    assert filled().do(orders.Leave()) == [orders.Finish(0)]


def test_taking_over() -> None:
    """The old workers serve until ours are ready; a slot too many is given up after that."""
    left = (
        orders.Left(0, 4, bound=True, serving=4, leaving=(2,)),
        orders.Left(1, 1, bound=True),
        orders.Left(2, 7, bound=True, serving=7),
    )
    play = Play(2, left, drain_timeout_s=9.0)
    assert play.seen[:2] == [
        orders.Spawn(WorkerId(0, 5), False, "upgrade"),
        orders.Spawn(WorkerId(1, 2), False, "upgrade"),
    ]
    assert orders.Retire(WorkerId(2, 7), 9.0, False) in play.seen
    assert orders.Adopt(WorkerId(0, 4), 2) in play.seen
    play.seen.clear()
    play.do(orders.Failed(WorkerId(0, 5), "bind"))
    assert play.fleet.phase is Phase.RUNNING, "the old ones serve: nothing to end for"
    play.fill()
    assert orders.Retire(WorkerId(0, 4), 9.0, False) in play.seen
    assert orders.Announce() in play.seen
    assert (
        play.ticks(9.0 + KILL_MARGIN_S + 2 * TICK_S).count(orders.Kill(WorkerId(0, 2), "deadline"))
        == 1
    )


def test_news_of_the_dead_changes_nothing() -> None:
    """Messages and exits of workers that were reaped, or never were, are late news."""
    play = filled()
    play.do(orders.Exited(B))
    for event in (
        orders.Exited(B),
        orders.Ready(B),
        orders.Bound(B),
        orders.Ready(WorkerId(99, 1)),
        orders.Tick((B, WorkerId(-1, 1))),
    ):
        assert play.do(event) == []


def test_an_illegal_turn_changes_nothing() -> None:
    """A second Ready is a bug of the worker."""
    play = filled()
    with pytest.raises(IllegalTurnError, match="'Ready' while ready"):
        play.do(orders.Ready(A))
    assert play.fleet.slots[0].serving


def test_the_table_is_complete() -> None:
    """Every life can end, nothing follows the end, and the diagram shows every state."""
    for life in set(Life) - {Life.REAPED}:
        assert turn(life, Turn.EXIT) is Life.REAPED
    assert not any(before is Life.REAPED for before, _ in TRANSITIONS)
    assert all(life.value in draw_diagram() for life in Life)


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
        old = tuple(orders.Left(i, 3, bound=True, serving=3, leaving=(1,)) for i in range(left))
        self.spawned |= {WorkerId(i, gen) for i in range(left) for gen in (1, 3)}
        self.do(orders.Start(slots, old))

    def do(self, event: orders.Event) -> None:
        if self.finished:
            return
        for command in self.fleet.step(event, self.now):
            assert not self.finished, "Finish is the last word"
            match command:
                case orders.Spawn(who, exclusive, _):
                    assert not self.stopped, "no spawn after the stop"
                    assert who not in self.spawned
                    assert not exclusive or who.slot == 0
                    self.spawned.add(who)
                case orders.Kill(who, _):
                    assert who in self.spawned - self.reaped - self.killed
                    self.killed.add(who)
                case orders.Retire(who) | orders.Adopt(who) | orders.Release(who):
                    assert who in self.spawned - self.reaped
                case orders.Finish():
                    assert self.spawned == self.reaped, "every spawn is reaped before the end"
                    self.finished = True
                case _:
                    pass

    def pick(self, draw: Any, *lives: Life) -> WorkerId | None:
        found = [w.who for w in self.fleet.workers() if w.life in lives]
        return draw.draw(st.sampled_from(found)) if found else None

    @rule(draw=st.data())
    def get_ready(self, draw: Any) -> None:
        if who := self.pick(draw, Life.STARTING):
            self.do(orders.Bound(who))
            self.do(orders.Ready(who))

    @rule(draw=st.data())
    def die(self, draw: Any) -> None:
        if who := self.pick(draw, *set(Life) - {Life.REAPED}):
            self.reaped.add(who)
            self.do(orders.Exited(who))

    @rule(draw=st.data(), ticks=st.integers(1, 80), lively=st.booleans())
    def go_on(self, draw: Any, ticks: int, lively: bool) -> None:
        silent = None if lively else self.pick(draw, Life.READY, Life.HUNG, Life.DRAINING)
        for _ in range(ticks):
            self.now += TICK_S
            alive = tuple(w.who for w in self.fleet.workers() if w.who != silent)
            self.do(orders.Tick(alive))

    @rule(jump_s=st.floats(-1000, 1000).filter(lambda s: not 0 <= s <= 2 * GAP_S))
    def jump(self, jump_s: float) -> None:
        self.now += jump_s
        before = set(self.killed)
        self.do(orders.Tick())
        assert self.killed == before, "a jump of the clock kills nobody"

    @rule(by=st.integers(-3, 3))
    def resize(self, by: int) -> None:
        self.do(orders.Resize(by))
        assert self.fleet.wanted >= 1

    @rule()
    def renew(self) -> None:
        self.do(orders.Renew("upgrade"))

    @precondition(lambda self: self.fleet.announced)
    @rule(at_once=st.booleans())
    def stop(self, at_once: bool) -> None:
        self.stopped = True
        self.do(orders.Stop() if at_once else orders.Drain(1.0))

    @invariant()
    def one_ready_worker_in_a_slot(self) -> None:
        for slot in self.fleet.slots:
            assert sum(w.life in (Life.READY, Life.HUNG) for w in slot.workers()) <= 1
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
TestAnyFleet = AnyFleet.TestCase


def test_the_page_shows_the_table() -> None:
    """docs/life-of-a-worker.md has the diagram that the table draws."""
    page = (Path(__file__).parents[2] / "docs" / "life-of-a-worker.md").read_text()
    assert f"```mermaid\n{draw_diagram()}\n```" in page
