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
    """Those of ``endpoints``, each with when it was first known to be one: ``since``.

    ``before`` is what was known until ``now``.
    """

    __slots__ = ("_several", "since")

    def __init__(
        self,
        endpoints: Iterable[Endpoint] = (),
        before: InactivePlaces | None = None,
        now: float = 0.0,
    ) -> None:
        known = tuple(endpoints)
        self._several = {each.name: each.addresses for each in known if len(each.addresses) > 1}
        earlier = {} if before is None else before.since
        self.since: dict[Place, float] = {
            place: earlier.get(place, now) for place in _inactive(known)
        }

    def place_of(self, name: str, address: str) -> Place:
        """Where a session is; ``address`` is "" if its endpoint has one only."""
        return (name, address) if address in self._several.get(name, ()) else name

    def turned(self, before: InactivePlaces) -> dict[Place, float]:
        """Those that were none ``before``."""
        return {place: at for place, at in self.since.items() if place not in before.since}


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
