"""The roster: DNS and health joined into one versioned list."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.endpoint import EndpointState
from gateway.core.messages import Settings
from gateway.core.networks import Networks
from supervisor.core.discovery.endpoints import Discovered, EndpointsChange
from supervisor.core.roster import Roster
from supervisor.core.roster_member import SETTLE_S, Policy, Since

SETTINGS = Settings()


def found(name: str, **fields: int) -> Discovered:
    return replace(Discovered(f"{name}:1", name, 1, ("10.0.0.1",)), **fields)  # type: ignore[arg-type]


A, B, C = found("a"), found("b"), found("c")


def states(roster: Roster) -> dict[str, EndpointState]:
    return {e.name: e.state for e in roster.snapshot(SETTINGS).endpoints}


def test_new_endpoints_start_active_in_the_order_of_resolution() -> None:
    """New endpoints are active at once, in the order resolution gave them."""
    roster = Roster(version=6)
    assert roster.resolve([B, A], 0, 30) == EndpointsChange(added=("b:1", "a:1"))
    snapshot = roster.snapshot(SETTINGS)
    assert snapshot.version == 7
    assert [e.name for e in snapshot.endpoints] == ["b:1", "a:1"]
    assert set(states(roster).values()) == {EndpointState.ACTIVE}


def test_version_grows_only_on_change() -> None:
    """The same endpoints and settings keep the version; a changed setting raises it."""
    roster = Roster()
    roster.resolve([A, B], 0, 30)
    first = roster.snapshot(SETTINGS)
    assert not roster.resolve([A, B], 1, 30)
    assert roster.snapshot(SETTINGS) is first
    assert roster.snapshot(replace(SETTINGS, idle_timeout_s=1)).version == first.version + 1


def test_a_changed_weight_keeps_state_and_sessions() -> None:
    """A changed priority, weight or address is a change of the same endpoint."""
    roster = Roster()
    roster.resolve([A], 0, 30)
    roster.judge("a:1", False, 0.0)
    roster.sessions("a:1", 3)
    assert roster.resolve([replace(A, weight=5)], 2, 30) == EndpointsChange(changed=("a:1",))
    (member,) = roster.members
    assert (member.sessions, member.state) == (3, EndpointState.INACTIVE)
    assert roster.snapshot(SETTINGS).endpoints[0].weight == 5


def test_healths_verdict_is_the_state() -> None:
    """Inactive is inactive until health says otherwise; unknown endpoints are no matter."""
    roster = Roster()
    roster.resolve([A], 0, 30)
    roster.judge("a:1", True, 0.0)
    roster.judge("nobody:1", False, 0.0)
    assert states(roster) == {"a:1": EndpointState.ACTIVE}
    roster.judge("a:1", False, 0.0)
    assert states(roster) == {"a:1": EndpointState.INACTIVE}
    assert roster.version == roster.snapshot(SETTINGS).version


def test_removed_lives_for_its_grace() -> None:
    """An endpoint that left DNS is removed, lives for its grace, then is gone."""
    roster = Roster()
    roster.resolve([A, B], 0, 30)
    assert roster.resolve([B], 10, 30) == EndpointsChange(removed=("a:1",))
    assert states(roster) == {"b:1": EndpointState.ACTIVE, "a:1": EndpointState.REMOVED}
    assert roster.advance(39.9) == ()
    roster.resolve([B], 20, 30)
    assert roster.advance(39.9) == (), "the grace does not start anew"
    assert [each.retired_at for each in roster.members] == [None, 10]
    assert roster.advance(40) == ("a:1",)
    assert states(roster) == {"b:1": EndpointState.ACTIVE}


def test_another_grace_counts_for_those_that_are_in_theirs() -> None:
    """A reload shortens it, or sets an end where there was none; so does the next image."""
    roster, after = Roster(), Roster()
    roster.follow(Policy(grace_s=0), 0)
    roster.resolve([A, B, C], 0, 0)
    roster.sessions("a:1", 1)
    roster.resolve([B, C], 10, 0)
    assert roster.advance(1000) == ()
    assert [(each.found.name, each.grace_s) for each in roster.removed] == [("a:1", 0)]
    roster.follow(Policy(grace_s=1200), 1000)
    assert [(each.found.name, each.grace_s) for each in roster.removed] == [("a:1", 1200)]
    assert roster.advance(1209.9) == ()
    roster.resolve([C], 1209.9, 1200)
    after.follow(Policy(grace_s=30), 1209.9)
    after.remember(roster.removed)
    after.resolve([C], 1209.9, 30)
    assert roster.advance(1210) == ("a:1",)
    after.resume(Since(), 1209.9)
    assert after.advance(1209.9) == ("a:1",)
    assert after.advance(1239.8) == ()
    assert after.advance(1239.9) == ("b:1",)


def test_a_removed_one_that_turns_inactive_stays_for_its_sessions_only() -> None:
    """Absent and failing is gone soon, but sessions that still live have their grace."""
    roster = Roster()
    roster.resolve([A, B], 0, 30)
    roster.sessions("a:1", 1)
    roster.resolve([], 1, 30)
    roster.judge("a:1", False, 0.0)
    roster.judge("b:1", False, 0.0)
    assert roster.advance(2.9) == ()
    assert roster.advance(1 + SETTLE_S) == ("b:1",)
    roster.sessions("a:1", 0)
    assert roster.advance(3) == ("a:1",)


def test_one_that_failed_in_its_grace_and_came_back_is_what_health_says() -> None:
    """Coming back does not make it active; health's next verdict does."""
    roster = Roster()
    roster.resolve([A], 0, 30)
    roster.sessions("a:1", 1)
    roster.resolve([], 1, 30)
    roster.judge("a:1", False, 0.0)
    roster.resolve([A], 2, 30)
    assert states(roster) == {"a:1": EndpointState.INACTIVE}
    roster.judge("a:1", True, 0.0)
    assert states(roster) == {"a:1": EndpointState.ACTIVE}


