"""Who gives up how many sessions, and when."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.endpoint import Endpoint, EndpointState
from supervisor.core.rebalance import Rebalancer, find_excess

Held = dict[tuple[int, int], dict[str, int]]


def endpoint(name: str, **more: object) -> Endpoint:
    return Endpoint(name, ("192.0.2.1",), 1, **more)  # type: ignore[arg-type]


ABC = [endpoint(name) for name in "abc"]


@pytest.mark.parametrize(
    ("held", "excess"),
    [
        ({"a": 6, "b": 3, "c": 0}, {"a": 3}),
        ({"a": 45, "b": 45, "c": 0}, {"a": 15, "b": 15}),
        ({"a": 4, "b": 3, "c": 3}, {}),
        ({"a": 109, "b": 100, "c": 91}, {}),
        ({"a": 112, "b": 100, "c": 88}, {"a": 12}),
        ({}, {}),
    ],
)
def test_who_has_more_than_its_share(held: dict[str, int], excess: dict[str, int]) -> None:
    """A tenth above the share, and one session, are even enough."""
    assert find_excess(ABC, held) == excess


def test_shares_are_those_that_are_served() -> None:
    """Weights and ramps count; what fled to another rank has no share there."""
    weighted = [endpoint("a", weight=10), endpoint("b", weight=30)]
    assert find_excess(weighted, {"a": 10, "b": 30}) == {}
    ramped = [endpoint("a", ramp=10), endpoint("b")]
    assert find_excess(ramped, {"a": 1, "b": 10}) == {}
    ranks = [endpoint("a"), endpoint("b", priority=1), endpoint("c", tier=1)]
    assert find_excess(ranks, {"a": 5, "b": 3, "c": 2}) == {"b": 3, "c": 2}


def test_those_that_are_not_active_are_let_alone() -> None:
    """Sessions of inactive and retired endpoints have rules of their own."""
    states = [endpoint("a"), endpoint("b", state=EndpointState.INACTIVE)]
    assert find_excess(states, {"a": 1, "b": 9}) == {}
    assert find_excess([], {"a": 1}) == {}


def run(held: Held, *, over_s: float, until_s: int) -> list[tuple[int, str]]:
    """Every order, carried out at once: the client goes to the emptiest endpoint."""
    rebalancer = Rebalancer()
    log: list[tuple[int, str]] = []
    for second in range(until_s):
        for order in rebalancer.step(ABC, held, over_s=over_s, now=1000.0 + second):
            sessions = held[order.worker]
            sessions[order.endpoint] -= 1
            total = Counter[str](dict.fromkeys("abc", 0))
            for each in held.values():
                total.update(each)
            fewest = min(total, key=lambda name: total[name])
            sessions[fewest] = sessions.get(fewest, 0) + 1
            log.append((second, order.endpoint))
    return log


def test_the_excess_is_spread_and_ends_even() -> None:
    """Thirty sessions too many over a minute: one every two seconds, and then no more."""
    held: Held = {(0, 1): {"a": 30, "b": 7}, (1, 1): {"a": 23, "c": 9}}
    log = run(held, over_s=60.0, until_s=300)
    total = Counter[str]()
    for each in held.values():
        total.update(each)
    assert max(total.values()) <= 1.1 * 23 + 1
    assert min(total.values()) >= 21
    assert max(Counter(second for second, _ in log).values()) <= 1
    assert len(log) <= 30


@given(st.lists(st.integers(0, 60), min_size=3, max_size=3), st.sampled_from([1.0, 5.0, 60.0]))
def test_nobody_gets_below_its_share(counts: list[int], over_s: float) -> None:
    """However quick it is, an endpoint that gives sessions up keeps its share of them."""
    held: Held = {(0, 1): dict(zip("abc", counts, strict=True))}
    fair = sum(counts) / 3
    before = dict(held[0, 1])
    run(held, over_s=over_s, until_s=100)
    for name, count in before.items():
        if count >= fair:
            assert held[0, 1][name] >= int(fair)


def test_orders_that_do_not_show_yet_are_counted() -> None:
    """Reports are late: what was ordered is not ordered once more in the meantime."""
    rebalancer = Rebalancer()
    held: Held = {(0, 1): {"a": 9, "b": 0, "c": 0}}
    rebalancer.step(ABC, held, over_s=1.0, now=10.0)
    orders = [rebalancer.step(ABC, held, over_s=1.0, now=10.0 + n) for n in (1, 2)]
    assert [len(each) for each in orders] == [6, 0]
    assert {order.worker for order in orders[0]} == {(0, 1)}


def test_the_age_is_that_of_the_excess() -> None:
    """Sessions that began since the endpoint is over-full are spared; switched off, all ends."""
    rebalancer = Rebalancer()
    held: Held = {(0, 1): {"a": 3, "b": 0, "c": 0}}
    ages = []
    for second in range(10, 17):
        orders = rebalancer.step(ABC, held, over_s=10.0, now=float(second))
        ages += [order.older_than_s for order in orders]
    assert ages == [5.0]
    assert rebalancer.step(ABC, held, over_s=0.0, now=20.0) == []
    assert rebalancer.step(ABC, held, over_s=10.0, now=21.0) == []
