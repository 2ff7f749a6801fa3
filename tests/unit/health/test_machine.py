"""One endpoint's health: what evidence does, and when the next probe is due."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.core.endpoint import EndpointState
from supervisor.core.health.damping import FREE_FLAPS, STABLE_S
from supervisor.core.health.health_view import HealthView
from supervisor.core.health.machine import (
    PROBE_GAP_S,
    SETTLE_S,
    Health,
    HealthChange,
    Rules,
)

UP, DOWN = HealthChange.ACTIVATED, HealthChange.DEACTIVATED
OFF = Rules(probe_active=False)


def even(_: int) -> int:
    """A draw without jitter for backoff; intervals come out a tenth short."""
    return 0


def latest(n: int) -> int:
    """The draw that makes every wait as long as it can be."""
    return n - 1


def born(rules: Rules | None = None) -> Health:
    return Health(rules or Rules(), 0.0)


def passed(health: Health, now: float) -> HealthChange | None:
    health.probe_started()
    return health.probe_passed(now, even)


def failed(health: Health, now: float, error: str = "refused") -> HealthChange | None:
    health.probe_started()
    return health.probe_failed(error, now, even)


def dial_failed(health: Health, now: float) -> HealthChange | None:
    return health.dial_failed("refused", now, began_at=now)


def test_born_active_and_probed_at_once() -> None:
    """A new endpoint is used until something speaks against it, and is probed at once."""
    health = born()
    assert health.active
    assert health.next_probe_at == 0.0
    assert born(OFF).next_probe_at == math.inf


def test_probed_every_interval() -> None:
    """While probes pass, the next one is an interval away, and none is due while one runs."""
    health = born()
    health.probe_started()
    assert health.next_probe_at == math.inf
    assert health.probe_passed(1.0, even) is None
    assert health.next_probe_at == pytest.approx(6.0)
    passed(health, 6.0)
    assert health.next_probe_at == pytest.approx(6.0 + 0.9 * 5.0)


def test_one_failed_probe_deactivates() -> None:
    """With fall 1 a failed probe turns it inactive, and says why."""
    health = born()
    assert failed(health, 1.0, "503") is DOWN
    assert not health.active
    assert health.last_error == "503"
    assert passed(health, 1.1) is UP
    assert (health.last_error, health.last_error_at) == ("503", 1.0)


def test_backoff() -> None:
    """An inactive endpoint is probed after 100 ms, then after twice as long, up to a cap."""
    health = born(Rules(retry_delay_s=0.5))
    waits = []
    for _ in range(5):
        failed(health, 10.0)
        waits.append(health.next_probe_at - 10.0)
    assert waits == pytest.approx([0.1, 0.2, 0.4, 0.5, 0.5])


def test_backoff_starts_anew() -> None:
    """An endpoint that came back and fails again is probed quickly again."""
    health = born()
    for _ in range(5):
        failed(health, 10.0)
    passed(health, 20.0)
    failed(health, 30.0)
    assert health.next_probe_at == pytest.approx(30.1)


def test_fall() -> None:
    """With fall 3 two failures do not deactivate, are settled quickly, and a good one forgives."""
    health = born(Rules(fall=3))
    assert [failed(health, 1.0), failed(health, 2.0), passed(health, 3.0)] == [None] * 3
    assert [failed(health, 4.0), failed(health, 5.0)] == [None] * 2
    assert health.next_probe_at == pytest.approx(5.0 + SETTLE_S)
    assert failed(health, 6.0) is DOWN


def test_rise() -> None:
    """With rise 2 one good probe is not enough, and the second follows quickly."""
    health = born(Rules(rise=2))
    failed(health, 1.0)
    assert passed(health, 2.0) is None
    assert health.next_probe_at == pytest.approx(2.0 + SETTLE_S)
    assert [failed(health, 3.0), passed(health, 4.0), passed(health, 5.0)] == [None, None, UP]


def test_settling_is_never_slower_than_the_interval() -> None:
    """A short interval settles a doubt as quickly."""
    health = born(Rules(fall=2, interval_s=0.3))
    failed(health, 1.0)
    assert health.next_probe_at == pytest.approx(1.3)


def test_failed_dial_deactivates_and_is_checked_at_once() -> None:
    """One worker's failed dial turns it inactive for all, and a probe checks it now."""
    health = born()
    passed(health, 1.0)
    assert dial_failed(health, 3.0) is DOWN
    assert health.next_probe_at == 3.0
    assert passed(health, 3.001) is UP


