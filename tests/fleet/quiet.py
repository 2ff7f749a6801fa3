"""Scenes in which nothing fails: first sessions, probes and questions."""

from __future__ import annotations

import dataclasses

from supervisor.core.config import Config
from tests.fleet.fleet import Fleet, Outcome, make_fleet
from tests.fleet.host import CONFIG

WATCH_S = 300
"""How long probes and questions are counted, after the first ones of the start."""

EVERY_MINUTE = dataclasses.replace(CONFIG, discovery_refresh="fixed", discovery_refresh_s=60.0)
"""The interval of refreshes is our own, not what a cache leaves of a TTL."""


def first_sessions(hosts: int, members: int = 5) -> Outcome:
    """Each host's first session."""
    fleet = make_fleet(hosts, members=members)
    fleet.clock.run_until(1.0)
    for host in fleet.hosts:
        host.clients.connect()
    return Outcome({"sessions of the fullest member / mean": fleet.fullest})


def idle(hosts: int, *, config: Config = CONFIG, aged: bool = False) -> Outcome:
    """Nobody uses the cluster."""
    return _watch(make_fleet(hosts, config=config, aged=aged))


def busy(hosts: int) -> Outcome:
    """One session of each host, whose member answers every second."""
    fleet = make_fleet(hosts)
    fleet.clock.run_until(1.0)
    fleet.connect_all(1.0)
    fleet.clock.at(2.0, fleet.use)
    return _watch(fleet)


def _watch(fleet: Fleet) -> Outcome:
    begin = 2
    end = begin + WATCH_S
    fleet.clock.run_until(end)
    probes, queries = fleet.members[0].probes, fleet.queries
    upstream = fleet.zone.questions
    return Outcome(
        {
            "probes of a member per second": probes.total(begin, end) / WATCH_S,
            "probes of all members: peak / mean": fleet.probes.peak(begin, end),
            "DNS queries per second": queries.total(begin, end) / WATCH_S,
            "DNS queries: peak / mean": queries.peak(begin, end),
            "DNS queries of the caches to the zone per second": upstream.total(begin, end)
            / WATCH_S,
        },
        {
            "probes": [float(each) for each in fleet.probes.curve(begin, end)],
            "queries": [float(each) for each in queries.curve(begin, end)],
        },
    )
