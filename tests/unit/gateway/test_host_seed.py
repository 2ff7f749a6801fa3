"""Hosts of a fleet differ in order and start, and each of them stays as it is."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core import host_seed
from gateway.core.endpoint import Endpoint, EndpointState
from gateway.core.messages import Settings, Snapshot
from gateway.core.table import Table
from supervisor.core.reload_rules import seed_of

SEEDS = [seed_of(f"host {number}") for number in range(1000)]
SEED_OF_A = 0xB6B067068F1F
NAMES = [f"infra{number}.example.com:2379" for number in range(5)]
BALANCES = pytest.mark.parametrize("balance", ["round-robin", "least-sessions"])


def table(
    seed: int,
    balance: str = "round-robin",
    *,
    slot: int = 0,
    slots: int = 1,
    weights: dict[str, int] | None = None,
    state: EndpointState = EndpointState.ACTIVE,
) -> Table:
    endpoints = tuple(
        Endpoint(name, ("192.0.2.1",), 2379, weight=weight, state=state)
        for name, weight in (weights or dict.fromkeys(NAMES, 0)).items()
    )
    made = Table(slot, slots)
    made.apply(Snapshot(1, endpoints, Settings(balance=balance, host_seed=seed)))
    return made


def pick(made: Table, tried: tuple[str, ...] = ()) -> str:
    endpoint = made.pick(tried)
    assert endpoint is not None
    return endpoint.name


@BALANCES
def test_first_sessions_of_a_fleet_are_even(balance: str) -> None:
    """1,000 hosts with one worker and one session each: no member has 15 % more than the mean."""
    got = Counter(pick(table(seed, balance)) for seed in SEEDS)
    assert max(got.values()) <= 230
    assert set(got) == set(NAMES)


@BALANCES
def test_those_of_a_dead_member_go_to_all_others(balance: str) -> None:
    """The hosts that had the same member do not all have the same next one."""
    fled = Counter[str]()
    for seed in SEEDS:
        made = table(seed, balance)
        if pick(made) == NAMES[0]:
            made.suspect(NAMES[0])
            fled[pick(made)] += 1
    assert set(fled) == set(NAMES[1:])
    assert max(fled.values()) <= 1.5 * sum(fled.values()) / 4


def test_a_fleet_that_fails_open_is_spread() -> None:
    """Hosts that hold every endpoint for inactive do not all try the same one first."""
    got = Counter(pick(table(seed, state=EndpointState.INACTIVE)) for seed in SEEDS)
    assert max(got.values()) <= 240


def test_first_sessions_follow_the_weights() -> None:
    """The start is on the line of all weights: a member of a quarter gets a quarter of a fleet."""
    got = Counter(pick(table(seed, weights={"a:1": 10, "b:1": 30})) for seed in SEEDS)
    assert 200 <= got["a:1"] <= 300


@given(st.integers(0, 2**48), st.integers(1, 5), st.integers(1, 8))
def test_workers_of_a_host_stay_spread(seed: int, members: int, slots: int) -> None:
    """Whatever the seed, one session of each worker is as even as it can be."""
    weights = dict.fromkeys(NAMES[:members], 0)
    got = Counter(
        pick(table(seed, slot=slot, slots=slots, weights=weights)) for slot in range(slots)
    )
    assert max(got.values()) - (min(got.values()) if len(got) == members else 0) <= 1


def test_a_host_keeps_its_order() -> None:
    """The same seed is the same order, and a member that joins does not change the others'."""
    for seed in SEEDS[:50]:
        before = host_seed.order(NAMES, seed)
        after = host_seed.order([*reversed(NAMES), "new:1"], seed)
        assert [name for name in after if name != "new:1"] == before


def test_seed_zero_keeps_the_list() -> None:
    """Without a seed the order is the one that resolution gave."""
    assert host_seed.order(NAMES, 0) == NAMES
    assert host_seed.start(0) == 0.0


def test_a_changed_seed_counts_at_once() -> None:
    """A reload that gives another seed makes another order."""
    made = table(SEEDS[0])
    starts = set()
    for version, seed in enumerate(SEEDS[:20], 2):
        endpoints = tuple(Endpoint(name, ("192.0.2.1",), 2379) for name in NAMES)
        made.apply(Snapshot(version, endpoints, Settings(host_seed=seed)))
        starts.add(pick(made))
    assert len(starts) > 1


def test_seeds_are_numbers_of_texts() -> None:
    """A text has one seed, other texts have others, and no text is no seed."""
    assert len(set(SEEDS)) == len(SEEDS)
    assert seed_of("") == 0
    assert seed_of("a") == SEED_OF_A, "an upgrade must not move a fleet"