def test_the_last_sessions_of_an_absent_and_inactive_one_may_not_be_told_yet() -> None:
    """Those that began in its last second have their grace; without any it goes soon after."""
    for grace_s, soon in ((30.0, SETTLE_S), (1.0, 1.0), (0.0, SETTLE_S)):
        roster = Roster()
        roster.resolve([A, B], 0, grace_s)
        roster.judge("a:1", False, 0.0)
        roster.resolve([], 0, grace_s)
        roster.judge("b:1", False, 0.0)
        assert roster.advance(soon - 0.1) == ()
        if grace_s > SETTLE_S:
            roster.sessions("b:1", 1)
            assert roster.advance(soon) == ("a:1",)
            assert roster.advance(grace_s) == ("b:1",)
        else:
            assert roster.advance(soon) == ("a:1", "b:1")


def test_absent_and_inactive_is_removed_until_it_goes() -> None:
    """Whether it has sessions or not, it gets no new ones."""
    roster = Roster()
    roster.resolve([A, B], 0, 30)
    roster.judge("a:1", False, 0.0)
    roster.judge("b:1", False, 0.0)
    roster.sessions("b:1", 1)
    roster.sessions("b:1", 1)
    roster.sessions("nobody:1", 1)
    roster.resolve([], 2, 30)
    assert states(roster) == dict.fromkeys(("a:1", "b:1"), EndpointState.REMOVED)


def test_one_that_came_back_in_time_is_as_if_it_never_left() -> None:
    """Coming back within the grace restores state and sessions."""
    roster = Roster()
    roster.resolve([A], 0, 30)
    roster.sessions("a:1", 2)
    before = roster.snapshot(SETTINGS).endpoints
    roster.resolve([], 1, 30)
    roster.snapshot(SETTINGS)
    assert roster.resolve([A], 2, 30) == EndpointsChange(added=("a:1",))
    assert roster.snapshot(SETTINGS).endpoints == before
    assert roster.members[0].sessions == 2