def test_failed_dial_with_fall_is_checked_at_once() -> None:
    """With fall 2 the failed dial is half of it, and the probe that follows decides."""
    health = born(Rules(fall=2))
    passed(health, 1.0)
    assert dial_failed(health, 3.0) is None
    assert health.next_probe_at == 3.0
    assert failed(health, 3.001) is DOWN


def test_hurry_keeps_the_gap() -> None:
    """A dial that fails right after a probe waits for the least time between two probes."""
    health = born()
    passed(health, 1.0)
    dial_failed(health, 1.01)
    assert health.next_probe_at == pytest.approx(1.0 + PROBE_GAP_S)


def test_failed_dial_during_a_probe() -> None:
    """A probe that runs is not joined by a second one; its result counts after the dial's."""
    health = born()
    health.probe_started()
    assert dial_failed(health, 1.0) is DOWN
    assert health.next_probe_at == math.inf
    assert health.probe_passed(1.1, even) is UP


def test_failed_dial_of_an_inactive_one_is_no_news() -> None:
    """Workers that fail open do not bring forward the probes of what is down."""
    health = born()
    failed(health, 1.0)
    due = health.next_probe_at
    assert dial_failed(health, 1.01) is None
    assert health.next_probe_at == due


def test_stale_dial_failure_is_no_evidence() -> None:
    """A timeout of a dial that began before the last good probe changes nothing but is checked."""
    health = born()
    passed(health, 5.0)
    assert health.dial_failed("timeout", 6.0, began_at=4.0) is None
    assert health.active
    assert health.next_probe_at == 6.0


def test_good_dial_counts_like_a_tcp_probe() -> None:
    """A worker that failed open and reached it makes it active for all."""
    health = born()
    for _ in range(9):
        failed(health, 1.0)
    assert health.dial_succeeded(2.0, even) is UP
    assert health.next_probe_at == pytest.approx(2.0 + 4.5)
    assert health.dial_succeeded(2.1, even) is None


def test_good_dial_while_a_probe_runs() -> None:
    """A dial may activate while a probe runs; the probe's end schedules the next."""
    health = born()
    failed(health, 1.0)
    health.probe_started()
    assert health.dial_succeeded(2.0, even) is UP
    assert health.next_probe_at == math.inf
    assert health.probe_failed("refused", 2.1, even) is DOWN


def test_good_dial_proves_nothing_about_service() -> None:
    """Where health means more than TCP, a good dial only hurries the probe of an inactive one."""
    health = born(Rules(dials_prove=False))
    passed(health, 0.0)
    due = health.next_probe_at
    assert health.dial_succeeded(1.0, even) is None
    assert health.next_probe_at == due
    for _ in range(9):
        failed(health, 1.0)
    assert health.dial_succeeded(2.0, even) is None
    assert not health.active
    assert health.next_probe_at == 2.0


def test_hints() -> None:
    """A hint brings the next probe forward, but not close to the last one."""
    health = born()
    passed(health, 1.0)
    health.hint(1.5)
    assert health.next_probe_at == pytest.approx(1.0 + SETTLE_S)
    passed(health, 2.0)
    health.hint(4.0)
    assert health.next_probe_at == 4.0
    health.hint(4.5)
    assert health.next_probe_at == 4.0


def test_state_of_the_view() -> None:
    """The view speaks the words of the status document."""
    assert HealthView(active=True, since=0.0).state is EndpointState.ACTIVE
    assert HealthView(active=False, since=0.0).state is EndpointState.INACTIVE


