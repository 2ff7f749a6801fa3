"""One simulated host: the gateway's pure parts, driven as its master drives them."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from gateway.core.endpoint import RETIRED
from gateway.core.networks import Networks
from gateway.core.table import SUSPICION_REPORTS
from supervisor.core.config import Config
from supervisor.core.discovery.answers import Answers, Refresh
from supervisor.core.discovery.endpoints import Discovered, find_srv, hosts_to_look_up
from supervisor.core.discovery.questions import Answer, Question
from supervisor.core.discovery.targets import owners
from supervisor.core.health.active_endpoints import ActiveEndpoints
from supervisor.core.health.machine import Health, HealthChange
from supervisor.core.health.probing import ProbeKind, rules
from supervisor.core.rebalance import Rebalancer
from supervisor.core.reload_rules import seed_of, worker_settings
from supervisor.core.roster import Roster
from supervisor.core.roster_member import Policy
from supervisor.core.workers.worker_id import WorkerId
from tests.fleet.clients import Clients
from tests.fleet.clock import Clock
from tests.fleet.world import OWNER, Cache, Member

CONFIG = Config(discovery_srv=OWNER, health_check="tcp", insecure_discovery=True)
"""What every simulated gateway is started with, beside the flags of the scene."""


@dataclass(frozen=True, slots=True)
class World:
    """What the host sees of the world."""

    clock: Clock
    members: dict[str, Member]
    cache: Cache


class Host:
    """A gateway and the clients behind it.

    What the master does once a second is simulated only while there is something to do.
    """

    def __init__(self, number: int, world: World, config: Config, workers: int = 1) -> None:
        self._clock = world.clock
        self._world = world
        self._config = config
        self._settings = dataclasses.replace(
            worker_settings(config), host_seed=seed_of(f"host {number}")
        )
        self._rules = rules(config, ProbeKind.TCP)
        self._random = random.Random(number)
        self._draw: Callable[[int], int] = self._random.randrange
        self._owners = owners(config)
        self._answers = Answers()
        self._refresh = Refresh(config.discovery_refresh, config.discovery_refresh_s)
        self._owner_questions = tuple(owner.question for owner in self._owners)
        self._hosts: tuple[Question, ...] = ()
        self._healths: dict[str, Health] = {}
        self._active = ActiveEndpoints()
        self._roster = Roster()
        self._roster.follow(
            Policy(
                grace_s=config.removal_grace_s,
                slow_start_s=config.slow_start_s,
                prefer=Networks(map(str, config.prefer)),
            ),
            world.clock.now,
        )
        self._rebalancer = Rebalancer()
        self._busy = False
        self._ticking = False
        self._suspects_until = 0.0
        self.clients = Clients(
            world, self._random, workers, on_dial_failed=self._dial_failed, on_slow=self._slow
        )

    def start(self) -> None:
        """Resolve, then probe at once, as a gateway that has just been started."""
        self._resolve()

    def use(self) -> None:
        """The sessions are in use from now on: their members answer every second."""
        self._busy = True
        self._tick_if_needed()

    @property
    def active(self) -> set[str]:
        """The endpoints that it holds for active."""
        return {name for name, health in self._healths.items() if health.active}

    # -- DNS --------------------------------------------------------------------------------

    def _resolve(self) -> None:
        changed = self._ask(self._owner_questions)
        if changed:
            self._hosts = hosts_to_look_up(self._owners, self._answers.lookup)
            self._answers.keep({*self._owner_questions, *self._hosts})
        changed |= self._ask(self._hosts)
        if changed:
            self._found(find_srv(self._owners, self._answers.lookup).endpoints)
        self._clock.at(self._answers.next_at((*self._owner_questions, *self._hosts)), self._resolve)

    def _ask(self, questions: Iterable[Question]) -> bool:
        """Ask what is due; whether an answer differs from the one before."""
        now, changed = self._clock.now, False
        for question in self._answers.due(questions, now):
            before = self._answers.lookup(question)
            answer = self._world.cache.ask(question)
            self._answers.take(question, answer, now=now, refresh=self._refresh, draw=self._draw)
            changed |= not isinstance(before, Answer) or (
                (before.records, before.addresses) != (answer.records, answer.addresses)
            )
        return changed

    def _found(self, found: tuple[Discovered, ...]) -> None:
        self._roster.resolve(found, self._clock.now, self._config.removal_grace_s)
        self._watch_members()
        self._publish()

    def _watch_members(self) -> None:
        members = self._roster.members
        names = [member.found.name for member in members]
        for name in [name for name in self._healths if name not in names]:
            del self._healths[name]
        for name in names:
            if name not in self._healths:
                self._healths[name] = Health(self._rules, self._clock.now)
                self._arm(name)
        retired = frozenset(each.found.name for each in members if each.state in RETIRED)
        states = {name: health.active for name, health in self._healths.items()}
        self._active.replace(states, retired)

    # -- health -----------------------------------------------------------------------------

    def _arm(self, name: str) -> None:
        due_at = self._healths[name].next_probe_at
        if due_at < float("inf"):
            self._clock.at(max(due_at, self._clock.now), lambda: self._probe(name, due_at))

    def _probe(self, name: str, due_at: float) -> None:
        health = self._healths.get(name)
        if health is None or health.next_probe_at != due_at:
            return  # it is gone, or was asked for at another time meanwhile
        if not health.is_due(self._clock.now, self._draw):
            self._arm(name)
            return
        health.probe_started()
        member = self._world.members[name]
        member.note_probe()
        timeout_s = self._config.health_timeout_s
        takes_s = timeout_s if member.silent else min(member.latency_s, timeout_s)
        self._clock.at(self._clock.now + takes_s, lambda: self._judge(name, health))

    def _judge(self, name: str, health: Health) -> None:
        if self._healths.get(name) is not health:
            return
        member, now = self._world.members[name], self._clock.now
        slow = member.silent or member.latency_s > self._config.health_timeout_s
        if member.alive and not slow:
            change = health.probe_passed(now, self._draw)
        else:
            keep = self._active.must_keep(name, self._config.health_min_active)
            error = "timeout" if slow else "refused"
            change = health.probe_failed(error, now, self._draw, keep=keep)
        self._after(name, change)

    def _dial_failed(self, name: str) -> None:
        now = self._clock.now
        self._suspects_until = now + SUSPICION_REPORTS
        if (health := self._healths.get(name)) is not None:
            self._after(name, health.dial_failed("refused", now, began_at=now))
        self._tick_if_needed()

    def _slow(self, name: str) -> None:
        """The dial was slower than one that began later: a hint."""
        if (health := self._healths.get(name)) is not None:
            health.note("slower than the next endpoint", self._clock.now)
            health.hint(self._clock.now)
            self._arm(name)

    def _after(self, name: str, change: HealthChange | None) -> None:
        self._arm(name)
        active = self._healths[name].active
        self._active.note(name, active)
        if change is not None:
            self._roster.judge(name, active, self._clock.now)
            self._publish()

    # -- the roster -------------------------------------------------------------------------

    def _publish(self) -> None:
        self.clients.apply(self._roster.snapshot(self._settings))
        self._tick_if_needed()

    def _tick_if_needed(self) -> None:
        if self._ticking:
            return
        if (
            self._busy
            or self._config.rebalance_s
            or self._clock.now < self._suspects_until
            or any(each.removed_at or each.returned_at for each in self._roster.members)
        ):
            self._ticking = True
            self._clock.at(self._clock.now + 1.0, self._tick)

    def _tick(self) -> None:
        """What the master does every second."""
        self._ticking = False
        now = self._clock.now
        sessions = self.clients.report()
        for member in self._roster.members:
            self._roster.sessions(member.found.name, sessions.get(member.found.name, 0))
        for name in sessions if self._busy else ():
            self._take_traffic(name, sessions[name])
        if self._roster.advance(now):
            self._watch_members()
        snapshot = self._roster.snapshot(self._settings)
        self.clients.apply(snapshot)
        if self._config.rebalance_s:
            held = {WorkerId(slot, 0): each for slot, each in self.clients.by_worker().items()}
            commands, directions = self._rebalancer.step(
                snapshot.endpoints,
                held,
                over_s=self._config.rebalance_s,
                now=now,
                draw=self._draw,
            )
            self.clients.direct(directions)
            for order in commands:
                self.clients.give_up_one(order)
        self._tick_if_needed()

    def _take_traffic(self, name: str, sessions: int) -> None:
        health = self._healths[name]
        due_at = health.next_probe_at
        health.take_traffic(
            self._clock.now, self._draw, sessions=sessions, dialed=False, answered=True
        )
        if health.next_probe_at != due_at:
            self._arm(name)