def test_sessions_that_nobody_told_of_yet_keep_an_endpoint() -> None:
    """Beside workers of a former master a count is too low until each of them has reported."""
    roster = Roster()
    roster.resolve([A, B], 0, 0)
    roster.sessions("b:1", 3)
    roster.assume_sessions()
    assert [member.sessions for member in roster.members] == [1, 3]
    roster.judge("a:1", False, 0)
    roster.resolve([B], 0, 0)
    for at_least, gone in ((True, ()), (False, ("a:1",))):
        roster.sessions("a:1", 0, at_least=at_least)
        roster.sessions("b:1", 4, at_least=at_least)
        roster.sessions("nobody", 4, at_least=at_least)
        assert roster.advance(1e9) == gone
    assert [member.sessions for member in roster.members] == [4]


def test_grace_zero_waits_for_the_last_session() -> None:
    """With a grace of 0 a removed endpoint goes when its last session ended, and is settled."""
    roster = Roster()
    roster.resolve([A], 0, 0)
    roster.sessions("a:1", 1)
    roster.resolve([], 10, 0)
    assert roster.advance(1e9) == ()
    roster.sessions("a:1", 0)
    assert roster.advance(10) == ()
    assert roster.advance(10 + SETTLE_S) == ("a:1",)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("resolve"), st.frozensets(st.sampled_from([A, B, C]))),
        st.tuples(st.just("judge"), st.sampled_from(["a:1", "b:1", "c:1"]), st.booleans()),
        st.tuples(st.just("sessions"), st.sampled_from(["a:1", "b:1"]), st.integers(0, 2)),
        st.tuples(st.just("expire")),
    )
)


def test_an_endpoint_under_maintenance_drains() -> None:
    """It gets no new sessions, its old ones have the grace, and the policy's end brings it back."""
    roster = Roster()
    roster.resolve([A, B], 0, 30)
    roster.follow(Policy(draining=frozenset({"a:1"}), grace_s=30), 100)
    assert states(roster) == {"a:1": EndpointState.DRAINING, "b:1": EndpointState.ACTIVE}
    assert not emptied(roster)
    roster.follow(Policy(draining=frozenset({"a:1", "x:1"}), grace_s=30), 120)
    roster.resolve([A, B], 125, 30)
    roster.advance(129.9)
    assert not emptied(roster)
    version = roster.snapshot(SETTINGS).version
    roster.advance(130)
    assert emptied(roster) == {"a:1"}
    assert [each.retired_at for each in roster.members] == [100, None]
    assert roster.snapshot(SETTINGS).version == version + 1
    roster.judge("a:1", False, 131)
    assert states(roster)["a:1"] is EndpointState.DRAINING
    roster.judge("a:1", True, 132)
    roster.follow(Policy(), 140)
    assert states(roster)["a:1"] is EndpointState.ACTIVE
    assert not emptied(roster)


def emptied(roster: Roster) -> set[str]:
    return {e.name for e in roster.snapshot(SETTINGS).endpoints if e.emptied}


def test_without_a_grace_sessions_stay_on_a_draining_endpoint() -> None:
    """A grace of 0 is for ever, there as for one that left DNS; and leaving DNS counts more."""
    roster = Roster()
    roster.follow(Policy(draining=frozenset({"a:1"}), grace_s=0), 0)
    roster.resolve([A], 0, 0)
    roster.advance(1e9)
    assert not emptied(roster)
    roster.resolve([B], 1e9, 0)
    assert states(roster)["a:1"] is EndpointState.REMOVED


def test_preferred_networks_make_a_tier() -> None:
    """An endpoint with an address in one of the networks comes before those without."""
    roster = Roster()
    near = replace(A, addresses=("192.0.2.1", "fd00::1"))
    roster.follow(Policy(prefer=Networks(["10.9.0.0/16", "fd00::/8"])), 0)
    roster.resolve([near, B], 0, 30)
    assert [e.tier for e in roster.snapshot(SETTINGS).endpoints] == [0, 1]
    roster.follow(Policy(), 1)
    assert [e.tier for e in roster.snapshot(SETTINGS).endpoints] == [0, 0]


