"""A fleet: hosts in front of members, and what DNS is asked."""

from __future__ import annotations

import dataclasses
import ipaddress
import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial

from supervisor.core.config import Config
from tests.fleet.clock import Clock, PerSecond
from tests.fleet.host import CONFIG, Host, World
from tests.fleet.world import Cache, Member, Zone

HOSTS_PER_CACHE = 50

ZONES = tuple(ipaddress.ip_network(f"10.{zone}.0.0/16") for zone in range(2))
"""The networks of the zones that members are in."""


@dataclass(slots=True)
class Outcome:
    """What a scene came to: figures by name, and curves of one value per second."""

    figures: dict[str, float]
    curves: dict[str, list[float]] = field(default_factory=dict)


@dataclass(slots=True)
class Fleet:
    """Hosts in front of members, and the questions that DNS gets."""

    hosts: list[Host]
    members: list[Member]
    clock: Clock
    queries: PerSecond
    probes: PerSecond
    zone: Zone
    chance: random.Random = field(default_factory=lambda: random.Random(2))

    def connect_all(self, over_s: float, *, each: int = 1) -> None:
        """So many sessions of each host, begun within ``over_s`` from now."""
        for host in self.hosts:
            for _ in range(each):
                at = self.clock.now + self.chance.random() * over_s
                self.clock.at(at, host.clients.connect)

    def use(self) -> None:
        """The sessions are in use from now on."""
        for host in self.hosts:
            self.clock.at(self.clock.now, host.use)

    def come_and_go(self, *, every_s: float, stay_s: float) -> None:
        """At each host a client comes every so often, and leaves after ``stay_s``; on average."""
        for host in self.hosts:
            self._next_arrival(host, every_s, stay_s)

    def die(self, member: Member, *, over_s: float = 1.0) -> int:
        """The member resets its sessions, whose clients connect again; how many there were."""
        member.alive = False
        count = 0
        for host in self.hosts:
            for session in host.clients.lose(member.name):
                count += 1
                at = self.clock.now + self.chance.random() * over_s
                self.clock.at(at, partial(host.clients.reconnect, session))
        return count

    @property
    def fullest(self) -> float:
        """Sessions of the fullest member over the mean."""
        sessions = [member.sessions for member in self.members]
        return max(sessions) * len(sessions) / max(1, sum(sessions))

    def dials(self, begin: int, end: int, members: Iterable[Member] = ()) -> list[int]:
        """Dials of these members together, or of all, in each second."""
        curves = [member.dials.curve(begin, end) for member in members or self.members]
        return [sum(second) for second in zip(*curves, strict=True)]

    def _next_arrival(self, host: Host, every_s: float, stay_s: float) -> None:
        at = self.clock.now + self.chance.expovariate(1 / every_s)

        def arrive() -> None:
            leaves_at = at + self.chance.expovariate(1 / stay_s)
            host.clients.connect(leaves_at=leaves_at)
            self._next_arrival(host, every_s, stay_s)

        self.clock.at(at, arrive)


def make_fleet(
    hosts: int,
    *,
    members: int = 5,
    zones: int = 1,
    ttl_s: float = 60.0,
    aged: bool = False,
    preferring: bool = False,
    config: Config = CONFIG,
) -> Fleet:
    """A fleet whose hosts are all started at the same moment: the worst case.

    ``aged``: the caches were filled at different times before that; otherwise they are empty, which
    is the worst case, too. ``preferring``: each host prefers the members of its own zone.
    """
    clock, chance = Clock(), random.Random(4)
    probes, queries = PerSecond(clock), PerSecond(clock)
    cluster = [Member(clock, number, probes, number % zones) for number in range(members)]
    zone = Zone(cluster, ttl_s, PerSecond(clock))
    caches = [
        Cache(clock, zone, queries, aged_s=ttl_s * chance.random() if aged else 0.0)
        for _ in range(max(1, hosts // HOSTS_PER_CACHE))
    ]
    by_name = {member.name: member for member in cluster}
    made = []
    for number in range(hosts):
        world = World(clock, by_name, caches[number % len(caches)])
        own = config
        if preferring:
            own = dataclasses.replace(config, prefer=(ZONES[number % zones],))
        made.append(Host(number, world, own))
    for host in made:
        clock.at(0.0, host.start)
    return Fleet(made, cluster, clock, queries, probes, zone)
