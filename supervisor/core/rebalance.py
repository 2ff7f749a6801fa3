"""Rebalancing: sessions that fled to other endpoints come home, few at a time.

An endpoint that holds more than its share by a margin gives sessions up until it is even: the
oldest idle ones, which are closed, and whose clients connect again. The workers choose them; the
master decides how many, because it alone knows all sessions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from gateway.core.endpoint import Endpoint, EndpointState
from gateway.core.selection import shares

MARGIN = 0.1
"""An endpoint that has no more than this above its share is even enough."""

SETTLING_S = 3.0
"""An order is counted as if its sessions were closed, until the reports must have shown it."""


@dataclass(frozen=True, slots=True)
class Order:
    """``worker`` (slot, gen) is to close one session of ``endpoint`` that is ``older_than_s``."""

    worker: tuple[int, int]
    endpoint: str
    older_than_s: float


@dataclass(slots=True)
class _Excess:
    """An endpoint that is over-full: since when, and the part of a session that is due."""

    since: float
    credit: float = 0.0


class Rebalancer:
    """Time is an argument; ``now`` is monotonic."""

    def __init__(self) -> None:
        self._excess: dict[str, _Excess] = {}
        self._ordered: list[tuple[float, str]] = []
        self._turn = 0
        self._at = 0.0

    def step(
        self,
        endpoints: Iterable[Endpoint],
        workers: Mapping[tuple[int, int], Mapping[str, int]],
        *,
        over_s: float,
        now: float,
    ) -> list[Order]:
        """What to close now. ``workers``: sessions by endpoint of each; ``over_s``: --rebalance.

        An endpoint's whole excess is given up over ``over_s``. A session that began since the
        endpoint is over-full is spared: its client has just been closed, perhaps.
        """
        elapsed_s, self._at = min(now - self._at, SETTLING_S), now
        if not over_s:
            self._excess.clear()
            return []
        self._ordered = [each for each in self._ordered if now - each[0] < SETTLING_S]
        pending = [name for _, name in self._ordered]
        held: dict[str, int] = {}
        for sessions in workers.values():
            for name, count in sessions.items():
                held[name] = held.get(name, 0) + count
        due = find_excess(endpoints, held)
        self._excess = {n: self._excess.get(n) or _Excess(now) for n in due}
        commands: list[Order] = []
        for name, excess in due.items():
            state = self._excess[name]
            if state.since < now:
                state.credit = min(state.credit + excess * elapsed_s / over_s, float(excess))
            count = min(int(state.credit), excess - pending.count(name))
            for _ in range(count):
                state.credit -= 1
                commands.append(Order(self._choose(name, workers), name, now - state.since))
                self._ordered.append((now, name))
        return commands

    def _choose(
        self, name: str, workers: Mapping[tuple[int, int], Mapping[str, int]]
    ) -> tuple[int, int]:
        """A worker that has sessions of the endpoint; each in turn."""
        having = sorted(who for who, sessions in workers.items() if sessions.get(name))
        self._turn += 1
        return having[self._turn % len(having)]


def find_excess(endpoints: Iterable[Endpoint], held: Mapping[str, int]) -> dict[str, int]:
    """How many sessions which endpoint has above its share, where that is above the margin.

    Shares are of the active endpoints of the first rank that has any; those of later ranks have
    none, so what fled to them comes home too.
    """
    active = [each for each in endpoints if each.state is EndpointState.ACTIVE]
    if not active:
        return {}
    first = min(each.rank for each in active)
    used = [each for each in active if each.rank == first]
    ramps = {each.name: each.ramp for each in used if each.ramp != 100}
    parts = shares({each.name: each.weight for each in used}, ramps)
    whole = sum(held.get(each.name, 0) for each in active)
    excess = {}
    for each in active:
        fair = whole * parts.get(each.name, 0) / sum(parts.values())
        above = held.get(each.name, 0) - fair
        if above >= 1 and above > MARGIN * fair:
            excess[each.name] = int(above)
    return excess
