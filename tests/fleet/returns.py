"""Scenes about what comes after a failure: who gets sessions back, how soon, and from where."""

from __future__ import annotations

import dataclasses

from supervisor.core.config import Config
from tests.fleet.fleet import Fleet, Outcome, make_fleet
from tests.fleet.host import CONFIG

AGED = dataclasses.replace(CONFIG, max_session_age_s=600.0)
REBALANCED = dataclasses.replace(CONFIG, rebalance_s=300.0)
LEAST = dataclasses.replace(CONFIG, balance="least-sessions")
SLOWLY = dataclasses.replace(LEAST, slow_start_s=30.0)

EVEN = 0.85
"""A member with this part of its share is even enough."""

SESSIONS_OF_A_HOST = 20
"""Rebalancing compares the sessions of one host, so hosts need some."""


def coming_home(
    hosts: int, *, config: Config = CONFIG, each: int = 1, watch_s: int = 1800
) -> Outcome:
    """A member was away from 60 s to 120 s; how its sessions come back within ``watch_s``.

    ``each``: how many sessions each host has.
    """
    fleet = make_fleet(hosts, config=config)
    clock, lost = fleet.clock, fleet.members[0]
    clock.run_until(1.0)
    fleet.connect_all(10.0, each=each)
    clock.run_until(60.0)
    moved = fleet.die(lost)
    clock.run_until(120.0)
    lost.alive = True
    even_after, curve = float("inf"), []
    for second in range(120, 120 + watch_s):
        clock.run_until(float(second))
        share = lost.sessions * len(fleet.members) / (hosts * each)
        curve.append(share)
        if share >= EVEN and even_after == float("inf"):
            even_after = second - 120.0
    figures = {"seconds until even again": even_after}
    if each > 1:
        closed = sum(host.clients.given_up for host in fleet.hosts)
        figures["sessions closed / sessions that had fled"] = closed / moved
        figures["most dials in a second"] = float(max(fleet.dials(120, 120 + watch_s)))
    return Outcome(figures, {"share": curve})


def warming_up(hosts: int, *, config: Config = LEAST) -> Outcome:
    """A member restarts within 5 s; clients come and go, ten at a time on each host."""
    fleet = make_fleet(hosts, config=config)
    clock, lost = fleet.clock, fleet.members[0]
    clock.run_until(1.0)
    fleet.come_and_go(every_s=2.0, stay_s=20.0)
    fleet.use()
    clock.run_until(60.0)
    fleet.die(lost)
    clock.run_until(65.0)
    lost.alive = True
    clock.run_until(155.0)
    curve = _parts(fleet, 65, 155)
    return Outcome(
        {
            "its part of the new sessions of the first 5 s / fair": sum(curve[:5]) / 5,
            "its part of the new sessions, most in any 5 s / fair": max(
                sum(curve[at : at + 5]) / 5 for at in range(len(curve) - 5)
            ),
            "its part of the new sessions after a minute / fair": sum(curve[60:]) / 30,
        },
        {"part": curve},
    )


def _parts(fleet: Fleet, begin: int, end: int) -> list[float]:
    """The first member's part of all dials, second by second; 1 is its fair share."""
    own, whole = fleet.members[0].dials.curve(begin, end), fleet.dials(begin, end)
    return [len(fleet.members) * mine / max(1, all_) for mine, all_ in zip(own, whole, strict=True)]


def zones(hosts: int) -> Outcome:
    """Two zones of three members, each host prefers its own; one zone is away from 60 s to 120 s.

    Sessions end after ten minutes, give or take a tenth, so they come home.
    """
    fleet = make_fleet(hosts, members=6, zones=2, preferring=True, config=AGED)
    clock = fleet.clock
    clock.run_until(1.0)
    fleet.connect_all(10.0)
    clock.run_until(60.0)
    before = _at_home(fleet)
    away = [member for member in fleet.members if member.zone == 0]
    for member in away:
        fleet.die(member)
    clock.run_until(119.0)
    left = [member for member in fleet.members if member.zone]
    full = max(member.sessions for member in left) * len(left) / hosts
    unserved = sum(host.clients.unserved for host in fleet.hosts)
    clock.run_until(120.0)
    for member in away:
        member.alive = True
    clock.run_until(120.0 + 1.1 * AGED.max_session_age_s + 60.0)
    return Outcome(
        {
            "sessions within their zone": before,
            "sessions of the fullest member of the zone that is left / mean": full,
            "clients that nobody served": float(unserved),
            "sessions within their zone, twelve minutes after its return": _at_home(fleet),
            "sessions of the fullest member / mean": fleet.fullest,
        }
    )


def _at_home(fleet: Fleet) -> float:
    """The part of the sessions whose member is in the zone of their host."""
    there = sum(
        count
        for number, host in enumerate(fleet.hosts)
        for name, count in host.clients.report().items()
        if next(each.zone for each in fleet.members if each.name == name) == number % 2
    )
    return there / sum(member.sessions for member in fleet.members)
