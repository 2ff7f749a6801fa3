"""A worker's view of the endpoints: the newest snapshot plus its own suspects."""

from __future__ import annotations

import zlib
from collections import OrderedDict
from collections.abc import Collection, Iterable

from gateway.core import host_seed
from gateway.core.endpoint import RETIRED, Endpoint, EndpointState
from gateway.core.loads import LoadBook
from gateway.core.messages import Loads, Snapshot
from gateway.core.selection import Balancer, LeastSessions, Rotation

SUSPICION_REPORTS = 4
"""More than a probe into a black hole takes (``--health-timeout``, 2 s), at a report a second."""


class Table:
    """Answers which endpoint a client should be dialed to next, and remembers what failed here.

    The order of choice: the lowest priority, and of it the lowest tier, that has an active endpoint
    that is no suspect; then active suspects; then, failing open, the inactive ones: trying is never
    worse than refusing. Removed and draining endpoints get no new session. ``tried`` are the names
    that this client had already.
    """

    def __init__(self, slot: int, slots: int) -> None:
        self._slot = slot
        self._slots = slots
        self._snapshot: Snapshot | None = None
        self._endpoints: dict[str, Endpoint] = {}
        self._classes: dict[tuple[int, int], _Class] = {}
        self._suspects: dict[str, int] = {}
        self._trusted: set[str] = set()
        self._book = LoadBook(slots)
        self._address_book = LoadBook(slots)
        """The same by address, of endpoints with several."""
        self._directed: list[str] = []
        """Where the next clients go, whose turn it may be."""
        self._long_directed = 0
        """How many of these, the first ones, were there at the last report already."""
        self._seed = 0
        self._least = False

    @property
    def snapshot(self) -> Snapshot | None:
        """The newest snapshot that was applied; None before the first."""
        return self._snapshot

    @property
    def version(self) -> int:
        """Of the snapshot; 0 before the first."""
        return 0 if self._snapshot is None else self._snapshot.version

    def apply(self, snapshot: Snapshot) -> bool:
        """Take the snapshot if it is newer than ours; it clears all suspicion."""
        if self._snapshot is not None and snapshot.version <= self._snapshot.version:
            return False
        self._snapshot = snapshot
        self._endpoints = {endpoint.name: endpoint for endpoint in snapshot.endpoints}
        self._suspects.clear()
        self._trusted = {
            name
            for name, endpoint in self._endpoints.items()
            if endpoint.state is EndpointState.ACTIVE
        }
        self._least = snapshot.settings.balance == "least-sessions"
        if snapshot.settings.host_seed != self._seed:
            self._seed = snapshot.settings.host_seed
            self._classes = {}
        members: dict[tuple[int, int], list[Endpoint]] = {}
        for name in host_seed.order(self._endpoints, self._seed):
            endpoint = self._endpoints[name]
            if endpoint.state not in RETIRED:
                members.setdefault(endpoint.rank, []).append(endpoint)
        self._classes = {
            rank: self._class(self._classes.get(rank), members[rank]) for rank in sorted(members)
        }
        return True

    def pick(self, tried: Collection[str] = ()) -> Endpoint | None:
        """The endpoint to dial next; None when every one that may be dialed was tried."""
        if self._directed and not tried and self._is_first_choice(first := self._directed.pop()):
            return self._endpoints[first]
        for each in self._classes.values():
            if (name := each.balancer.pick(tried)) is not None:
                return self._picked(name) if self._least else self._endpoints[name]
        classes = self._classes.values()
        for queues in ([each.suspects for each in classes], [each.inactive for each in classes]):
            for queue in queues:
                if (name := _rotate(queue, tried)) is not None:
                    return self._picked(name)
        return None

    def _is_first_choice(self, name: str) -> bool:
        """Whether its turn may come: a snapshot may have changed that since we were directed."""
        if name not in self._trusted:
            return False
        rank = self._endpoints[name].rank
        return all(rank <= self._endpoints[each].rank for each in self._trusted)

    def direct(self, names: Iterable[str]) -> None:
        """Send one client to each of these before it is their turn: they have too few sessions.

        With least-sessions they are next anyhow. What no client used before the second report from
        now is forgotten: a client whose session was closed is back within a second or two, or it
        went elsewhere.
        """
        self._long_directed = min(self._long_directed, len(self._directed))
        self._directed = [] if self._least else [*self._directed, *names]

    def suspect(self, name: str) -> None:
        """A dial to it failed here: avoid it until the master's verdict arrives.

        The verdict is the next snapshot; without one the suspicion ends after SUSPICION_REPORTS,
        because the master sends none if it found nothing wrong.
        """
        if name in self._trusted:
            self._trusted.discard(name)
            self._suspects[name] = 0
            each = self._classes[self._endpoints[name].rank]
            each.balancer.disable(name)
            each.suspects[name] = None

    def trust(self, name: str) -> None:
        """A dial to it succeeded: it is no suspect any more."""
        if self._suspects.pop(name, None) is not None:
            self._trusted.add(name)
            each = self._classes[self._endpoints[name].rank]
            each.balancer.enable(name)
            del each.suspects[name]

    def first_turn(self, name: str) -> int:
        """At which of its addresses this worker begins: hosts and workers differ."""
        return int(host_seed.start(self._seed ^ zlib.crc32(name.encode())) * 4096) + self._slot

    def address_loads(self, endpoint: Endpoint) -> dict[str, int] | None:
        """Sessions by address; None if the addresses just take turns."""
        if not self._least:
            return None
        estimate = self._address_book.estimate
        return {each: estimate(_place(endpoint.name, each)) for each in endpoint.addresses}

    def take_loads(self, loads: Loads) -> None:
        """The master's totals, about once a second; sent for least-sessions only."""
        self._address_book.take(
            {
                _place(name, address): sessions
                for name, addresses in loads.addresses.items()
                for address, sessions in addresses.items()
            }
        )
        changed = self._book.take(loads.endpoints)
        if self._least:
            self._reload(changed)

    def reported(self) -> None:
        """To be called when a Report is sent, about once a second.

        The next Loads know our sessions of now; suspicions and directions grow old.
        """
        self._book.report()
        self._address_book.report()
        self._directed = self._directed[self._long_directed :]
        self._long_directed = len(self._directed)
        for name, reports in tuple(self._suspects.items()):
            self._suspects[name] = reports + 1
            if reports + 1 >= SUSPICION_REPORTS:
                self.trust(name)

    def session_started(self, name: str, address: str = "") -> None:
        """The client of a pick reached the endpoint; ``address``: which, if it has several."""
        self._book.start(name)
        if address:
            self._address_book.start(_place(name, address))
        if self._least:
            self._reload((name,))

    def address_known(self, name: str, address: str) -> None:
        """At which address a session is that was started without one: there are several now."""
        self._address_book.start(_place(name, address))

    def session_ended(self, name: str, address: str = "") -> None:
        """Once for each session_started, also when the endpoint has left the snapshot."""
        self._book.end(name)
        if address:
            self._address_book.end(_place(name, address))
        if self._least:
            self._reload((name,))

    def is_trusted(self, name: str, address: str = "") -> bool:
        """Active and no suspect: a successful dial of it is no news to the master.

        ``address``: of an endpoint with several, whether that one is active, too.
        """
        if name not in self._trusted:
            return False
        return not address or address not in self._endpoints[name].inactive

    def _picked(self, name: str) -> Endpoint:
        if self._least:
            self._book.pick(name)
            self._reload((name,))
        return self._endpoints[name]

    def _reload(self, names: Iterable[str]) -> None:
        for name in names if self._least else ():
            endpoint = self._endpoints.get(name)
            if endpoint is not None and endpoint.state not in RETIRED:
                load = self._book.estimate(name)
                self._classes[endpoint.rank].balancer.set_load(name, load)

    def _class(self, old: _Class | None, members: list[Endpoint]) -> _Class:
        """The old balancer with new states, unless weights, members or the method changed."""
        weights = {endpoint.name: endpoint.weight for endpoint in members}
        ramps = {endpoint.name: endpoint.ramp for endpoint in members if endpoint.ramp != 100}
        kind = LeastSessions if self._least else Rotation
        start = host_seed.start(self._seed)
        balancer: Balancer
        if old and old.has_shares(weights, ramps) and isinstance(old.balancer, kind):
            balancer = old.balancer
        elif self._least:
            balancer = LeastSessions(
                weights, ramps=ramps, slot=self._slot, slots=self._slots, start=start
            )
            for name in weights:
                balancer.set_load(name, self._book.estimate(name))
        else:
            at = old.balancer.at if old and isinstance(old.balancer, Rotation) else None
            balancer = Rotation(
                weights, ramps=ramps, slot=self._slot, slots=self._slots, start=start, at=at
            )
        inactive: OrderedDict[str, None] = OrderedDict()
        for endpoint in members:
            if endpoint.state is EndpointState.ACTIVE:
                balancer.enable(endpoint.name)
            else:
                balancer.disable(endpoint.name)
                inactive[endpoint.name] = None
        return _Class(weights, ramps, balancer, inactive)


class _Class:
    """The endpoints of one rank: balanced if trusted, else queues that are tried in turn."""

    __slots__ = ("balancer", "inactive", "ramps", "suspects", "weights")

    def __init__(
        self,
        weights: dict[str, int],
        ramps: dict[str, int],
        balancer: Balancer,
        inactive: OrderedDict[str, None],
    ) -> None:
        self.weights = weights
        self.ramps = ramps
        self.balancer = balancer
        self.inactive = inactive
        self.suspects: OrderedDict[str, None] = OrderedDict()

    def has_shares(self, weights: dict[str, int], ramps: dict[str, int]) -> bool:
        """Whether our balancer was made for the same shares."""
        return self.weights == weights and self.ramps == ramps


def _place(name: str, address: str) -> str:
    """One address of an endpoint, as a key."""
    return f"{name} {address}"


def _rotate(queue: OrderedDict[str, None], tried: Collection[str]) -> str | None:
    """The first that was not tried, which becomes the last; O(1) while one client tries them."""
    for name in queue:
        if name not in tried:
            queue.move_to_end(name)
            return name
    return None