def test_a_unix_socket_is_in_no_network() -> None:
    """With preferred networks it comes after the endpoints in them."""
    roster = Roster()
    name = "unix:/run/a"
    roster.resolve([found("a:1"), Discovered(name, name, 0, (name,))], 0, 30)
    assert [each.tier for each in roster.snapshot(Settings()).endpoints] == [0, 0]
    roster.follow(Policy(prefer=Networks(["0.0.0.0/0"])), 0)
    assert [each.tier for each in roster.snapshot(Settings()).endpoints] == [0, 1]


def test_one_that_came_back_is_ramped_up() -> None:
    """With a slow start its share grows in steps of ten; a new endpoint has its share at once."""
    roster = Roster()
    roster.follow(Policy(slow_start_s=20), 0)
    roster.resolve([A, B], 0, 30)
    roster.judge("a:1", False, 10)
    roster.judge("a:1", True, 100)
    ramps = []
    for now in (100, 102, 103.9, 104, 110, 119.9, 120, 200):
        roster.judge("a:1", True, now)  # again, as when one of its addresses fails
        roster.advance(now)
        a, b = roster.snapshot(SETTINGS).endpoints
        assert b.ramp == 100
        ramps.append(a.ramp)
    assert ramps == [10, 10, 10, 20, 50, 90, 100, 100]
    assert {each.returned_at for each in roster.members} == {None}
    roster.judge("a:1", False, 300)
    roster.judge("a:1", True, 301)
    roster.follow(Policy(), 302)
    assert [e.ramp for e in roster.snapshot(SETTINGS).endpoints] == [100, 100]


def test_one_whose_maintenance_is_over_is_ramped_up() -> None:
    """Whether it failed meanwhile or not: with a slow start it has no whole share at once."""
    roster = Roster()
    policy = Policy(slow_start_s=20)
    drained = replace(policy, draining=frozenset({"a:1"}))
    for failed in (False, True):
        roster.follow(drained, 0)
        roster.resolve([A, B], 0, 30)
        if failed:
            roster.judge("a:1", False, 10)
            roster.judge("a:1", True, 20)
        roster.follow(policy, 100)
        roster.resolve([A, B], 101, 30)
        ramps = []
        for now in (100, 110, 120):
            roster.advance(now)
            ramps.append([each.ramp for each in roster.snapshot(SETTINGS).endpoints])
        assert ramps == [[10, 100], [50, 100], [100, 100]]
    roster.follow(drained, 200)
    roster.judge("a:1", False, 201)
    roster.follow(policy, 202)
    assert roster.since == Since()
    roster.follow(drained, 300)
    roster.follow(Policy(), 301)
    assert [each.ramp for each in roster.snapshot(SETTINGS).endpoints] == [100, 100]


def test_the_next_master_goes_on_with_ramps_and_drains() -> None:
    """An upgrade gives no whole share at once, and begins no grace anew."""
    policy = Policy(slow_start_s=20, grace_s=30, draining=frozenset({"b:1"}))
    before, after = Roster(), Roster()
    before.follow(policy, 0)
    before.resolve([A, B], 0, 30)
    before.judge("a:1", False, 10)
    before.judge("a:1", True, 100)
    after.follow(policy, 110)
    after.resolve([A, B], 110, 30)
    after.resume(before.since, 110)
    a, b = after.snapshot(SETTINGS).endpoints
    assert (a.ramp, b.emptied) == (50, True)
    after.advance(120)
    assert [each.ramp for each in after.snapshot(SETTINGS).endpoints] == [100, 100]
    assert after.since == Since(draining={"b:1": 0})


def test_what_health_and_the_policy_say_now_counts_more() -> None:
    """One that failed meanwhile does not come back, and one that is not drained any more does,
    from now on."""
    since = Since(draining={"a:1": 0.0, "gone:1": 0.0}, returned={"a:1": 99.0, "b:1": 99.0})
    roster = Roster()
    roster.follow(Policy(slow_start_s=20), 100)
    roster.resolve([A, B], 100, 30)
    roster.judge("b:1", False, 100)
    roster.resume(since, 100)
    assert roster.since == Since(returned={"a:1": 100})
    roster.follow(Policy(), 100)
    roster.resume(since, 100)
    assert roster.since == Since()


