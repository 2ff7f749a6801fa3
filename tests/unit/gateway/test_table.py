"""What a worker dials next: priorities, suspects, failing open, and sessions counted."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.core.endpoint import RETIRED, Endpoint, EndpointState
from gateway.core.messages import Loads, Settings, Snapshot
from gateway.core.table import SUSPICION_REPORTS, Table

ACTIVE, INACTIVE, REMOVED = EndpointState.ACTIVE, EndpointState.INACTIVE, EndpointState.REMOVED


def endpoint(
    name: str, state: EndpointState = ACTIVE, *, priority: int = 0, weight: int = 0
) -> Endpoint:
    return Endpoint(name, ("127.0.0.1",), 1, priority, weight, state)


def snapshot(version: int, *endpoints: Endpoint, balance: str = "round-robin") -> Snapshot:
    return Snapshot(version, endpoints, Settings(balance=balance))


def table_of(*endpoints: Endpoint, balance: str = "round-robin", slots: int = 1) -> Table:
    table = Table(0, slots)
    table.apply(snapshot(1, *endpoints, balance=balance))
    return table


def names(table: Table, count: int) -> str:
    return "".join(picked.name for _ in range(count) if (picked := table.pick()))


def order(table: Table) -> str:
    """What one client is dialed to, one after the other, until nothing is left."""
    tried: list[str] = []
    while (picked := table.pick(tried)) is not None:
        tried.append(picked.name)
    return "".join(tried)


def test_empty() -> None:
    """Before the first snapshot, and with an empty one, there is nothing to pick."""
    table = Table(0, 1)
    assert (table.version, table.snapshot, table.pick()) == (0, None, None)
    assert table.apply(snapshot(3))
    assert (table.version, table.pick()) == (3, None)


def test_only_newer_snapshots_count() -> None:
    """An older snapshot, or the same again, changes nothing."""
    table = table_of(endpoint("a"))
    assert not table.apply(snapshot(1, endpoint("b")))
    assert names(table, 1) == "a"
    assert table.apply(snapshot(2, endpoint("b")))
    assert names(table, 1) == "b"


def test_lowest_priority_first() -> None:
    """The lowest priority with an active endpoint gets everything, whatever the weights."""
    table = table_of(endpoint("a", priority=20, weight=9), endpoint("b", priority=10))
    assert names(table, 3) == "bbb"
    assert order(table) == "ba"


def test_order_of_one_client() -> None:
    """Active by priority, then active suspects, then inactive by priority; removed ones never."""
    table = table_of(
        endpoint("r", REMOVED),
        endpoint("i", INACTIVE),
        endpoint("j", INACTIVE, priority=1),
        endpoint("a"),
        endpoint("s"),
        endpoint("t", priority=1),
        endpoint("b", priority=1),
    )
    table.suspect("t")
    table.suspect("s")
    assert order(table) == "abstij"


def test_fails_open_in_turn() -> None:
    """With nothing active every endpoint is tried, and the next client starts with the next."""
    table = table_of(endpoint("a", INACTIVE), endpoint("b", INACTIVE), endpoint("c", INACTIVE))
    assert [order(table), names(table, 3)] == ["abc", "abc"]


def test_next_snapshot_clears_suspicion() -> None:
    """The master's verdict replaces our own."""
    table = table_of(endpoint("a"), endpoint("b"))
    table.suspect("a")
    table.suspect("a")
    assert not table.is_trusted("a")
    assert names(table, 2) == "bb"
    table.apply(snapshot(2, endpoint("a"), endpoint("b")))
    assert table.is_trusted("a")
    assert Counter(names(table, 4)) == {"a": 2, "b": 2}


def test_suspicion_ends_without_a_verdict() -> None:
    """After some reports a suspicion that no snapshot confirmed is dropped."""
    table = table_of(endpoint("a"), endpoint("b"))
    table.suspect("a")
    for _ in range(SUSPICION_REPORTS):
        assert not table.is_trusted("a")
        table.reported()
    assert table.is_trusted("a")


def test_clients_are_directed_once() -> None:
    """Each name gets one client before its turn, and the rotation goes on as if it had not."""
    table = table_of(endpoint("a"), endpoint("b"), endpoint("c"))
    assert names(table, 2) == "ab"
    table.direct(["a", "a"])
    assert names(table, 5) == "aacab"


