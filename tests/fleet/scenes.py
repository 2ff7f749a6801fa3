"""The scenes of the simulator: each makes a fleet, lets time pass, and returns its figures."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tests.fleet.clock import Clock, PerSecond
from tests.fleet.host import Flags, Host
from tests.fleet.world import Cache, Member, Zone

HOSTS_PER_CACHE = 50

WATCH_S = 300
"""How long probes and questions are counted, after the first ones of the start."""


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

    def connect_all(self, over_s: float) -> None:
        """One session of each host, begun within ``over_s`` from now."""
        chance = random.Random(2)
        for host in self.hosts:
            self.clock.at(self.clock.now + chance.random() * over_s, host.connect)

    @property
    def fullest(self) -> float:
        """Sessions of the fullest member over the mean."""
        sessions = [member.sessions for member in self.members]
        return max(sessions) * len(sessions) / max(1, sum(sessions))


def make_fleet(
    hosts: int, *, members: int = 5, flags: Flags | None = None, ttl_s: float = 60.0
) -> Fleet:
    """A fleet whose hosts are all started at the same moment: the worst case."""
    clock = Clock()
    probes = PerSecond(clock)
    cluster = [Member(clock, number, probes) for number in range(members)]
    queries = PerSecond(clock)
    zone = Zone(cluster, ttl_s)
    caches = [Cache(clock, zone, queries) for _ in range(max(1, hosts // HOSTS_PER_CACHE))]
    made = [
        Host(number, clock, cluster, caches[number % len(caches)], flags or Flags())
        for number in range(hosts)
    ]
    for host in made:
        clock.at(0.0, host.start)
    return Fleet(made, cluster, clock, queries, probes)


def first_sessions(hosts: int, members: int = 5) -> Outcome:
    """Each host's first session."""
    fleet = make_fleet(hosts, members=members)
    fleet.clock.run_until(1.0)
    for host in fleet.hosts:
        host.connect()
    return Outcome({"sessions of the fullest member / mean": fleet.fullest})


def idle(hosts: int) -> Outcome:
    """Nobody uses the cluster."""
    return _watch(make_fleet(hosts))


def busy(hosts: int) -> Outcome:
    """One session of each host, whose member answers every second."""
    fleet = make_fleet(hosts)
    fleet.clock.run_until(1.0)
    fleet.connect_all(1.0)
    for host in fleet.hosts:
        fleet.clock.at(2.0, host.use)
    return _watch(fleet)


def _watch(fleet: Fleet) -> Outcome:
    begin = 2
    end = begin + WATCH_S
    fleet.clock.run_until(end)
    probes, queries = fleet.members[0].probes, fleet.queries
    return Outcome(
        {
            "probes of a member per second": probes.total(begin, end) / WATCH_S,
            "probes of all members: peak / mean": fleet.probes.peak(begin, end),
            "DNS queries per second": queries.total(begin, end) / WATCH_S,
            "DNS queries: peak / mean": queries.peak(begin, end),
        },
        {
            "probes": [float(each) for each in fleet.probes.curve(begin, end)],
            "queries": [float(each) for each in queries.curve(begin, end)],
        },
    )


def restart(hosts: int) -> Outcome:
    """A member dies at 60 s, resets its sessions, and is back at 120 s."""
    fleet, chance = make_fleet(hosts), random.Random(3)
    clock, lost = fleet.clock, fleet.members[0]
    clock.run_until(1.0)
    fleet.connect_all(10.0)
    clock.run_until(60.0)
    lost.alive = False
    for host in fleet.hosts:
        for _ in range(host.lose(lost.name)):
            clock.at(clock.now + chance.random(), host.connect)
    clock.run_until(120.0)
    lost.alive = True
    clock.run_until(240.0)
    others = fleet.members[1:]
    return Outcome(
        {
            "most dials of another member in a second": float(
                max(member.dials.most(60, 120) for member in others)
            ),
            "most probes of the dead member in a second": float(lost.probes.most(60, 120)),
            "most probes of the returned member in a second": float(lost.probes.most(120, 180)),
        }
    )


def blackout(hosts: int, *, flags: Flags | None = None) -> Outcome:
    """A member's host vanishes without a word at 60 s; --on-inactive=close ends its sessions."""
    fleet = make_fleet(hosts, flags=flags)
    clock, lost = fleet.clock, fleet.members[0]
    clock.run_until(1.0)
    fleet.connect_all(10.0)
    clock.run_until(60.0)
    lost.alive, lost.silent = False, True
    clock.run_until(240.0)
    dials = [
        sum(m.dials.curve(60, 240)[second] for m in fleet.members[1:]) for second in range(180)
    ]
    return Outcome(
        {
            "most dials in a second": float(max(dials)),
            "most probes of the vanished member in a second": float(lost.probes.most(60, 240)),
        },
        {"dials": [float(each) for each in dials]},
    )


def coming_home(hosts: int, *, flags: Flags | None = None) -> Outcome:
    """A member was away from 60 s to 120 s; how its sessions come back within half an hour."""
    fleet, chance = make_fleet(hosts, flags=flags), random.Random(3)
    clock, lost = fleet.clock, fleet.members[0]
    clock.run_until(1.0)
    fleet.connect_all(10.0)
    clock.run_until(60.0)
    lost.alive = False
    for host in fleet.hosts:
        for _ in range(host.lose(lost.name)):
            clock.at(clock.now + chance.random(), host.connect)
    clock.run_until(120.0)
    lost.alive = True
    even_after, curve = float("inf"), []
    for second in range(120, 120 + 1800):
        clock.run_until(float(second))
        share = lost.sessions * len(fleet.members) / hosts
        curve.append(share)
        if share >= 0.85 and even_after == float("inf"):
            even_after = second - 120.0
    return Outcome({"seconds until even again": even_after}, {"share": curve})


AGED = Flags(session_age_s=600.0)

Scene = Callable[[], Outcome]


LARGEST = 1_000
"""Scenes that run for half an hour, or that say the same of every size, are for fewer hosts."""


def every_scene(hosts: int) -> Iterator[tuple[str, Scene]]:
    """All scenes with this many hosts, by name."""
    yield "first session of each host", lambda: first_sessions(hosts)
    yield "idle", lambda: idle(hosts)
    yield "a member restarts", lambda: restart(hosts)
    if hosts <= LARGEST:
        yield "busy", lambda: busy(hosts)
        yield "a member vanishes", lambda: blackout(hosts)
        yield "a member returns", lambda: coming_home(hosts)
        yield "a member returns, --max-session-age=10m", lambda: coming_home(hosts, flags=AGED)
