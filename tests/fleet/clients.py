"""The clients behind one simulated host, and what its workers do with them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from gateway.core.age import limit_s
from gateway.core.endpoint import EndpointState
from gateway.core.messages import Loads, Snapshot
from gateway.core.table import Table
from supervisor.core.rebalance import Direction, Order
from tests.fleet.world import Member

if TYPE_CHECKING:
    from tests.fleet.host import World


@dataclass(slots=True, eq=False)
class Session:
    """One session; its client connects again when it loses it, until ``leaves_at``."""

    member: Member
    slot: int
    began_at: float
    leaves_at: float


class Clients:
    """The tables of the workers and the sessions behind them.

    ``on_dial_failed`` and ``on_slow`` get the endpoint of a dial that was refused, and of one that
    another dial overtook.
    """

    def __init__(
        self,
        world: World,
        chance: random.Random,
        workers: int,
        *,
        on_dial_failed: Callable[[str], None],
        on_slow: Callable[[str], None],
    ) -> None:
        self._clock = world.clock
        self._members = world.members
        self._random = chance
        self._tables = [Table(slot, workers) for slot in range(workers)]
        self._on_dial_failed = on_dial_failed
        self._on_slow = on_slow
        self._sessions: dict[Session, None] = {}
        self._closing: set[Session] = set()
        self._inactive: frozenset[str] = frozenset()
        self._snapshot = Snapshot(0, ())
        self.delayed = 0
        """Clients that waited for a second dial."""
        self.unserved = 0
        """Clients that no endpoint took."""
        self.given_up = 0
        """Sessions that rebalancing closed."""

    def connect(self, slot: int = 0, *, leaves_at: float = float("inf")) -> None:
        """A client dials through worker ``slot``, until it has its session."""
        table, tried, slow = self._tables[slot], dict[str, int](), list[str]()
        hedge_s = self._snapshot.settings.dial_hedge_s
        while (endpoint := table.pick(tried)) is not None:
            name = endpoint.name
            tried[name] = 1
            member = self._members[name]
            member.dials.note()
            if member.silent or (member.alive and member.latency_s > hedge_s):
                slow.append(name)
                continue
            if member.alive:
                break
            table.suspect(name)
            self._on_dial_failed(name)
        taken = endpoint.name if endpoint else next(
            (name for name in slow if not self._members[name].silent), None
        )  # fmt: skip
        self.delayed += bool(slow)
        for name in slow:
            if name != taken:
                self._on_slow(name)
        if taken is None:
            self.unserved += 1
        else:
            self._begin(taken, slot, leaves_at)

    def lose(self, name: str) -> list[Session]:
        """The member closed its sessions; returns them, for their clients to connect again."""
        lost = [session for session in self._sessions if session.member.name == name]
        for session in lost:
            self._end(session)
        return lost

    def reconnect(self, session: Session) -> None:
        """The client of a session that it lost connects again, unless its time is over."""
        if self._clock.now < session.leaves_at:
            self.connect(session.slot, leaves_at=session.leaves_at)

    def apply(self, snapshot: Snapshot) -> None:
        """As the workers do with a snapshot; see the register of sessions there."""
        if snapshot.version == self._snapshot.version:
            return
        self._snapshot = snapshot
        for table in self._tables:
            table.apply(snapshot)
        states = {endpoint.name: endpoint.state for endpoint in snapshot.endpoints}
        inactive: frozenset[str] = frozenset()
        if snapshot.settings.on_inactive == "close":
            inactive = frozenset(n for n, s in states.items() if s is EndpointState.INACTIVE)
        turned, self._inactive = inactive - self._inactive, inactive
        for session in tuple(self._sessions):
            name = session.member.name
            if (name not in states or name in turned) and session not in self._closing:
                self._closing.add(session)
                spread_s = self._random.random() * snapshot.settings.close_spread_s
                self._clock.at(self._clock.now + spread_s, partial(self._close, session))

    def direct(self, directions: Iterable[Direction]) -> None:
        """The next clients go where sessions are missing."""
        for each in directions:
            self._tables[each.worker.slot].direct([each.endpoint])

    def give_up_one(self, order: Order) -> None:
        """Close the oldest session of the endpoint that is old enough."""
        now, slot = self._clock.now, order.worker.slot
        for session in self._sessions:
            if now - session.began_at <= order.older_than_s:
                break
            if session.member.name == order.endpoint and session.slot == slot:
                self.given_up += 1
                self._close(session)
                break

    def by_worker(self) -> dict[int, Counter[str]]:
        """Sessions by endpoint, of each worker."""
        counts: dict[int, Counter[str]] = {slot: Counter() for slot in range(len(self._tables))}
        for session in self._sessions:
            counts[session.slot][session.member.name] += 1
        return counts

    def report(self) -> dict[str, int]:
        """Sessions by endpoint; the workers report them to the master, which adds them up."""
        whole = dict(Counter(session.member.name for session in self._sessions))
        for table in self._tables:
            table.reported()
            if self._snapshot.settings.balance == "least-sessions":
                table.take_loads(Loads(whole))
        return whole

    def _begin(self, name: str, slot: int, leaves_at: float) -> None:
        now, member = self._clock.now, self._members[name]
        session = Session(member, slot, now, leaves_at)
        self._sessions[session] = None
        self._tables[slot].session_started(name)
        member.sessions += 1
        if leaves_at < float("inf"):
            self._clock.at(leaves_at, partial(self._end, session))
        if most_s := self._snapshot.settings.max_session_age_s:
            ends_at = now + limit_s(most_s, now + self._random.random())
            self._clock.at(ends_at, partial(self._close, session))

    def _end(self, session: Session) -> None:
        if session in self._sessions:
            del self._sessions[session]
            self._closing.discard(session)
            session.member.sessions -= 1
            self._tables[session.slot].session_ended(session.member.name)

    def _close(self, session: Session) -> None:
        """The gateway closes the session, and its client connects again."""
        if session in self._sessions:
            self._end(session)
            self.reconnect(session)