def test_a_direction_is_advice() -> None:
    """It holds for a first dial to what is active and no suspect, and is soon forgotten."""
    table = table_of(endpoint("a"), endpoint("b"), endpoint("c", INACTIVE))
    table.direct(["c", "x"])
    assert names(table, 2) == "ab"
    table.direct(["b"])
    assert order(table) == "bac", "a client that is directed tries the others as usual"
    table.direct(["b"])
    assert table.pick(["a"]) == endpoint("b")
    assert names(table, 1) == "b", "one that tried another one before did not use it up"


def test_a_direction_that_nobody_uses_is_forgotten() -> None:
    """By the second report, also where others are told meanwhile; those live as long themselves."""
    table = table_of(endpoint("a"), endpoint("b"))
    table.direct(["b", "b", "b"])
    table.reported()
    table.direct([])
    assert names(table, 2) == "bb", "it is not forgotten yet"
    table.direct(["b", "b"])
    table.reported()
    assert names(table, 4) == "bbab", "of the first three none is left"
    table.direct(["b"])
    table.reported()
    table.reported()
    assert names(table, 4) == "abab"


def test_no_client_is_directed_past_a_better_priority() -> None:
    """A direction may be older than the priorities: DNS changed them meanwhile."""
    table = table_of(endpoint("a"), endpoint("b"))
    table.direct(["b"])
    table.apply(snapshot(2, endpoint("a"), endpoint("b", priority=1)))
    assert names(table, 2) == "aa"
    table.suspect("a")
    table.direct(["b"])
    assert names(table, 2) == "bb"


def test_fewest_sessions_need_no_direction() -> None:
    """With least-sessions the endpoint that lacks sessions is next anyhow."""
    table = table_of(endpoint("a"), endpoint("b"), balance="least-sessions")
    table.direct(["a", "a"])
    assert sorted(names(table, 4)) == ["a", "a", "b", "b"]


def test_a_good_dial_ends_suspicion() -> None:
    """A suspect that was dialed after all, with success, is trusted; others are not affected."""
    table = table_of(endpoint("a"), endpoint("i", INACTIVE))
    table.suspect("a")
    table.trust("a")
    table.trust("i")
    assert table.is_trusted("a")
    assert not table.is_trusted("i")


def test_only_active_ones_are_suspected() -> None:
    """Suspecting an inactive, removed or unknown endpoint changes nothing."""
    table = table_of(endpoint("i", INACTIVE), endpoint("r", REMOVED))
    for name in ("i", "r", "gone"):
        table.suspect(name)
        assert not table.is_trusted(name)
    assert order(table) == "i"


def test_a_health_change_keeps_the_rotation() -> None:
    """A snapshot that only changes states goes on where the rotation was."""
    table = table_of(*map(endpoint, "abcd"))
    assert names(table, 2) == "ab"
    table.apply(snapshot(2, endpoint("a"), endpoint("b"), endpoint("c", INACTIVE), endpoint("d")))
    assert names(table, 3) == "dab"
    table.apply(snapshot(3, *map(endpoint, "abcd")))
    assert names(table, 4) == "cdab"


def test_a_new_member_does_not_restart_the_rotation() -> None:
    """A snapshot with one endpoint more does not send everybody to the head of the list again."""
    table = table_of(*map(endpoint, "abcd"))
    assert names(table, 2) == "ab"
    table.apply(snapshot(2, *map(endpoint, "abcde")))
    assert names(table, 3) == "cde"


def test_changed_weights_count_at_once() -> None:
    """New weights are shares from the snapshot that brings them."""
    table = table_of(endpoint("a", weight=1), endpoint("b", weight=1))
    table.apply(snapshot(2, endpoint("a", weight=1), endpoint("b", weight=3)))
    assert Counter(names(table, 40)) == {"a": 10, "b": 30}


def test_least_sessions_counts_the_burst() -> None:
    """Clients that were picked for but are not connected yet count, so a burst is spread."""
    table = table_of(*map(endpoint, "abc"), balance="least-sessions", slots=4)
    assert Counter(names(table, 30)) == {"a": 10, "b": 10, "c": 10}


def test_least_sessions_uses_the_masters_totals() -> None:
    """Sessions of other workers count, and our own changes since are added."""
    table = table_of(*map(endpoint, "ab"), balance="least-sessions")
    table.take_loads(Loads({"a": 5, "b": 1}))
    assert names(table, 3) == "bbb"
    for _ in range(3):
        table.session_started("b")
    table.session_ended("b")
    assert names(table, 1) == "b"


def test_least_sessions_follows_ends() -> None:
    """An endpoint whose sessions end is chosen again."""
    table = table_of(*map(endpoint, "ab"), balance="least-sessions")
    for name in "aabb":
        table.session_started(name)
    table.session_ended("b")
    assert names(table, 1) == "b"


