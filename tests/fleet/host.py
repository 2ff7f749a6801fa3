"""One simulated host: the gateway's pure parts, driven as its shell drives them."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from gateway.core.age import limit_s
from gateway.core.endpoint import Endpoint, EndpointState
from gateway.core.messages import Settings, Snapshot
from gateway.core.table import Table
from supervisor.core.discovery.answers import Answers, Refresh
from supervisor.core.discovery.endpoints import Question, QuestionKind
from supervisor.core.health.active_endpoints import ActiveEndpoints
from supervisor.core.health.machine import Health, HealthChange, Rules
from supervisor.core.reload_rules import seed_of
from tests.fleet.clock import Clock
from tests.fleet.world import DOMAIN, Cache, Member

RTT_S = 0.0005
"""One round trip inside a data centre."""

MIN_ACTIVE_PERCENT = 50
"""``--health-min-active``."""

TIMEOUT_S = 2.0
"""``--health-timeout`` and ``--dial-timeout``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flags:
    """What of the configuration the simulation varies."""

    rules: Rules = field(default_factory=Rules)
    settings: Settings = field(default_factory=Settings)
    workers: int = 1
    close_spread_s: float = 1.0
    session_age_s: float = 0.0


class Host:
    """A gateway of one worker (or several) and the clients behind it, one session each."""

    def __init__(
        self, number: int, clock: Clock, members: list[Member], cache: Cache, flags: Flags
    ) -> None:
        self._clock = clock
        self._members = {member.name: member for member in members}
        self._cache = cache
        self._flags = flags
        self._settings = dataclasses.replace(flags.settings, host_seed=seed_of(f"host {number}"))
        self._random = random.Random(number)
        self._draw: Callable[[int], int] = self._random.randrange
        self._tables = [Table(slot, flags.workers) for slot in range(flags.workers)]
        self._healths: dict[str, Health] = {}
        self._active = ActiveEndpoints()
        self._answers = Answers()
        self._questions = [Question(QuestionKind.SRV, f"_etcd-client._tcp.{DOMAIN}")]
        self._questions += [Question(QuestionKind.HOST, member.host) for member in members]
        self._version = 0
        self._serial = 0
        self.sessions: dict[int, str] = {}
        """The member of each session, by a number of its own."""

    def start(self) -> None:
        """Resolve, then probe at once, as a gateway that has just been started."""
        self._resolve()
        now = self._clock.now
        for name in self._members:
            self._healths[name] = Health(self._flags.rules, now)
            self._arm(name)
        self._active.replace(dict.fromkeys(self._members, True), frozenset())
        self._publish()

    def connect(self, slot: int = 0) -> None:
        """A client dials through worker ``slot``, until it has its session."""
        tried: dict[str, int] = {}
        table = self._tables[slot]
        while (endpoint := table.pick(tried)) is not None:
            name = endpoint.name
            member = self._members[name]
            member.dials.note()
            if member.alive:
                table.session_started(name)
                self._begin_session(member)
                return
            tried[name] = 1
            if member.silent:  # a hedge, not a refusal: the next one is dialed as well
                continue
            table.suspect(name)
            self._after(name, self._healths[name].dial_failed(
                "refused", self._clock.now, began_at=self._clock.now
            ))  # fmt: skip

    def lose(self, name: str) -> int:
        """The member closed its sessions: how many clients have to connect again."""
        lost = [number for number, where in self.sessions.items() if where == name]
        for number in lost:
            self._end_session(number)
        return len(lost)

    def use(self) -> None:
        """The sessions are in use from now on: their members answer every second."""
        self._report()

    def _begin_session(self, member: Member) -> None:
        self._serial += 1
        number = self._serial
        self.sessions[number] = member.name
        member.sessions += 1
        if self._flags.session_age_s:
            now = self._clock.now
            ends_at = now + limit_s(self._flags.session_age_s, now + self._random.random())
            self._clock.at(ends_at, lambda: self._close(number))

    def _end_session(self, number: int) -> None:
        name = self.sessions.pop(number)
        self._members[name].sessions -= 1
        self._tables[0].session_ended(name)

    def _close(self, number: int) -> None:
        """The gateway closes the session, and its client connects again."""
        if number in self.sessions:
            self._end_session(number)
            self.connect()

    def _report(self) -> None:
        now = self._clock.now
        for name in set(self.sessions.values()):
            health = self._healths[name]
            due_at = health.next_probe_at
            health.take_traffic(now, self._draw, sessions=1, dialed=False, answered=True)
            if health.next_probe_at != due_at:
                self._arm(name)
        self._clock.at(now + 1.0, self._report)

    def _publish(self) -> None:
        self._version += 1
        endpoints = tuple(
            Endpoint(
                name,
                (member.address,),
                2379,
                state=EndpointState.ACTIVE
                if self._healths[name].active
                else EndpointState.INACTIVE,
            )
            for name, member in self._members.items()
        )
        for table in self._tables:
            table.apply(Snapshot(self._version, endpoints, self._settings))

    # -- DNS --------------------------------------------------------------------------------

    def _resolve(self) -> None:
        now = self._clock.now
        for question in self._answers.due(self._questions, now):
            self._answers.take(
                question,
                self._cache.ask(question),
                now=now,
                refresh=Refresh(),
                draw=self._random.randrange,
            )
        self._clock.at(self._answers.next_at(), self._resolve)

    # -- health -----------------------------------------------------------------------------

    def _arm(self, name: str) -> None:
        due_at = self._healths[name].next_probe_at
        if due_at < float("inf"):
            self._clock.at(max(due_at, self._clock.now), lambda: self._probe(name, due_at))

    def _probe(self, name: str, due_at: float) -> None:
        health = self._healths[name]
        if health.next_probe_at != due_at:
            return  # it was asked for at another time meanwhile
        if not health.is_due(self._clock.now, self._draw):
            self._arm(name)
            return
        health.probe_started()
        member = self._members[name]
        member.note_probe()
        takes_s = TIMEOUT_S if member.silent else RTT_S
        self._clock.at(self._clock.now + takes_s, lambda: self._judge(name))

    def _judge(self, name: str) -> None:
        health, now = self._healths[name], self._clock.now
        member = self._members[name]
        if member.alive:
            change = health.probe_passed(now, self._draw)
        else:
            error = "timeout" if member.silent else "refused"
            keep = self._active.must_keep(name, MIN_ACTIVE_PERCENT)
            change = health.probe_failed(error, now, self._draw, keep=keep)
        self._after(name, change)

    def _after(self, name: str, change: HealthChange | None) -> None:
        self._arm(name)
        self._active.note(name, self._healths[name].active)
        if change is not None:
            self._publish()
        if change is HealthChange.DEACTIVATED and self._members[name].silent:
            for number in [n for n, where in self.sessions.items() if where == name]:
                at = self._clock.now + self._random.random() * self._flags.close_spread_s
                self._clock.at(at, partial(self._close, number))
