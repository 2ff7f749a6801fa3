"""All scenes of the simulator: each makes a fleet, lets time pass, and returns its figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tests.fleet import failures, quiet, returns
from tests.fleet.fleet import Outcome

Scene = Callable[[], Outcome]

LARGEST = 1_000
"""Scenes that run for half an hour, or that say the same of every size, are for fewer hosts."""


def every_scene(hosts: int) -> Iterator[tuple[str, Scene]]:
    """All scenes with this many hosts, by name; what follows ``, --`` is what differs in flags."""
    yield "first session of each host", lambda: quiet.first_sessions(hosts)
    yield "idle", lambda: quiet.idle(hosts)
    yield "a member restarts", lambda: failures.restart(hosts)
    if hosts > LARGEST:
        return
    many = returns.SESSIONS_OF_A_HOST
    yield "idle, caches filled at different times", lambda: quiet.idle(hosts, aged=True)
    yield (
        "idle, --discovery-refresh=1m",
        lambda: quiet.idle(hosts, config=quiet.EVERY_MINUTE),
    )
    yield "busy", lambda: quiet.busy(hosts)
    yield "a member vanishes", lambda: failures.blackout(hosts)
    yield "a member flaps", lambda: failures.flapping(hosts)
    yield "a member is slow", lambda: failures.slow(hosts)
    yield "a member is removed", lambda: failures.removed(hosts)
    yield "a member returns", lambda: returns.coming_home(hosts)
    yield (
        "a member returns, --max-session-age=10m",
        lambda: returns.coming_home(hosts, config=returns.AGED),
    )
    few = hosts // 5
    yield (
        f"a member returns, {many} sessions of each host",
        lambda: returns.coming_home(few, each=many),
    )
    yield (
        f"a member returns, {many} sessions of each host, --rebalance=5m",
        lambda: returns.coming_home(few, each=many, config=returns.REBALANCED),
    )
    yield "a member returns, --balance=least-sessions", lambda: returns.warming_up(few)
    yield (
        "a member returns, --balance=least-sessions --slow-start=30s",
        lambda: returns.warming_up(few, config=returns.SLOWLY),
    )
    yield "a zone is away, --prefer", lambda: returns.zones(hosts)
