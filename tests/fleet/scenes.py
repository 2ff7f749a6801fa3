"""The scenes of the simulator: each makes a fleet, lets time pass, and returns its figures."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.fleet.clock import Clock, PerSecond
from tests.fleet.host import Flags, Host
from tests.fleet.world import Cache, Member, Zone

Figures = dict[str, float]

HOSTS_PER_CACHE = 50


@dataclass(slots=True)
class Fleet:
    """Hosts in front of members; all of them start within ``over_s`` seconds."""

    hosts: list[Host]
    members: list[Member]
    clock: Clock
    queries: PerSecond
    curves: dict[str, list[int]] = field(default_factory=dict)


def make_fleet(
    hosts: int,
    *,
    members: int = 5,
    flags: Flags | None = None,
    ttl_s: float = 60.0,
    over_s: float = 0.0,
    seed: int = 1,
) -> Fleet:
    """A fleet whose hosts start at moments spread over ``over_s``; 0 is all at once."""
    clock = Clock()
    cluster = [Member(clock, number) for number in range(members)]
    queries = PerSecond(clock)
    zone = Zone(cluster, ttl_s)
    caches = [Cache(clock, zone, queries) for _ in range(max(1, hosts // HOSTS_PER_CACHE))]
    made = [
        Host(number, clock, cluster, caches[number % len(caches)], flags or Flags())
        for number in range(hosts)
    ]
    chance = random.Random(seed)
    for host in made:
        clock.at(chance.random() * over_s, host.start)
    return Fleet(made, cluster, clock, queries)


def fullest(members: list[Member]) -> float:
    """Sessions of the fullest member over the mean."""
    sessions = [member.sessions for member in members]
    return max(sessions) * len(sessions) / max(1, sum(sessions))


def first_sessions(hosts: int, *, members: int = 5, flags: Flags | None = None) -> Figures:
    """Each host's first session."""
    fleet = make_fleet(hosts, members=members, flags=flags)
    fleet.clock.run_until(1.0)
    for host in fleet.hosts:
        host.connect()
    return {"fullest / mean": fullest(fleet.members)}


def idle_probes(hosts: int, *, minutes: int = 5, over_s: float = 0.0) -> Figures:
    """Nobody uses the cluster, and every host probes it; all hosts were started together."""
    fleet = make_fleet(hosts, over_s=over_s)
    begin, end = 2, 2 + 60 * minutes
    fleet.clock.run_until(end)
    probes = fleet.members[0].probes
    return {
        "probes of a member per second": probes.total(begin, end) / (end - begin),
        "peak / mean": probes.peak(begin, end),
        "DNS queries per second": fleet.queries.total(begin, end) / (end - begin),
        "DNS peak / mean": fleet.queries.peak(begin, end),
    }


def death_and_return(hosts: int, *, silent: bool = False) -> Figures:
    """One of five members dies at 60 s and is back at 120 s; each client has one session."""
    fleet = make_fleet(hosts)
    clock, chance = fleet.clock, random.Random(2)
    for host in fleet.hosts:
        clock.at(1 + chance.random() * 10, host.connect)
    clock.run_until(60.0)
    lost = fleet.members[0]
    lost.alive, lost.silent = False, silent
    if not silent:
        for host in fleet.hosts:
            for _ in range(host.lose(lost.name)):
                clock.at(clock.now + chance.random(), host.connect)
    clock.run_until(120.0)
    lost.alive, lost.silent = True, False
    clock.run_until(300.0)
    others = fleet.members[1:]
    return {
        "dials of the others, most per second": float(
            max(member.dials.most(60, 120) for member in others)
        ),
        "probes while it is dead, most per second": float(lost.probes.most(60, 120)),
        "probes at its return, most per second": float(lost.probes.most(120, 180)),
        "its sessions after 3 min / mean": lost.sessions * 5 / max(1, hosts),
    }


def every_scene(hosts: int) -> Iterator[tuple[str, Figures]]:
    """All scenes with this many hosts, by name."""
    yield "first session of each host", first_sessions(hosts)
    yield "idle, all hosts started together", idle_probes(hosts)
    yield "a member dies and returns", death_and_return(hosts)
