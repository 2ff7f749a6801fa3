"""A model of a worker's sessions: dials by the real table, ends by chance and by snapshots."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from gateway.core import messages
from gateway.core.counters import DialResult, End, EndpointCounters
from gateway.core.endpoint import RETIRED, Endpoint, EndpointState
from tests.simulation.kernel import Client
from tests.simulation.network import RTT_S, Mode

if TYPE_CHECKING:
    from tests.simulation.process import Process

SYNS_AFTER_S = (1.0, 3.0, 7.0, 15.0)
"""When the kernel asks again whoever has not answered."""


class Session:
    """One client that is served: dialing while ``endpoint`` is empty."""

    __slots__ = ("address", "client", "endpoint", "since", "slow", "tried")

    def __init__(self, client: Client) -> None:
        self.client = client
        self.since = 0.0
        self.endpoint = ""
        self.address = ""
        self.tried: dict[str, list[str]] = {}
        """By endpoint, the addresses that were not dialed yet."""
        self.slow: list[tuple[Endpoint, str, float]] = []
        """What was dialed and has not answered yet, and since when."""


class Sessions:
    """All sessions of one process."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._all: dict[int, Session] = {}
        self.dropped: dict[str, EndpointCounters] = {}
        self._usable: dict[str, Endpoint] = {}
        self._kept: frozenset[str] = frozenset()
        self._inactive: frozenset[str] = frozenset()

    def clients(self) -> list[Client]:
        return [session.client for session in self._all.values()]

    def has_before(self, name: str, at: float) -> bool:
        """Whether a session of the endpoint began before that instant."""
        return any(each.endpoint == name and each.since < at for each in self._all.values())

    def begin(self, client: Client) -> None:
        session = self._all[client.number] = Session(client)
        self._next(session)

    def apply(self, snapshot: messages.Snapshot) -> None:
        """End the sessions of what left or was emptied, and of what turned inactive if told so."""
        world, before = self._process.world, self._usable
        self._usable = {e.name: e for e in snapshot.endpoints if e.state not in RETIRED}
        self._kept = frozenset(each.name for each in snapshot.endpoints)
        self._process.addresses.keep(self._usable.values())
        emptied = {each.name for each in snapshot.endpoints if each.emptied}
        inactive: frozenset[str] = frozenset()
        if snapshot.settings.on_inactive == "close":
            inactive = frozenset(
                e.name for e in snapshot.endpoints if e.state is EndpointState.INACTIVE
            )
        turned, self._inactive = inactive - self._inactive, inactive
        for session in tuple(self._all.values()):
            if not session.endpoint:
                self._offer(session, before)
                continue
            if session.endpoint not in self._kept:
                self._end(session, End.REMOVED)
            elif session.endpoint in emptied:
                self._end(session, End.DRAINED)
            elif session.endpoint in turned:
                wait_s = world.draw() * snapshot.settings.close_spread_s
                self._process.soon(wait_s, self._end_if_there, session, End.INACTIVE)

    def _offer(self, session: Session, before: Mapping[str, Endpoint]) -> None:
        """Addresses that joined an endpoint are dialed too, once the others came to nothing."""
        for name, untried in session.tried.items():
            if name in self._usable:
                known = before[name].addresses if name in before else ()
                untried += [each for each in self._usable[name].addresses if each not in known]

    def give_up_one(self, name: str) -> None:
        for session in self._all.values():
            if session.endpoint == name:
                self._end(session, End.REBALANCE)
                return

    def cut_all(self, end: End) -> None:
        for session in tuple(self._all.values()):
            self._end(session, end)

    def reported(self) -> None:
        """As ``gateway.sessions.register`` does: counters of what left go once they were read."""
        self.dropped.clear()
        endpoints = self._process.counters.endpoints
        for name in endpoints.keys() - self._kept:
            if endpoints[name].sessions == 0:
                self.dropped[name] = endpoints.pop(name)

    # -- dialing ------------------------------------------------------------------------------

    def _next(self, session: Session) -> None:
        """Dial the next endpoint, or give up."""
        process = self._process
        if session.client.number not in self._all:
            return
        endpoint = process.table.pick(session.tried)
        process.world.oracle.picked(process, session.tried, endpoint)
        if endpoint is None:
            left = [name for name, untried in session.tried.items() if untried]
            if joined := next((self._usable[each] for each in left if each in self._usable), None):
                self._dial(session, joined)
            elif session.slow:
                slow, address, began_at = session.slow.pop(0)
                timeout_s = process.world.setup.config.dial_timeout_s
                wait_s = max(began_at + timeout_s - process.world.clock.now, 0.0)
                process.soon(wait_s, self._timed_out, session, slow, address, began_at)
            else:
                end = End.DIAL_FAILED if session.tried else End.NO_ENDPOINT
                process.world.oracle.refused(process, session.tried)
                refused = process.counters.refused
                refused[end.value] = refused.get(end.value, 0) + 1
                self._end(session, end)
            return
        addresses = endpoint.addresses
        if len(addresses) > 1:
            loads = process.table.address_loads(endpoint)
            addresses = process.addresses.order(endpoint, process.world.clock.now, loads)
        session.tried[endpoint.name] = list(addresses)
        self._dial(session, endpoint)

    def _dial(self, session: Session, endpoint: Endpoint) -> None:
        address = session.tried[endpoint.name].pop(0)
        process = self._process
        match process.world.network.modes[address]:
            case Mode.WELL | Mode.SICK:
                process.soon(RTT_S, self._connected, session, endpoint, address)
            case Mode.REFUSING:
                result = DialResult.REFUSED
                process.soon(RTT_S, self._failed, session, endpoint, address, result)
            case Mode.SILENT:
                hedge_s = process.world.setup.config.dial_hedge_s
                process.soon(
                    hedge_s, self._hedge, session, endpoint, address, process.world.clock.now
                )

    def _hedge(self, session: Session, endpoint: Endpoint, address: str, began_at: float) -> None:
        if session.client.number not in self._all:
            return
        session.slow.append((endpoint, address, began_at))
        if session.tried[endpoint.name]:
            self._dial(session, endpoint)
        else:
            self._next(session)

    def _timed_out(
        self, session: Session, endpoint: Endpoint, address: str, began_at: float
    ) -> None:
        """A process that stood still finds what its kernel got meanwhile."""
        network, now = self._process.world.network, self._process.world.clock.now
        works_since = network.moved_at.get(address, 0.0)
        asked = any(works_since <= began_at + after_s <= now for after_s in SYNS_AFTER_S)
        if asked and network.modes[address] in (Mode.WELL, Mode.SICK):
            self._connected(session, endpoint, address)
        else:
            self._failed(session, endpoint, address, DialResult.TIMEOUT)

    def _failed(
        self, session: Session, endpoint: Endpoint, address: str, result: DialResult
    ) -> None:
        process, name = self._process, endpoint.name
        dials = process.counters_of(name).dials
        dials[result.value] = dials.get(result.value, 0) + 1
        process.addresses.failed(endpoint, address, process.world.clock.now)
        left = session.tried[name]
        if not left:
            process.world.oracle.suspected(process, name)
            process.table.suspect(name)
        process.send(messages.DialFailed(name, address, result.value, result.value))
        if session.client.number not in self._all:
            return
        if left:
            self._dial(session, endpoint)
        else:
            self._next(session)

    def _connected(self, session: Session, endpoint: Endpoint, address: str) -> None:
        process, name = self._process, endpoint.name
        if session.client.number not in self._all:
            return
        usable = self._usable.get(name)
        if usable is None or address not in usable.addresses:  # withdrawn meanwhile
            self._next(session)
            return
        for slow, at, _ in session.slow:
            process.addresses.failed(slow, at, process.world.clock.now)
            if slow.name != name:
                process.world.oracle.suspected(process, slow.name)
                process.table.suspect(slow.name)
            process.send(messages.DialFailed(slow.name, at, DialResult.ABANDONED.value, "slow"))
        session.slow.clear()
        process.addresses.answered(name, address)
        session.endpoint = name
        session.since = process.world.clock.now
        session.address = address if len(endpoint.addresses) > 1 else ""
        counters = process.counters_of(name)
        counters.sessions += 1
        counters.sessions_total += 1
        process.reached += 1
        counters.dials["connected"] = counters.dials.get("connected", 0) + 1
        if session.address:
            here = counters.addresses
            here[address] = here.get(address, 0) + 1
        process.table.session_started(name, session.address)
        if not process.table.is_trusted(name, session.address):
            process.world.oracle.trusted(process, name)
            process.table.trust(name)
            process.send(messages.DialSucceeded(name, session.address))
        length_s = process.world.exponential(process.world.setup.session_s)
        process.soon(length_s, self._end_if_there, session, End.CLIENT)

    # -- ends ---------------------------------------------------------------------------------

    def _end_if_there(self, session: Session, end: End) -> None:
        if session.client.number in self._all:
            self._end(session, end)

    def _end(self, session: Session, end: End) -> None:
        process, name = self._process, session.endpoint
        del self._all[session.client.number]
        counters = process.counters
        counters.sessions -= 1
        counters.ended[end.value] = counters.ended.get(end.value, 0) + 1
        if name:
            here = process.counters_of(name)
            here.sessions -= 1
            here.bytes_in += 10
            here.bytes_out += 1000
            if session.address:
                here.addresses[session.address] -= 1
            process.table.session_ended(name, session.address)
        process.world.kernel.end(session.client)
        process.session_ended()