def test_own_sessions_are_not_counted_twice() -> None:
    """What our report told is in the next totals; what came after it is added to them."""
    table = table_of(*map(endpoint, "ab"), balance="least-sessions")
    for _ in range(4):
        table.session_started("a")
    table.reported()
    table.session_started("a")
    table.take_loads(Loads({"a": 4, "b": 5}))
    assert names(table, 1) == "a"
    table.take_loads(Loads({"a": 4, "b": 4}))
    assert names(table, 1) == "b"


def test_totals_change_nothing_in_turn() -> None:
    """Totals on their way when the method changed are no reason to leave an endpoint out."""
    table = table_of(*map(endpoint, "ab"))
    turns = names(table, 2)
    table.take_loads(Loads({"a": 4, "b": 0}))
    assert names(table, 2) == turns


def test_others_are_taken_to_do_alike() -> None:
    """With four workers one new session of ours counts as four until the totals tell."""
    table = table_of(*map(endpoint, "ab"), balance="least-sessions", slots=4)
    table.take_loads(Loads({"a": 8}))
    assert names(table, 3) == "bba"


def test_a_change_of_the_method_keeps_the_counts() -> None:
    """Reloading to least-sessions knows the sessions that are open; and back again works."""
    table = table_of(*map(endpoint, "ab"), endpoint("r", REMOVED))
    table.session_started("a")
    for _ in range(2):
        table.session_started("b")
        table.session_ended("b")
    table.session_started("r")
    table.session_started("gone")
    table.apply(snapshot(2, *map(endpoint, "ab"), endpoint("r", REMOVED), balance="least-sessions"))
    table.session_ended("r")
    table.session_ended("gone")
    assert names(table, 1) == "b"
    table.apply(snapshot(3, *map(endpoint, "ab")))
    assert Counter(names(table, 4)) == {"a": 2, "b": 2}


def test_three_thousand_endpoints_that_fail() -> None:
    """One client that fails on all of 3,000 endpoints is offered each exactly once."""
    table = table_of(*(endpoint(f"e{i}", weight=i % 7) for i in range(3000)))
    tried: dict[str, None] = {}
    while (picked := table.pick(tried)) is not None:
        assert picked.name not in tried
        tried[picked.name] = None
        table.suspect(picked.name)
    assert len(tried) == 3000


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 3), st.sampled_from(EndpointState)), max_size=8
    ),
    st.sampled_from(["round-robin", "least-sessions"]),
)
def test_everything_but_removed_is_tried_once(
    rows: list[tuple[int, int, EndpointState]], balance: str
) -> None:
    """One client is offered every endpoint that is not retired, once, active ones first."""
    endpoints = [
        endpoint(f"e{i}", state, priority=priority, weight=weight)
        for i, (priority, weight, state) in enumerate(rows)
    ]
    table = table_of(*endpoints, balance=balance)
    tried: list[Endpoint] = []
    while (picked := table.pick([each.name for each in tried])) is not None:
        tried.append(picked)
    assert set(tried) == {each for each in endpoints if each.state not in RETIRED}
    keys = [(each.state is INACTIVE, each.priority) for each in tried]
    assert keys == sorted(keys)


def test_the_lower_tier_comes_first_within_its_priority() -> None:
    """Preferred endpoints take all while one of them is active, then the others of the priority."""
    near = Endpoint("n", ("10.0.0.1",), 1, 0, 0, ACTIVE)
    far = Endpoint("f", ("10.1.0.1",), 1, 0, 0, ACTIVE, tier=1)
    backup = Endpoint("b", ("10.0.0.2",), 1, 1, 0, ACTIVE)
    table = table_of(backup, far, near)
    assert names(table, 3) == "nnn"
    assert order(table) == "nfb"
    table.suspect("n")
    assert names(table, 2) == "ff"
    table.trust("n")
    assert names(table, 1) == "n"


@pytest.mark.parametrize("balance", ["round-robin", "least-sessions"])
def test_one_that_came_back_gets_a_part_of_its_share(balance: str) -> None:
    """At a tenth of its share it gets one session for ten of each other, in both balancers."""
    others = [endpoint("a"), endpoint("b")]
    table = table_of(*others, replace(endpoint("c"), ramp=10), balance=balance)
    got: Counter[str] = Counter()
    for _ in range(210):
        picked = table.pick()
        assert picked is not None
        table.session_started(picked.name)
        got[picked.name] += 1
    assert got["c"] == 10
    assert abs(got["a"] - got["b"]) <= 1
    table.apply(snapshot(2, *others, endpoint("c"), balance=balance))
    if balance == "round-robin":
        assert Counter(names(table, 30)) == {"a": 10, "b": 10, "c": 10}
    else:
        assert Counter(names(table, 30)) == {"c": 30}, "it is the emptiest now"


