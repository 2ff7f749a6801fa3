"""What one run is given: a setup, and a plan of disturbances, both drawn from a seed."""

from __future__ import annotations

import enum
import json
import random
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from gateway.core.address import HostPort
from supervisor.core.config import Config, StaticTarget
from tests.simulation.clock import BEGIN_S

DOMAIN = "sim.test"
SPAN_S = 40.0
"""How long a run is disturbed; then it has to come to rest."""


class Kind(enum.StrEnum):
    """What can happen to a gateway from outside."""

    BURST = "burst of clients"
    KILL = "worker killed"
    KILL_ALL = "all workers killed"
    HANG = "worker hangs"
    MASTER_LATE = "master gets no CPU"
    HOST_LATE = "whole host gets no CPU"
    PIPE_STALL = "worker does not read its pipe"
    FAILED_START = "next workers die before they are ready"
    SLOW_START = "next worker starts slowly"
    NO_FORK = "next forks fail"
    NO_ADOPTION = "no descriptor for the next adoptions"
    FEW_DESCRIPTORS = "next worker has few descriptors"
    RELOAD = "HUP with another configuration"
    MORE = "TTIN"
    FEWER = "TTOU"
    UPGRADE = "USR2"
    CRASH = "master killed"
    CRASH_EDITED = "master killed after its configuration was edited"
    RESTART = "service manager restarts"
    REFUSING = "endpoint refuses"
    SILENT = "endpoint is silent"
    SICK = "endpoint takes connections and fails probes"
    WELL = "endpoint works again"
    LAME = "nameserver gives lame answers"
    LATE_DNS = "nameserver is late"
    BROKEN_DNS = "nameserver says SERVFAIL"
    DEAF_DNS = "nameserver says nothing"
    DENYING = "nameserver says NXDOMAIN"
    EMPTY = "nameserver says NOERROR and nothing"
    HALF = "nameserver answers A and not AAAA"
    OTHER_ZONE = "nameservers contradict each other"
    MENDED_DNS = "nameservers work again"
    JOIN = "a member joins"
    LEAVE = "a member leaves"
    REWEIGH = "a member changes priority and weight"
    BAD_CERTIFICATE = "a member's certificate is not valid"
    WALL_JUMP = "the wall clock jumps"
    NO_SOCKETS = "this host cannot probe"
    ENROL = "the cluster gains a member"
    EXPEL = "the cluster loses a member"
    OTHER_CLUSTER = "a member is of another cluster"
    CUT_OFF = "a member knows no leader and tells an old list"
    AFAR = "a member's client URL leads nowhere from here"


@dataclass(frozen=True, slots=True)
class Event:
    """One disturbance; ``which`` and ``much`` (0 to 1) mean what ``kind`` makes of them."""

    at: float
    kind: Kind
    which: int
    much: float


@dataclass(frozen=True, slots=True)
class Setup:
    """What stays the same in one run: how many workers, which configuration, who asks."""

    workers: int
    members: int
    secured: bool
    several: bool
    unix: bool
    """Whether clients also come by a UNIX socket, which all workers share."""
    synced: bool
    """Whether endpoints follow the member list of the cluster."""
    literal: bool
    """Whether the client URLs of that list are addresses, and not names."""
    clients_per_s: float
    session_s: float
    config: Config


OLDEST_SEEDS = 100
"""The cases that were kept before there was a UNIX socket or a member list have lower seeds."""

MEMBER_SYNC_S = 2.0


def draw_setup(seed: int) -> Setup:
    draw = random.Random(f"setup {seed}")
    more = random.Random(f"unix and synced {seed}")
    unix = seed >= OLDEST_SEEDS and more.random() < 0.3
    synced = seed >= OLDEST_SEEDS and more.random() < 0.4
    literal = more.random() < 0.5
    secured = draw.random() < 0.3
    base = Config(
        discovery_srv=DOMAIN,
        insecure_discovery=not secured,
        member_sync_s=MEMBER_SYNC_S if synced else 0.0,
    )
    return Setup(
        workers=draw.choice((1, 2, 2, 3, 4)),
        members=draw.choice((1, 2, 3, 3, 5)),
        secured=secured,
        several=draw.random() < 0.25,
        unix=unix,
        synced=synced,
        literal=literal,
        clients_per_s=draw.choice((2.0, 5.0, 15.0)),
        session_s=draw.choice((0.2, 1.0, 5.0)),
        config=draw_config(draw, base),
    )


def draw_config(draw: random.Random, base: Config) -> Config:
    """A configuration, with delays short enough for everything to happen within a run."""
    return replace(
        base,
        endpoints_given=base.endpoints_given or draw.random() < 0.2,
        endpoints=(StaticTarget(HostPort("192.0.2.200", 2379)),),
        retry_delay_s=draw.choice((2.0, 10.0)),
        drain_timeout_s=draw.choice((0.0, 0.5, 5.0)),
        max_sessions=draw.choice((0, 0, 3, 12)),
        balance=draw.choice(("round-robin", "least-sessions")),
        on_inactive=draw.choice(("keep", "close")),
        removal_grace_s=draw.choice((0.0, 2.0, 6.0)),
        slow_start_s=draw.choice((0.0, 0.0, 4.0)),
        discovery_refresh=draw.choice(("ttl", "ttl", "fixed")),
        discovery_refresh_s=3.0,
        health_check=draw.choice(("tcp", "tcp", "http", "off")),
        health_interval_s=draw.choice((0.5, 2.0)),
        health_idle_interval_s=draw.choice((0.5, 8.0)),
        health_min_active=draw.choice((0, 50, 100)),
        health_timeout_s=0.5,
        health_rise=draw.choice((1, 1, 2)),
        health_fall=draw.choice((1, 1, 3)),
        dial_timeout_s=1.0,
        worker_timeout_s=draw.choice((1.0, 3.0)),
        worker_max_age_s=draw.choice((0.0, 0.0, 12.0)),
        rebalance_s=draw.choice((0.0, 5.0)),
        close_spread_s=draw.choice((0.0, 1.0)),
    )


def draw_plan(seed: int) -> list[Event]:
    """Disturbances in the order of their instants; some runs are calm, some are not."""
    draw = random.Random(f"plan {seed}")
    kinds = draw.sample(list(Kind), draw.randint(3, len(Kind)))
    count = draw.choice((5, 15, 40, 100))
    instants = sorted(BEGIN_S + draw.random() * SPAN_S for _ in range(count))
    return [Event(at, draw.choice(kinds), draw.randrange(64), draw.random()) for at in instants]


@dataclass(frozen=True, slots=True)
class Case:
    """A run that broke the promise ``found``, with a mistake planted or with a bug of that day.

    The seed gives the setup and the draws.
    """

    seed: int
    plan: list[Event]
    found: str
    planted: str


def write_case(path: Path, seed: int, plan: list[Event], *, found: str, planted: str) -> None:
    """Keep a run that broke a promise."""
    document = {
        "seed": seed,
        "found": found,
        "planted": planted,
        "plan": [asdict(event) for event in plan],
    }
    path.write_text(json.dumps(document, indent=1) + "\n")


def read_case(path: Path) -> Case:
    document = json.loads(path.read_text())
    plan = [
        Event(each["at"], Kind(each["kind"]), each["which"], each["much"])
        for each in document["plan"]
    ]
    return Case(document["seed"], plan, document["found"], document["planted"])
