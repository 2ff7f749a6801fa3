"""Scenes in which a member fails: at once, without a word, again and again, slowly, for good."""

from __future__ import annotations

import dataclasses

from tests.fleet.fleet import Fleet, Outcome, make_fleet
from tests.fleet.host import CONFIG

CLOSING = dataclasses.replace(CONFIG, on_inactive="close")

FLAP_S = 10.0
"""How long a flapping member is up, and how long it is down."""

SLOW_S = 1.0
"""How long a slow member takes to answer: more than the hedge, less than a probe may."""


def restart(hosts: int) -> Outcome:
    """A member dies at 60 s, resets its sessions, and is back at 120 s."""
    fleet = make_fleet(hosts)
    clock, lost = fleet.clock, fleet.members[0]
    clock.run_until(1.0)
    fleet.connect_all(10.0)
    clock.run_until(60.0)
    fleet.die(lost)
    clock.run_until(120.0)
    lost.alive = True
    clock.run_until(240.0)
    return Outcome(
        {
            "most dials of another member in a second": float(
                max(member.dials.most(60, 120) for member in fleet.members[1:])
            ),
            "most probes of the dead member in a second": float(lost.probes.most(60, 120)),
            "most probes of the returned member in a second": float(lost.probes.most(120, 180)),
        }
    )


def blackout(hosts: int) -> Outcome:
    """A member's host vanishes without a word at 60 s; --on-inactive=close ends its sessions."""
    fleet = make_fleet(hosts, config=CLOSING)
    clock, lost = fleet.clock, fleet.members[0]
    clock.run_until(1.0)
    fleet.connect_all(10.0)
    clock.run_until(60.0)
    lost.alive, lost.silent = False, True
    clock.run_until(240.0)
    dials = fleet.dials(60, 240, fleet.members[1:])
    return Outcome(
        {
            "most dials in a second": float(max(dials)),
            "most probes of the vanished member in a second": float(lost.probes.most(60, 240)),
        },
        {"dials": [float(each) for each in dials]},
    )


def _make_busy_fleet(hosts: int) -> Fleet:
    """A minute old; clients come and go."""
    fleet = make_fleet(hosts)
    fleet.clock.run_until(1.0)
    fleet.come_and_go(every_s=5.0, stay_s=20.0)
    fleet.use()
    fleet.clock.run_until(60.0)
    return fleet


def flapping(hosts: int) -> Outcome:
    """For five minutes a member is up for 10 s and down for 10 s; clients come and go."""
    fleet = _make_busy_fleet(hosts)
    clock, sick = fleet.clock, fleet.members[0]
    lost = []
    for _ in range(int(300 / (2 * FLAP_S))):
        lost.append(fleet.die(sick))
        clock.run_until(clock.now + FLAP_S)
        sick.alive = True
        clock.run_until(clock.now + FLAP_S)
    minute = int(60 / (2 * FLAP_S))
    healed_at = clock.now
    clock.run_until(healed_at + 70.0)
    return Outcome(
        {
            "sessions lost in the first minute": float(sum(lost[:minute])),
            "sessions lost in the fifth minute": float(sum(lost[-minute:])),
            "most probes of it in a second": float(sick.probes.most(60, int(healed_at))),
            "hosts that do not use it 70 s after the last time": float(
                sum(sick.name not in host.active for host in fleet.hosts)
            ),
        },
        {"lost": [float(each) for each in lost]},
    )


def slow(hosts: int) -> Outcome:
    """From 60 s to 360 s a member takes a second to answer; clients come and go."""
    fleet = _make_busy_fleet(hosts)
    clock, sick = fleet.clock, fleet.members[0]
    sick.latency_s = SLOW_S
    clock.run_until(360.0)
    clients = sum(fleet.dials(60, 360, fleet.members[1:]))
    return Outcome(
        {
            "clients that waited for a second dial, percent": 100.0
            * sum(host.clients.delayed for host in fleet.hosts)
            / clients,
            "sessions of the fullest member / mean": fleet.fullest,
            "probes of it per second": sick.probes.total(60, 360) / 300,
            "hosts that held it for inactive": float(
                sum(sick.name not in host.active for host in fleet.hosts)
            ),
        }
    )


def removed(hosts: int) -> Outcome:
    """A member leaves DNS at 60 s, and goes on; its sessions end after --removal-grace."""
    fleet = make_fleet(hosts)
    clock, leaver = fleet.clock, fleet.members[0]
    clock.run_until(1.0)
    fleet.connect_all(10.0)
    clock.run_until(60.0)
    fleet.zone.gone.add(leaver.name)
    empty_after = float("inf")
    while clock.now < 240.0 and leaver.sessions:
        clock.run_until(clock.now + 1.0)
        empty_after = clock.now - 60.0 if not leaver.sessions else empty_after
    clock.run_until(300.0)
    rest = [member.sessions for member in fleet.members[1:]]
    return Outcome(
        {
            "seconds until it has no session": empty_after,
            "most dials in a second": float(max(fleet.dials(60, 300))),
            "probes of it after two minutes": float(leaver.probes.total(180, 300)),
            "sessions of the fullest member that is left / mean": max(rest) * len(rest) / sum(rest),
        },
        {"dials": [float(each) for each in fleet.dials(60, 300)]},
    )