class Tables(RuleBasedStateMachine):
    """Any history of snapshots, suspicions, loads and sessions."""

    @initialize(balance=st.sampled_from(["round-robin", "least-sessions"]))
    def start(self, balance: str) -> None:
        self.table = Table(1, 3)
        self.balance = balance
        self.states: dict[str, EndpointState] = {}
        self.suspects: set[str] = set()
        self.open: list[str] = []

    @rule(states=st.dictionaries(st.sampled_from("abcdef"), st.sampled_from(EndpointState)))
    def apply(self, states: dict[str, EndpointState]) -> None:
        endpoints = [endpoint(name, state) for name, state in sorted(states.items())]
        self.table.apply(snapshot(self.table.version + 1, *endpoints, balance=self.balance))
        self.states = states
        self.suspects.clear()

    @rule(name=st.sampled_from("abcdef"))
    def suspect(self, name: str) -> None:
        self.table.suspect(name)
        if self.states.get(name) is ACTIVE:
            self.suspects.add(name)

    @rule(name=st.sampled_from("abcdef"))
    def trust(self, name: str) -> None:
        self.table.trust(name)
        self.suspects.discard(name)

    @rule(totals=st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 9)))
    def loads(self, totals: dict[str, int]) -> None:
        self.table.take_loads(Loads(totals))

    @rule()
    def report(self) -> None:
        self.table.reported()
        self.suspects = {name for name in self.suspects if not self.table.is_trusted(name)}

    @rule(tried=st.sets(st.sampled_from("abcdef")))
    def pick(self, tried: set[str]) -> None:
        picked = self.table.pick(tried)
        untried = {name for name in self.states if name not in tried}
        active = {name for name in untried if self.states[name] is ACTIVE}
        inactive = {name for name in untried if self.states[name] is INACTIVE}
        expected = active - self.suspects or active & self.suspects or inactive
        assert picked.name in expected if picked else not expected
        if picked:
            self.table.session_started(picked.name)
            self.open.append(picked.name)

    @precondition(lambda self: self.open)
    @rule()
    def end(self) -> None:
        self.table.session_ended(self.open.pop())

    @invariant()
    def trusted_means_active_and_no_suspect(self) -> None:
        for name in "abcdef":
            active = self.states.get(name) is ACTIVE
            assert self.table.is_trusted(name) == (active and name not in self.suspects)


TestTables = pytest.mark.slow(Tables.TestCase)
TestTables.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_sessions_are_counted_by_address_for_least_sessions() -> None:
    """Those of other workers and our own; without least-sessions the addresses take turns."""
    two = Endpoint("two:1", ("10.0.0.1", "10.0.0.2"), 1)
    table = table_of(two, balance="least-sessions")
    table.take_loads(Loads({"two:1": 3}, {"two:1": {"10.0.0.1": 3}}))
    table.session_started("two:1", "10.0.0.2")
    assert table.address_loads(two) == {"10.0.0.1": 3, "10.0.0.2": 1}
    table.session_ended("two:1", "10.0.0.2")
    assert table.address_loads(two) == {"10.0.0.1": 3, "10.0.0.2": 0}
    assert table_of(two).address_loads(two) is None


def test_a_session_whose_endpoint_got_a_second_address_counts_at_the_first() -> None:
    """Else the first address would look empty, and get all new sessions."""
    two = Endpoint("two:1", ("10.0.0.1", "10.0.0.2"), 1)
    table = table_of(two, balance="least-sessions")
    table.session_started("two:1")
    table.address_known("two:1", "10.0.0.1")
    assert table.address_loads(two) == {"10.0.0.1": 1, "10.0.0.2": 0}
    table.session_ended("two:1", "10.0.0.1")
    assert table.address_loads(two) == {"10.0.0.1": 0, "10.0.0.2": 0}


def test_workers_begin_with_different_addresses_of_a_name() -> None:
    """Neighbours begin with neighbouring addresses, and each host somewhere else."""
    turns = [Table(slot, 4).first_turn("two:1") for slot in range(4)]
    assert [turn - turns[0] for turn in turns] == [0, 1, 2, 3]
