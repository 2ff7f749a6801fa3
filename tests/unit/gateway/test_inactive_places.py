"""Which places are inactive: an address of several does not depend on the others."""

from __future__ import annotations

import dataclasses

import pytest

from gateway.core.endpoint import RETIRED, Endpoint, EndpointState
from gateway.core.inactive_places import InactivePlaces

ONE = Endpoint("one:1", ("10.0.0.1",), 1)
TWO = Endpoint("two:1", ("10.0.0.1", "10.0.0.2"), 1)


def inactive(endpoint: Endpoint) -> Endpoint:
    return dataclasses.replace(endpoint, state=EndpointState.INACTIVE)


def test_an_endpoint_with_one_address() -> None:
    """It is one place, whatever is known of the address."""
    assert InactivePlaces([ONE]).since == {}
    places = InactivePlaces([inactive(ONE)])
    assert places.place_of("one:1", "") in places.since
    assert places.place_of("one:1", "10.0.0.9") in places.since


def test_an_address_stays_inactive_whatever_the_other_one_does() -> None:
    """Its endpoint is inactive, or it alone is: no difference to its sessions."""
    half = InactivePlaces([dataclasses.replace(TWO, inactive=("10.0.0.1",))])
    whole = InactivePlaces([inactive(TWO)])
    first, second = (half.place_of("two:1", address) for address in TWO.addresses)
    assert (first in half.since, second in half.since) == (True, False)
    assert {first, second} <= whole.since.keys()
    assert (first, second) == tuple(whole.place_of("two:1", address) for address in TWO.addresses)


def test_an_address_that_left_shares_its_endpoints_fate() -> None:
    """So does a session of which no address is known."""
    for address in ("10.0.0.9", ""):
        assert InactivePlaces([TWO]).place_of("two:1", address) == "two:1"
    assert "two:1" in InactivePlaces([inactive(TWO)]).since
    assert "two:1" not in InactivePlaces([dataclasses.replace(TWO, inactive=TWO.addresses)]).since
    assert InactivePlaces().place_of("gone:1", "10.0.0.1") == "gone:1"


@pytest.mark.parametrize("state", sorted(RETIRED))
@pytest.mark.parametrize("endpoint", [ONE, TWO])
def test_one_that_is_retired_may_be_inactive_too(state: EndpointState, endpoint: Endpoint) -> None:
    """Its state does not say so, its addresses do."""
    retired = dataclasses.replace(endpoint, state=state)
    assert endpoint.name not in InactivePlaces([retired]).since
    failed = InactivePlaces([dataclasses.replace(retired, inactive=endpoint.addresses)])
    assert endpoint.name in failed.since
    assert failed.place_of(endpoint.name, endpoint.addresses[0]) in failed.since


def test_since_when_a_place_is_inactive() -> None:
    """It is remembered for as long as it is, and begins anew where it was active meanwhile."""
    first = InactivePlaces([inactive(ONE), TWO], InactivePlaces(), 1.0)
    second = InactivePlaces([inactive(ONE), inactive(TWO)], first, 2.0)
    assert second.since["one:1"] == 1.0
    assert second.turned(first) == dict.fromkeys(
        ("two:1", ("two:1", "10.0.0.1"), ("two:1", "10.0.0.2")), 2.0
    )
    assert (
        InactivePlaces([inactive(ONE)], InactivePlaces([ONE], second, 3.0), 4.0).since["one:1"]
        == 4.0
    )
