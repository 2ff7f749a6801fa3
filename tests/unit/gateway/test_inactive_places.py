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
    assert InactivePlaces([ONE]).all == frozenset()
    places = InactivePlaces([inactive(ONE)])
    assert places.place_of("one:1", "") in places.all
    assert places.place_of("one:1", "10.0.0.9") in places.all


def test_an_address_stays_inactive_whatever_the_other_one_does() -> None:
    """Its endpoint is inactive, or it alone is: no difference to its sessions."""
    half = InactivePlaces([dataclasses.replace(TWO, inactive=("10.0.0.1",))])
    whole = InactivePlaces([inactive(TWO)])
    first, second = (half.place_of("two:1", address) for address in TWO.addresses)
    assert (first in half.all, second in half.all) == (True, False)
    assert {first, second} <= whole.all
    assert (first, second) == tuple(whole.place_of("two:1", address) for address in TWO.addresses)


def test_an_address_that_left_shares_its_endpoints_fate() -> None:
    """So does a session of which no address is known."""
    for address in ("10.0.0.9", ""):
        assert InactivePlaces([TWO]).place_of("two:1", address) == "two:1"
    assert "two:1" in InactivePlaces([inactive(TWO)]).all
    assert "two:1" not in InactivePlaces([dataclasses.replace(TWO, inactive=TWO.addresses)]).all
    assert InactivePlaces().place_of("gone:1", "10.0.0.1") == "gone:1"


@pytest.mark.parametrize("state", sorted(RETIRED))
@pytest.mark.parametrize("endpoint", [ONE, TWO])
def test_one_that_is_retired_may_be_inactive_too(state: EndpointState, endpoint: Endpoint) -> None:
    """Its state does not say so, its addresses do."""
    retired = dataclasses.replace(endpoint, state=state)
    assert endpoint.name not in InactivePlaces([retired]).all
    failed = InactivePlaces([dataclasses.replace(retired, inactive=endpoint.addresses)])
    assert endpoint.name in failed.all
    assert failed.place_of(endpoint.name, endpoint.addresses[0]) in failed.all
