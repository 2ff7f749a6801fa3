"""Shares are exact, starts are spread, and least-sessions finds the least loaded."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.core.selection import Balancer, LeastSessions, Rotation, shares

NAMES = [f"e{i}" for i in range(12)]
weight_maps = st.lists(st.integers(0, 40), min_size=1, max_size=8).map(
    lambda weights: dict(zip(NAMES, weights, strict=False))
)


def picks(balancer: Balancer, count: int) -> list[str | None]:
    return [balancer.pick(()) for _ in range(count)]


def divisions(total: int, parts: int) -> Iterator[tuple[int, ...]]:
    """Every way in which a kernel can spread ``total`` connections over ``parts`` workers."""
    if parts == 1:
        yield (total,)
        return
    for first in range(total + 1):
        for rest in divisions(total - first, parts - 1):
            yield (first, *rest)


def spread(weights: dict[str, int], division: Sequence[int]) -> Counter[str | None]:
    """What endpoints get when worker i takes ``division[i]`` connections."""
    total: Counter[str | None] = Counter(dict.fromkeys(weights, 0))
    for slot, count in enumerate(division):
        total.update(picks(Rotation(weights, slot=slot, slots=len(division)), count))
    return total


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ({"a": 0, "b": 0}, {"a": 1, "b": 1}),
        ({"a": 5, "b": 15}, {"a": 1, "b": 3}),
        ({"a": 0, "b": 5}, {"a": 1, "b": 99}),
        ({"a": 0, "b": 0, "c": 1}, {"a": 1, "b": 1, "c": 198}),
        ({}, {}),
    ],
)
def test_shares(weights: dict[str, int], expected: dict[str, int]) -> None:
    """SRV weights become the smallest integers of the same proportions, zeros about 1 %."""
    assert shares(weights) == expected


@given(weight_maps)
def test_shares_keep_proportions(weights: dict[str, int]) -> None:
    """Every share is positive; zeros are a hundredth together, the rest as the weights say."""
    parts = shares(weights)
    zeros = [parts[name] for name, weight in weights.items() if not weight]
    assert min(parts.values()) >= 1
    assert len(set(zeros)) <= 1
    if any(weights.values()):
        assert sum(zeros) * 100 == (sum(parts.values()) if zeros else 0)
        for a, b in itertools.combinations([n for n in weights if weights[n]], 2):
            assert parts[a] * weights[b] == parts[b] * weights[a]


@given(weight_maps, st.integers(0, 7), st.integers(1, 8))
@example(dict(zip(NAMES, [15, 25, 35, 16, 16, 32, 32], strict=False)), 2, 7)
def test_cycles_are_exact(weights: dict[str, int], slot: int, slots: int) -> None:
    """From wherever a worker starts, each full cycle gives every endpoint exactly its share."""
    parts = shares(weights)
    cycle = sum(parts.values())
    if cycle > 4000:
        return
    rotation = Rotation(weights, slot=slot, slots=slots)
    for _ in range(3):
        assert Counter(picks(rotation, cycle)) == parts


@given(weight_maps, st.integers(0, 3), st.integers(1, 300))
def test_prefixes_are_close(weights: dict[str, int], slot: int, count: int) -> None:
    """After any number of picks no endpoint is further from its share than half their number."""
    parts = shares(weights)
    got = Counter(picks(Rotation(weights, slot=slot, slots=4), count))
    for name, part in parts.items():
        assert abs(got[name] - count * part / sum(parts.values())) <= 1 + len(parts) / 2


@given(st.integers(1, 12), st.integers(0, 20))
def test_equal_weights_rotate(count: int, weight: int) -> None:
    """Equal weights, zero or not, are a plain rotation in the order of the list."""
    names = NAMES[:count]
    assert picks(Rotation(dict.fromkeys(names, weight)), 2 * count) == names * 2


def test_small_ones_do_not_burst() -> None:
    """A hundred small endpoints come between the turns of a big one, not all at once."""
    weights = {f"small{i}": 1 for i in range(100)} | {"big": 100}
    got = picks(Rotation(weights), 200)
    assert all("big" in got[i : i + 3] for i in range(198))


def test_first_sessions_are_spread_over_all_workers() -> None:
    """12 sessions over 3 endpoints with 4 workers: 3 to 5 each, however the kernel spreads them."""
    for division in divisions(12, 4):
        got = spread({"a": 0, "b": 0, "c": 0}, division)
        assert all(3 <= got[name] <= 5 for name in "abc"), division


def test_first_session_of_each_worker_follows_the_weights() -> None:
    """Eight workers with one session each and weights 1 and 3: two and six."""
    assert spread({"a": 100, "b": 300}, [1] * 8) == {"a": 2, "b": 6}
    assert spread({"a": 100, "b": 301}, [1] * 8) == {"a": 2, "b": 6}
    assert spread({"a": 0, "b": 0, "c": 0}, [1] * 8) == {"a": 3, "b": 3, "c": 2}


@pytest.mark.parametrize(("one", "other"), [(1, 1), (1, 3), (0, 5)])
@given(division=st.lists(st.integers(0, 400), min_size=4, max_size=4).filter(any))
def test_shares_hold_over_all_workers(one: int, other: int, division: list[int]) -> None:
    """400 sessions over 4 workers are within 2 % of the shares, however they are spread."""
    scaled = [count * 400 // sum(division) for count in division]
    scaled[0] += 400 - sum(scaled)
    weights = {"a": one, "b": other}
    expected = 400 * shares(weights)["a"] / sum(shares(weights).values())
    assert abs(spread(weights, scaled)["a"] - expected) <= 8


def test_a_slot_beyond_the_count_works() -> None:
    """A worker more than the table was told starts at the beginning."""
    assert picks(Rotation({"a": 1, "b": 1}, slot=4, slots=4), 2) == ["a", "b"]


def test_nothing_to_pick() -> None:
    """Without endpoints, without enabled ones, or with all of them tried, there is no pick."""
    assert Rotation({}).pick(()) is None
    assert LeastSessions({}).pick(()) is None
    for balancer in (Rotation({"a": 1}), LeastSessions({"a": 1})):
        assert balancer.pick({"a"}) is None
        assert balancer.pick(()) == "a"
        balancer.disable("a")
        assert balancer.pick(()) is None
        balancer.enable("a")
        assert balancer.pick(()) == "a"


def test_tried_ones_keep_their_turn() -> None:
    """Who is passed over because one client tried it is served next."""
    rotation = Rotation({"a": 0, "b": 0, "c": 0})
    assert rotation.pick({"a"}) == "b"
    assert picks(rotation, 4) == ["a", "c", "a", "b"]


def test_no_arrears() -> None:
    """An endpoint that was away gets its share from now on, not what it missed."""
    rotation = Rotation({"a": 0, "b": 0})
    rotation.disable("b")
    rotation.set_load("b", 9)
    assert set(picks(rotation, 50)) == {"a"}
    rotation.enable("b")
    assert Counter(picks(rotation, 10)) == {"a": 5, "b": 5}


def test_enabled_before_its_turn_came() -> None:
    """Off and on between two turns changes nothing."""
    rotation = Rotation({"a": 0, "b": 0})
    rotation.disable("b")
    rotation.enable("b")
    assert picks(rotation, 2) == ["a", "b"]
    least = LeastSessions({"a": 0, "b": 0})
    least.disable("b")
    least.enable("b")
    assert picks(least, 2) == ["a", "b"]


def test_a_replaced_rotation_goes_on() -> None:
    """A new member list continues where the old one was, and does not start at the head again."""
    old = Rotation(dict.fromkeys("abcd", 0))
    assert picks(old, 2) == ["a", "b"]
    assert picks(Rotation(dict.fromkeys("abcde", 0), at=old.at), 3) == ["c", "d", "e"]


@pytest.mark.slow
@given(weight_maps, st.data())
def test_disabled_and_tried_are_never_picked(weights: dict[str, int], data: st.DataObject) -> None:
    """Whatever is switched on and off, a pick is enabled and untried, and None only without one."""
    which = data.draw(st.sampled_from([Rotation, LeastSessions]))
    balancer: Balancer = which(weights)
    enabled = set(weights)
    for _ in range(data.draw(st.integers(1, 30))):
        name = data.draw(st.sampled_from(sorted(weights)))
        if name in enabled and data.draw(st.booleans()):
            balancer.disable(name)
            enabled.discard(name)
        else:
            balancer.enable(name)
            enabled.add(name)
        balancer.set_load(name, data.draw(st.integers(0, 5)))
        tried = data.draw(st.sets(st.sampled_from(sorted(weights))))
        picked = balancer.pick(tried)
        assert picked in enabled - tried if enabled - tried else picked is None


@given(weight_maps, st.lists(st.integers(0, 50), min_size=8, max_size=8))
def test_least_sessions_is_the_least(weights: dict[str, int], sessions: list[int]) -> None:
    """The pick has the fewest sessions for its share."""
    balancer = LeastSessions(weights)
    loads = dict(zip(weights, sessions, strict=False))
    for name, load in loads.items():
        balancer.set_load(name, load)
    parts = shares(weights)
    picked = balancer.pick(())
    assert picked is not None
    assert (loads[picked] + 1) / parts[picked] == min((loads[n] + 1) / parts[n] for n in parts)


def test_least_sessions_honours_weights() -> None:
    """Sessions that never end settle in the proportion of the weights."""
    balancer = LeastSessions({"a": 1, "b": 3})
    loads = {"a": 0, "b": 0}
    for _ in range(400):
        picked = balancer.pick(())
        assert picked is not None
        loads[picked] += 1
        balancer.set_load(picked, loads[picked])
    assert loads == {"a": 100, "b": 300}


def test_least_sessions_ties_rotate_from_the_workers_start() -> None:
    """Equal loads are served in rotation, and workers start apart."""
    weights = dict.fromkeys("abc", 0)
    assert picks(LeastSessions(weights), 6) == list("abcabc")
    assert {LeastSessions(weights, slot=slot, slots=4).pick(()) for slot in range(4)} == set("abc")


def test_least_sessions_forgets_stale_entries() -> None:
    """Loads that change a thousand times over leave the choice right and the heap small."""
    balancer = LeastSessions(dict.fromkeys("abc", 0))
    for load in range(1000, 0, -1):
        balancer.set_load("a", load)
        balancer.set_load("b", load + 1)
    assert balancer.pick(()) == "c"
    balancer.set_load("c", 50)
    assert balancer.pick(()) == "a"
    assert len(balancer._heap) < 100


def test_least_sessions_load_of_a_disabled_one() -> None:
    """The load of an endpoint that is off is known when it comes back."""
    balancer = LeastSessions(dict.fromkeys("ab", 0))
    balancer.disable("a")
    assert picks(balancer, 2) == ["b", "b"]
    balancer.set_load("a", 7)
    balancer.enable("a")
    assert picks(balancer, 2) == ["b", "b"]
