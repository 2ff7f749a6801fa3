"""The places that are inactive, for ``--on-inactive=close``: endpoints, and single addresses.

An address of an endpoint that has several is a place of its own: whether its sessions have to go
does not depend on the others. They may turn the whole endpoint inactive, and active again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from gateway.core.endpoint import RETIRED, Endpoint, EndpointState

Place = str | tuple[str, str]
"""An endpoint's name, or its name and one of its several addresses."""


class InactivePlaces:
    """Those of ``endpoints``; ``all`` are the places themselves."""

    __slots__ = ("_several", "all")

    def __init__(self, endpoints: Iterable[Endpoint] = ()) -> None:
        known = tuple(endpoints)
        self._several = {each.name: each.addresses for each in known if len(each.addresses) > 1}
        self.all: frozenset[Place] = frozenset(_inactive(known))

    def place_of(self, name: str, address: str) -> Place:
        """Where a session is; ``address`` is "" if its endpoint has one only."""
        return (name, address) if address in self._several.get(name, ()) else name


def _inactive(endpoints: Iterable[Endpoint]) -> Iterator[Place]:
    for endpoint in endpoints:
        addresses = endpoint.inactive
        if endpoint.state is EndpointState.INACTIVE or _is_retired_and_inactive(endpoint):
            addresses = endpoint.addresses
            yield endpoint.name
        yield from ((endpoint.name, address) for address in addresses)


def _is_retired_and_inactive(endpoint: Endpoint) -> bool:
    """Whether one that is drained, or in its grace, fails as well: see ``Endpoint.inactive``."""
    return endpoint.state in RETIRED and set(endpoint.addresses) == set(endpoint.inactive)