def test_our_own_failures_are_no_evidence() -> None:
    """A probe that failed for a reason of our host's changes nothing, and does not spin."""
    health = born()
    health.probe_started()
    health.probe_undecided(1.0, even)
    assert health.active
    assert health.next_probe_at == pytest.approx(1.1)
    failed(health, 2.0)
    waits = []
    for _ in range(3):
        health.probe_started()
        health.probe_undecided(3.0, even)
        waits.append(health.next_probe_at - 3.0)
    assert waits == pytest.approx([0.1, 0.2, 0.4])
    assert not health.active
    assert health.is_due(4.0, even), "no evidence is no reason to wait"


def test_our_own_failures_do_not_spin() -> None:
    """A probe that keeps failing for our own reasons is made again ever more seldom."""
    health = born()
    for _ in range(50):
        health.probe_started()
        health.probe_undecided(1.0, even)
    assert health.next_probe_at == pytest.approx(6.0)
    passed(health, 6.0)
    health.probe_started()
    health.probe_undecided(7.0, even)
    assert health.next_probe_at == pytest.approx(7.1)


def test_waits_after_failures_are_drawn_as_a_whole() -> None:
    """Hosts that saw it fail together ask at any time between the gap and the end of the wait."""
    waits = []
    for dice in (0, 511, 1023):
        health = born(Rules(retry_delay_s=60.0))
        for _ in range(20):
            health.probe_started()
            health.probe_failed("timeout", 10.0, lambda _, dice=dice: dice)  # type: ignore[misc]
        waits.append(health.next_probe_at - 10.0)
    assert waits == pytest.approx([60.0, 30.06, PROBE_GAP_S], abs=0.01)