@given(STEPS, st.sampled_from([0.0, 5.0]))
def test_versions_and_membership_hold_whatever_happens(
    steps: list[tuple[object, ...]], grace_s: float
) -> None:
    """Whatever happens, versions never fall, equal versions mean equal lists, and who is in DNS
    is a member that is not removed."""
    roster = Roster()
    wanted: frozenset[Discovered] = frozenset()
    last = roster.snapshot(SETTINGS)
    for now, step in enumerate(steps):
        match step:
            case ("resolve", frozenset() as wanted):
                roster.resolve(wanted, now, grace_s)
            case ("judge", str(name), bool(active)):
                roster.judge(name, active, now)
            case ("sessions", str(name), int(count)):
                roster.sessions(name, count)
            case _:
                roster.advance(now)
        snapshot = roster.snapshot(SETTINGS)
        assert snapshot.version >= last.version
        assert (snapshot.version == last.version) == (snapshot.endpoints == last.endpoints)
        in_dns = {e.name for e in snapshot.endpoints if e.state is not EndpointState.REMOVED}
        assert in_dns == {each.name for each in wanted}
        last = snapshot


def test_inactive_addresses_go_to_the_workers() -> None:
    """Those that the name still has, of an endpoint whose other addresses are active."""
    two = replace(A, addresses=("10.0.0.1", "10.0.0.2"))
    roster = Roster()
    roster.resolve([two], 0, 30)
    before = roster.snapshot(SETTINGS)
    roster.judge("a:1", True, 0, ("10.0.0.2",))
    after = roster.snapshot(SETTINGS)
    assert after.version == before.version + 1
    assert after.endpoints[0].inactive == ("10.0.0.2",)
    assert after.endpoints[0].state is EndpointState.ACTIVE
    roster.resolve([A], 1, 30)
    assert roster.snapshot(SETTINGS).endpoints[0].inactive == ()


def test_the_grace_of_one_that_left_goes_on_under_the_next_master() -> None:
    """It counts from when the endpoint left; with sessions and without a limit it stays."""
    before = Roster(7)
    before.resolve([A, B, C], 0.0, 30.0)
    before.sessions("b:1", 2)
    before.resolve([A, B], 1.0, 30.0)
    before.resolve([A], 2.0, 0.0)
    after = Roster(before.version)
    after.remember(before.removed)
    after.resolve([A], 10.0, 0.0)
    removed, active = EndpointState.REMOVED, EndpointState.ACTIVE
    assert states(after) == {"a:1": active, "b:1": removed, "c:1": removed}
    assert after.advance(30.9) == ("c:1",)
    after.sessions("b:1", 0)
    assert after.advance(31.0) == ("b:1",)


def test_what_is_retired_and_fails_is_told_by_its_addresses() -> None:
    """Workers close the sessions of what turned inactive if they are told so, these too."""
    roster = Roster()
    roster.follow(Policy(draining=frozenset({"a:1"})), 0)
    roster.resolve([A, B], 0, 600)
    for name in ("a:1", "b:1"):
        roster.sessions(name, 1)
    roster.resolve([A], 1, 600)
    assert [each.inactive for each in roster.snapshot(SETTINGS).endpoints] == [(), ()]
    before = roster.version
    for name in ("a:1", "b:1"):
        roster.judge(name, False, 2)
    a, b = roster.snapshot(SETTINGS).endpoints
    assert (a.state, b.state) == (EndpointState.DRAINING, EndpointState.REMOVED)
    assert (a.inactive, b.inactive) == (a.addresses, b.addresses)
    assert roster.version == before + 1
    roster.judge("a:1", True, 3)
    assert roster.snapshot(SETTINGS).endpoints[0].inactive == ()
