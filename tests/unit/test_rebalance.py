"""Who gives up how many sessions, and when."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.endpoint import Endpoint, EndpointState
from gateway.core.messages import GiveUp
from supervisor.core.rebalance import (
    Direction,
    Order,
    Rebalancer,
    compose_orders,
    find_excess,
    find_fair,
)
from supervisor.core.workers.worker_id import WorkerId

Held = dict[WorkerId, dict[str, int]]


def endpoint(name: str, **more: object) -> Endpoint:
    return Endpoint(name, ("192.0.2.1",), 1, **more)  # type: ignore[arg-type]


WORKER = WorkerId(0, 1)

ABC = [endpoint(name) for name in "abc"]


def excess_of(endpoints: list[Endpoint], held: dict[str, int]) -> dict[str, int]:
    return find_excess(find_fair(endpoints, held), held)


def none(_: int) -> int:
    """The draw that begins as late as can be."""
    return 0


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
    assert excess_of(ABC, held) == excess


def test_shares_are_those_that_are_served() -> None:
    """Weights and ramps count; what fled to another rank has no share there."""
    weighted = [endpoint("a", weight=10), endpoint("b", weight=30)]
    assert excess_of(weighted, {"a": 10, "b": 30}) == {}
    ramped = [endpoint("a", ramp=10), endpoint("b")]
    assert excess_of(ramped, {"a": 1, "b": 10}) == {}
    ranks = [endpoint("a"), endpoint("b", priority=1), endpoint("c", tier=1)]
    assert excess_of(ranks, {"a": 5, "b": 3, "c": 2}) == {"b": 3, "c": 2}


def test_those_that_are_not_active_are_let_alone() -> None:
    """Sessions of inactive and retired endpoints have rules of their own."""
    states = [endpoint("a"), endpoint("b", state=EndpointState.INACTIVE)]
    assert excess_of(states, {"a": 1, "b": 9}) == {}
    assert excess_of([], {"a": 1}) == {}


def run(held: Held, *, over_s: float, until_s: int) -> list[tuple[int, str]]:
    """Every order, carried out at once: the client goes where its worker was told, or in turn."""
    rebalancer = Rebalancer()
    log: list[tuple[int, str]] = []
    turns = itertools.cycle("abc")
    workers = itertools.cycle(sorted(held))
    for second in range(until_s):
        orders, directions = rebalancer.step(
            ABC, held, over_s=over_s, now=1000.0 + second, draw=none
        )
        directed = {each.worker: each.endpoint for each in directions}
        for order in orders:
            held[order.worker][order.endpoint] -= 1
            worker = next(workers)  # the client comes back at any worker
            name = directed.pop(worker, None) or next(turns)
            held[worker][name] = held[worker].get(name, 0) + 1
            log.append((second, order.endpoint))
    return log


def test_the_excess_is_spread_and_ends_even() -> None:
    """Thirty sessions too many over a minute: one every two seconds, and then no more."""
    held: Held = {WORKER: {"a": 30, "b": 7}, WorkerId(1, 1): {"a": 23, "c": 9}}
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
    held: Held = {WORKER: dict(zip("abc", counts, strict=True))}
    fair = sum(counts) / 3
    before = dict(held[WORKER])
    run(held, over_s=over_s, until_s=100)
    for name, count in before.items():
        if count >= fair:
            assert held[WORKER][name] >= int(fair)


def test_orders_that_do_not_show_yet_are_counted() -> None:
    """Reports are late: what was ordered is not ordered once more in the meantime."""
    rebalancer = Rebalancer()
    held: Held = {WORKER: {"a": 9, "b": 0, "c": 0}, WorkerId(1, 1): {"a": 0}}
    rebalancer.step(ABC, held, over_s=1.0, now=10.0, draw=none)
    orders = [rebalancer.step(ABC, held, over_s=1.0, now=10.0 + n, draw=none)[0] for n in (1, 2)]
    assert [len(each) for each in orders] == [6, 0]
    assert {order.worker for order in orders[0]} == {WORKER}, "the other one has none of them"


def test_who_was_sent_and_does_not_show_yet_is_counted() -> None:
    """Clients of later orders are sent where those before them were not."""
    rebalancer = Rebalancer()
    held: Held = {WORKER: {"a": 9, "b": 0, "c": 0}}
    rebalancer.step(ABC, held, over_s=2.0, now=10.0, draw=none)
    sent = [
        [each.endpoint for each in rebalancer.step(ABC, held, over_s=2.0, now=now, draw=none)[1]]
        for now in (11.0, 12.0)
    ]
    assert [len(each) for each in sent] == [3, 3]
    assert Counter(itertools.chain(*sent)) == {"b": 3, "c": 3}


def test_the_age_is_that_of_the_excess() -> None:
    """Sessions that began since the endpoint is over-full are spared; switched off, all ends."""
    rebalancer = Rebalancer()
    held: Held = {WORKER: {"a": 3, "b": 0, "c": 0}}
    ages = []
    for second in range(10, 17):
        orders, _ = rebalancer.step(ABC, held, over_s=10.0, now=float(second), draw=none)
        ages += [order.older_than_s for order in orders]
    assert ages == [5.0]
    assert rebalancer.step(ABC, held, over_s=0.0, now=20.0, draw=none) == ([], [])
    assert rebalancer.step(ABC, held, over_s=10.0, now=21.0, draw=none) == ([], [])


def test_hosts_of_one_moment_begin_at_different_times() -> None:
    """The first session is closed anywhere within the time, the others follow at their pace."""
    first = []
    for drawn in (lambda _: 0, lambda _: 512, lambda _: 1023):
        rebalancer = Rebalancer()
        held: Held = {WORKER: {"a": 2, "b": 0, "c": 1}}
        for second in range(10, 40):
            orders, _ = rebalancer.step(ABC, held, over_s=20.0, now=float(second), draw=drawn)
            if orders:
                first.append(second)
                break
    assert first == [30, 20, 11]


def test_clients_are_sent_where_sessions_are_missing() -> None:
    """Workers are told of the emptiest endpoint: as many as it can take, the closing one first."""
    rebalancer = Rebalancer()
    held: Held = {WorkerId(slot, 1): {"a": 2, "b": 1, "c": 0} for slot in range(4)}
    rebalancer.step(ABC, held, over_s=1.0, now=10.0, draw=none)
    orders, directions = rebalancer.step(ABC, held, over_s=1.0, now=11.0, draw=none)
    assert [order.endpoint for order in orders] == ["a"] * 4
    assert {direction.endpoint for direction in directions} == {"c"}
    told = [sum(1 for each in directions if each.worker == worker) for worker in held]
    assert sum(told) == 4 + 4 + 3 + 2, "c lacks 4, then 3, 2 and 1, and may have one too many"
    assert directions[0] == Direction(orders[0].worker, "c")


def test_nobody_is_sent_where_nothing_is_missing() -> None:
    """An endpoint beyond the first rank gives up what fled to it, though nobody lacks it here."""
    rebalancer = Rebalancer()
    ranks = [endpoint("a"), endpoint("b", priority=1)]
    held: Held = {WORKER: {"a": 0, "b": 1}}
    rebalancer.step(ranks, held, over_s=1.0, now=10.0, draw=none)
    first = rebalancer.step(ranks, held, over_s=1.0, now=11.0, draw=none)
    assert [len(each) for each in first] == [1, 1]
    full: Held = {WORKER: {"a": 1, "b": 1}}
    rebalancer.step(ranks, full, over_s=1.0, now=12.0, draw=none)
    _, directions = rebalancer.step(ranks, full, over_s=1.0, now=13.0, draw=none)
    assert directions == []


def test_each_worker_gets_one_message() -> None:
    """What it closes, in the order of the decisions, and where the next clients go."""
    one, other = WorkerId(0, 1), WorkerId(1, 1)
    orders = [Order(one, "a:1", 3.0), Order(one, "b:1", 2.0)]
    messages = compose_orders(orders, [Direction(one, "c:1"), Direction(other, "c:1")])
    assert dict(messages) == {
        one: GiveUp(("a:1", "b:1"), (3.0, 2.0), ("c:1",)),
        other: GiveUp((), (), ("c:1",)),
    }