def test_the_first_interval_is_drawn_as_a_whole() -> None:
    """Hosts that were started together do not probe together a second time."""
    health = born()
    health.probe_started()
    health.probe_passed(0.0, lambda n: n // 2)
    assert health.next_probe_at == pytest.approx(2.5)


def traffic(
    health: Health, now: float, *, sessions: int = 0, dialed: bool = False, answered: bool = False
) -> None:
    health.take_traffic(now, even, sessions=sessions, dialed=dialed, answered=answered)


def test_idle_ones_are_probed_seldom() -> None:
    """Without sessions and dials the probe waits for the idle interval, first by chance."""
    health = born()
    passed(health, 0.0)
    passed(health, 5.0)
    assert not health.is_due(10.0, lambda n: n // 2)
    assert 10.0 < health.next_probe_at < 40.0, "somewhere before the idle interval is over"
    assert health.is_due(health.next_probe_at, even), "it is put off once, not again and again"
    passed(health, health.next_probe_at)
    last = health.next_probe_at
    assert not health.is_due(last, even)
    assert health.next_probe_at == pytest.approx(last - 4.5 + 0.9 * 60.0)
    assert health.is_due(health.next_probe_at, even)


def test_the_idle_interval_is_no_shorter_than_the_other() -> None:
    """A long interval counts for idle endpoints too."""
    health = born(Rules(interval_s=300.0, idle_interval_s=60.0))
    passed(health, 0.0)
    assert health.is_due(300.0, even)


def test_one_that_is_used_again_is_probed_again() -> None:
    """With the first session the probes come back, an interval away at most."""
    health = born(Rules(dials_prove=False, bytes_prove=False))
    passed(health, 0.0)
    passed(health, 5.0)
    assert not health.is_due(10.0, lambda n: n - 1)
    traffic(health, 12.0, sessions=1, dialed=True)
    assert health.next_probe_at == pytest.approx(12.0 + 4.5)
    traffic(health, 13.0, sessions=1, answered=True)
    assert health.next_probe_at == pytest.approx(12.0 + 4.5)
    assert health.is_due(16.5, even)


def test_traffic_proves_a_tcp_endpoint() -> None:
    """Dials and bytes put the probe off, until it is as old as an idle one's."""
    for proof in ({"dialed": True}, {"answered": True}):
        health = born()
        passed(health, 0.0)
        for second in range(1, 66):
            traffic(health, float(second), sessions=1, **proof)
            if second % 5 == 0:
                assert not health.is_due(float(second), latest)
        assert health.is_due(66.0, latest)


def test_sessions_without_an_answer_prove_nothing() -> None:
    """An endpoint that holds sessions and says nothing keeps its interval."""
    health = born()
    passed(health, 0.0)
    traffic(health, 1.0, sessions=1, dialed=True)
    traffic(health, 6.0, sessions=1)
    assert health.is_due(6.5, even)


def test_an_old_answer_puts_nothing_off() -> None:
    """What it answered longer than an interval ago proves nothing of now."""
    health = born()
    passed(health, 0.0)
    traffic(health, 1.0, sessions=1, answered=True)
    traffic(health, 7.0, sessions=1)
    assert health.is_due(7.0, even)


def test_a_dial_proves_no_tls() -> None:
    """Behind an open port TLS may be broken; bytes that clients got are what proves it."""
    health = born(Rules(dials_prove=False))
    passed(health, 0.0)
    traffic(health, 4.0, sessions=1, dialed=True)
    assert health.is_due(5.0, even)
    traffic(health, 5.0, sessions=1, answered=True)
    assert not health.is_due(5.0, latest)


def test_doubts_are_not_put_off() -> None:
    """A probe that somebody asked for, or that decides a doubt, is due whatever moves."""
    health = born(Rules(fall=2))
    passed(health, 0.0)
    traffic(health, 1.0, sessions=1, answered=True)
    health.hint(1.0)
    assert health.is_due(1.0, even)
    failed(health, 1.0)
    traffic(health, 2.0, sessions=1, answered=True)
    assert health.is_due(2.0, even)


def test_too_few_active_ones_keep_it() -> None:
    """A failed probe takes nothing away then, a failed dial does; and a good probe forgets it."""
    health = born()
    health.probe_started()
    assert health.probe_failed("timeout", 1.0, even, keep=True) is None
    assert health.active
    assert health.kept
    assert health.last_error == "timeout"
    passed(health, 2.0)
    assert not health.kept
    health.probe_started()
    health.probe_failed("timeout", 3.0, even, keep=True)
    assert dial_failed(health, 4.0) is DOWN
    assert not health.kept


def test_a_kept_one_is_probed_with_backoff() -> None:
    """A host that is cut off does not hammer, and asks no more seldom than of an active one."""
    health = born()
    waits = []
    for _ in range(9):
        health.probe_started()
        health.probe_failed("timeout", 1.0, even, keep=True)
        waits.append(health.next_probe_at - 1.0)
    assert waits[:3] == pytest.approx([0.1, 0.2, 0.4])
    assert waits[-1] == pytest.approx(5.0)


def test_without_health_checks_only_dials_tell() -> None:
    """With checks off an active endpoint is never probed, an inactive one with backoff."""
    health = born(OFF)
    assert dial_failed(health, 1.0) is DOWN
    assert health.next_probe_at == 1.0
    failed(health, 1.0)
    assert health.next_probe_at == pytest.approx(1.1)
    assert passed(health, 1.1) is UP
    assert health.next_probe_at == math.inf


def flap(health: Health, now: float) -> HealthChange | None:
    """Down at ``now``, a good probe right after."""
    failed(health, now)
    return passed(health, now + 0.1)


def test_flapping_is_damped() -> None:
    """After a few quick changes it is held inactive, longer each time, up to the retry delay."""
    health = born(Rules(retry_delay_s=3.0))
    for i in range(1 + FREE_FLAPS):
        assert flap(health, float(i)) is UP
        assert health.hold_s(i + 0.1) == 0.0
    holds = []
    now = 10.0
    for _ in range(4):
        assert flap(health, now) is None
        holds.append(health.hold_s(now))
        assert health.next_probe_at == pytest.approx(now + max(holds[-1], SETTLE_S + 0.1))
        now += holds[-1]
        assert passed(health, now) is UP
        assert health.hold_s(now) == 0.0
    assert holds == pytest.approx([1.0, 2.0, 3.0, 3.0])


def test_a_good_dial_does_not_end_a_hold() -> None:
    """A held endpoint stays inactive whatever is good about it, until the hold is over."""
    health = born()
    for i in range(2 + FREE_FLAPS):
        flap(health, float(i))
    assert health.dial_succeeded(4.5, even) is None
    assert health.dial_succeeded(5.1, even) is UP


def test_stability_forgives_flaps() -> None:
    """Who was active for a while is not held for what it did before."""
    health = born()
    for i in range(1 + FREE_FLAPS):
        flap(health, float(i))
    assert flap(health, 10.0 + STABLE_S) is UP


def test_new_rules() -> None:
    """After a reload what is probed is probed at once, and the rest no more."""
    health = born()
    passed(health, 1.0)
    health.follow(OFF, 2.0)
    assert health.next_probe_at == math.inf
    health.follow(Rules(interval_s=1.0), 3.0)
    assert health.next_probe_at == 3.0
    failed(health, 3.0)
    health.follow(OFF, 9.0)
    assert health.next_probe_at == pytest.approx(3.1)


def test_without_probes_none_is_kept() -> None:
    """A reload turns probes off: that they failed does not count any more."""
    health = born()
    health.probe_started()
    assert health.probe_failed("refused", 1.0, even, keep=True) is None
    assert health.kept
    health.follow(OFF, 2.0)
    assert (health.active, health.kept, health.next_probe_at) == (True, False, math.inf)


def test_a_reload_to_a_shorter_retry_delay_shortens_a_hold() -> None:
    """No endpoint is held for longer than the configuration in force allows."""
    health = born(Rules(retry_delay_s=10.0))
    health.start_inactive("refused", 100.0)
    health.resume_damping(6, 8.0, 2.0, 100.0)
    health.follow(Rules(retry_delay_s=5.0), 101.0)
    assert health.hold_s(101.0) == 2.0
    assert passed(health, 102.0) is None
    assert health.next_probe_at == pytest.approx(103.0)
    assert passed(health, 103.0) is UP
    health.follow(Rules(retry_delay_s=10.0), 104.0)
    assert health.hold_s(104.0) == 0.0


@given(st.lists(st.booleans(), min_size=1, max_size=40), st.integers(1, 4), st.integers(1, 4))
def test_active_iff_the_evidence_says_so(results: list[bool], rise: int, fall: int) -> None:
    """Far apart, the state flips exactly after ``fall`` bad or ``rise`` good ones in a row."""
    health = born(Rules(rise=rise, fall=fall))
    active, run, last = True, 0, True
    for i, good in enumerate(results):
        run = run + 1 if good is last else 1
        last = good
        now = 1000.0 * i
        (passed if good else failed)(health, now)
        if good is not active and run >= (rise if good else fall):
            active = good
        assert health.active is active


class Evidence(RuleBasedStateMachine):
    """Any history of probes, dials, time and reloads."""

    rules_drawn = st.builds(
        Rules,
        interval_s=st.floats(0.1, 10),
        idle_interval_s=st.floats(0.1, 100),
        retry_delay_s=st.floats(0.2, 60),
        rise=st.integers(1, 3),
        fall=st.integers(1, 3),
        probe_active=st.booleans(),
        dials_prove=st.booleans(),
        bytes_prove=st.booleans(),
    )

    @initialize(rules=rules_drawn)
    def start(self, rules: Rules) -> None:
        self.now = 0.0
        self.health = Health(rules, 0.0)
        self.dice = 0

    def draw(self, n: int) -> int:
        self.dice = (self.dice * 7919 + 13) % 1_000_003
        return self.dice % n

    def told(self, change: HealthChange | None, was: bool) -> None:
        expected = None if self.health.active is was else UP if self.health.active else DOWN
        assert change is expected

    @rule(seconds=st.floats(0, 100))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.health.next_probe_at < math.inf)
    @rule()
    def probe(self) -> None:
        self.now = max(self.now, self.health.next_probe_at)
        if self.health.is_due(self.now, self.draw):
            self.health.probe_started()
        else:
            assert self.now < self.health.next_probe_at < math.inf

    @precondition(lambda self: self.health.probing)
    @rule(result=st.sampled_from(["passed", "failed", "undecided"]))
    def end_probe(self, result: str) -> None:
        was = self.health.active
        change = None
        if result == "passed":
            change = self.health.probe_passed(self.now, self.draw)
        elif result == "failed":
            change = self.health.probe_failed("e", self.now, self.draw)
        else:
            self.health.probe_undecided(self.now, self.draw)
        self.told(change, was)
        if (
            result == "passed"
            and self.health.rules.rise == 1
            and self.now >= self.health.damping.hold_until
        ):
            assert self.health.active
        if result == "failed" and self.health.rules.fall == 1:
            assert not self.health.active

    @rule(ago=st.floats(0, 3))
    def fail_dial(self, ago: float) -> None:
        was = self.health.active
        self.told(self.health.dial_failed("e", self.now, began_at=self.now - ago), was)

    @rule()
    def succeed_dial(self) -> None:
        was = self.health.active
        self.told(self.health.dial_succeeded(self.now, self.draw), was)
        assert self.health.active is was or self.health.rules.dials_prove

    @rule(sessions=st.integers(0, 2), dialed=st.booleans(), answered=st.booleans())
    def report(self, sessions: int, dialed: bool, answered: bool) -> None:
        self.health.take_traffic(
            self.now, self.draw, sessions=sessions, dialed=dialed, answered=answered
        )

    @rule(rules=rules_drawn)
    def reload(self, rules: Rules) -> None:
        self.health.follow(rules, self.now)

    @invariant()
    def nobody_is_forgotten(self) -> None:
        """What is inactive, or doubted, or probed at all has a next probe unless one runs."""
        health = self.health
        due = health.next_probe_at
        if health.probing:
            assert due == math.inf
        elif health.rules.probe_active or not health.active:
            assert due < math.inf

    @invariant()
    def nobody_waits_too_long(self) -> None:
        """The next probe of an inactive one is at most the retry delay away, or the hold."""
        health = self.health
        if not health.active and not health.probing:
            longest = max(60.0, health.hold_s(self.now))
            assert health.next_probe_at <= self.now + longest

    @invariant()
    def an_active_one_is_asked_within_its_intervals(self) -> None:
        """Nothing puts off the question for longer than the longest interval, or the hold."""
        health = self.health
        if health.active and not health.probing and health.rules.probe_active:
            longest = 1.1 * max(health.rules.longest_s, 100.0)
            assert health.next_probe_at <= self.now + longest

    @invariant()
    def only_inactive_ones_are_held(self) -> None:
        assert self.health.hold_s(self.now) == 0.0 or not self.health.active


TestEvidence = pytest.mark.slow(Evidence.TestCase)
TestEvidence.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


@pytest.mark.parametrize("rules", [Rules(fall=3), Rules(fall=3, probe_active=False)])
def test_what_a_former_master_held_inactive_is_inactive(rules: Rules) -> None:
    """However many failures it takes, and it is probed at once, even with probes off."""
    health = born(rules)
    health.start_inactive("refused", 5.0)
    assert not health.active
    assert (health.last_error, health.last_error_at) == ("refused", 5.0)
    assert health.next_probe_at <= 5.0
    assert passed(health, 5.0) is UP


def test_damping_goes_on_where_a_former_master_was() -> None:
    """Its flaps count on, it stays held as long as it was to be, and no longer than allowed."""
    health = born(Rules())
    health.start_inactive("refused", 100.0)
    health.resume_damping(5, 8.0, 2.0, 100.0)
    assert health.hold_s(100.0) == 8.0
    assert passed(health, 101.0) is None
    assert passed(health, 108.5) is UP
    assert dial_failed(health, 109.0) is DOWN
    assert health.damping.flaps == 6
    health.resume_damping(6, 1e9, 2.0, 200.0)
    assert health.hold_s(200.0) == Rules().retry_delay_s
