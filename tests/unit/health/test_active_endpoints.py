"""Which endpoints are active, and when failed probes may take none away."""

from __future__ import annotations

from supervisor.core.health.active_endpoints import ActiveEndpoints

FOUR = dict.fromkeys(["a:1", "b:1", "c:1", "web:1 10.0.0.1", "web:1 10.0.0.2"], True)


def counting(states: dict[str, bool], *retired: str) -> ActiveEndpoints:
    active = ActiveEndpoints()
    active.replace(states, frozenset(retired))
    return active


def test_an_endpoint_counts_once_whatever_its_addresses() -> None:
    """It is active while one of its addresses is."""
    active = counting(FOUR)
    assert (active.active, active.count) == (4, 4)
    active.note("web:1 10.0.0.1", False)
    assert active.active == 4
    active.note("web:1 10.0.0.2", False)
    active.note("web:1 10.0.0.2", False)
    assert active.active == 3
    active.note("web:1 10.0.0.1", True)
    active.note("web:1 10.0.0.1", True)
    assert (active.active, active.count) == (4, 4)


def test_the_last_ones_are_kept_while_too_few_are_active() -> None:
    """From the moment at which fewer than the percentage are."""
    active = counting(FOUR)
    for gone in ("a:1", "b:1"):
        assert not active.must_keep(gone, 50)
        active.note(gone, False)
    assert not active.must_keep("c:1", 50)
    active.note("c:1", False)
    assert not active.must_keep("c:1", 0)
    assert active.must_keep("c:1", 50)


def test_an_address_may_go_while_another_of_its_endpoint_is_active() -> None:
    """That takes no endpoint away; the last one of them is kept."""
    active = counting(
        {**dict.fromkeys(FOUR, False), "web:1 10.0.0.1": True, "web:1 10.0.0.2": True}
    )
    assert active.active == 1
    assert not active.must_keep("web:1 10.0.0.1", 50)
    active.note("web:1 10.0.0.1", False)
    assert active.must_keep("web:1 10.0.0.2", 50)


def test_retired_endpoints_do_not_count() -> None:
    """Neither as endpoints nor as active ones, with all their addresses."""
    active = counting(FOUR, "web:1", "a:1")
    assert (active.active, active.count) == (2, 2)
    active.note("web:1 10.0.0.1", False)
    active.note("a:1", False)
    assert (active.active, active.count) == (2, 2)
    assert active.must_keep("web:1 10.0.0.1", 101)
    assert not active.must_keep("web:1 10.0.0.1", 50)
