"""Rebalancing: sessions return to an endpoint that has recovered, few at a time.

An endpoint that holds more than its share by a margin gives sessions up until it is even: the
oldest idle ones, which are closed, and whose clients connect again and are sent where sessions are
missing. The workers choose the sessions; the master decides how many, because it alone knows all.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from gateway.core.endpoint import Endpoint, EndpointState
from gateway.core.messages import GiveUp
from gateway.core.records import dataclass
from gateway.core.selection import shares
from supervisor.core.backoff import STEPS, Draw
from supervisor.core.workers.worker_id import WorkerId

MARGIN = 0.1
"""An endpoint that has no more than this above its share is even enough."""

SETTLING_S = 3.0
"""An order is counted as if its sessions were closed, until the reports must have shown it."""


@dataclass(frozen=True, slots=True)
class Order:
    """``worker`` is to close one session of ``endpoint`` that is ``older_than_s``."""

    worker: WorkerId
    endpoint: str
    older_than_s: float


@dataclass(frozen=True, slots=True)
class Direction:
    """The next client of ``worker`` goes to ``endpoint``, which has less than its share."""

    worker: WorkerId
    endpoint: str


@dataclass(slots=True)
class _Excess:
    """An endpoint that is over-full: since when, and the part of a session that is due."""

    since: float
    credit: float


class Rebalancer:
    """Time and chance are arguments; ``now`` is monotonic."""

    def __init__(self) -> None:
        self._excess: dict[str, _Excess] = {}
        self._ordered: list[tuple[float, str]] = []
        self._directed: list[tuple[float, str]] = []
        self._turn = 0
        self._at = 0.0

    def step(
        self,
        endpoints: Sequence[Endpoint],
        workers: Mapping[WorkerId, Mapping[str, int]],
        *,
        over_s: float,
        now: float,
        draw: Draw,
    ) -> tuple[list[Order], list[Direction]]:
        """What to do now. ``workers``: sessions by endpoint of each; ``over_s``: --rebalance.

        An endpoint's whole excess is given up over ``over_s``, beginning at a time that is drawn:
        hosts that saw the same endpoint return do not close their first session together. A
        session that began since the endpoint is over-full is spared: its client has just been
        closed, perhaps.
        """
        elapsed_s, self._at = min(now - self._at, SETTLING_S), now
        if not over_s:
            self._excess.clear()
            return [], []
        self._ordered = [each for each in self._ordered if now - each[0] < SETTLING_S]
        self._directed = [each for each in self._directed if now - each[0] < SETTLING_S]
        held = _add_up(workers)
        fair = find_fair(endpoints, held)
        due = find_excess(fair, held)
        self._excess = {
            name: self._excess.get(name) or _Excess(now, draw(STEPS) / STEPS) for name in due
        }
        commands: list[Order] = []
        for name, count in self._count_orders(due, elapsed_s, over_s).items():
            having = sorted(who for who, sessions in workers.items() if sessions.get(name))
            older_than_s = now - self._excess[name].since
            for _ in range(count):  # each worker in turn
                self._turn += 1
                worker = having[self._turn % len(having)]
                commands.append(Order(worker, name, older_than_s))
                self._ordered.append((now, name))
        return commands, list(self._direct(commands, sorted(workers), fair, held))

    def _count_orders(
        self, due: Mapping[str, int], elapsed_s: float, over_s: float
    ) -> dict[str, int]:
        """How many sessions each endpoint gives up now, of those that it has too many."""
        pending = Counter(name for _, name in self._ordered)
        counts = {}
        for name, excess in due.items():
            state = self._excess[name]
            if state.since < self._at:
                state.credit = min(state.credit + excess * elapsed_s / over_s, float(excess))
            if (count := min(int(state.credit), excess - pending[name])) > 0:
                state.credit -= count
                counts[name] = count
        return counts

    def _direct(
        self,
        commands: Iterable[Order],
        workers: Sequence[WorkerId],
        fair: Mapping[str, float],
        held: Mapping[str, int],
    ) -> Iterator[Direction]:
        """Where the clients of closed sessions are to go; a rotation would rarely send them there.

        Each goes to the endpoint that lacks most by then. It may connect again at any worker, so
        several are told: as many as the endpoint can take without getting over-full itself.
        """
        coming = Counter(name for _, name in self._directed)
        lacks = [
            (coming[name] + held.get(name, 0) - part, turn, name)
            for turn, (name, part) in enumerate(fair.items())
        ]
        heapq.heapify(lacks)  # negative numbers: the smallest lacks most
        for order in commands:
            missing, turn, name = lacks[0]
            if missing >= 0:
                return
            heapq.heapreplace(lacks, (missing + 1, turn, name))
            self._directed.append((self._at, name))
            count = int(max(1.0, MARGIN * fair[name]) - missing)
            told = [order.worker, *(who for who in workers if who != order.worker)]
            for worker in told[:count]:
                yield Direction(worker, name)


def compose_orders(
    commands: Iterable[Order], directions: Iterable[Direction]
) -> list[tuple[WorkerId, GiveUp]]:
    """One message to each worker that has something to do."""
    closing, towards = defaultdict(list), defaultdict(list)
    for order in commands:
        closing[order.worker].append(order)
    for direction in directions:
        towards[direction.worker].append(direction.endpoint)
    return [
        (
            worker,
            GiveUp(
                tuple(each.endpoint for each in closing[worker]),
                tuple(each.older_than_s for each in closing[worker]),
                tuple(towards[worker]),
            ),
        )
        for worker in closing.keys() | towards.keys()
    ]


def _add_up(workers: Mapping[WorkerId, Mapping[str, int]]) -> Counter[str]:
    """Sessions by endpoint over all workers."""
    held = Counter[str]()
    for sessions in workers.values():
        held.update(sessions)
    return held


def find_fair(endpoints: Iterable[Endpoint], held: Mapping[str, int]) -> dict[str, float]:
    """How many of the sessions of the active endpoints each of them should have.

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
    return {each.name: whole * parts.get(each.name, 0) / sum(parts.values()) for each in active}


def find_excess(fair: Mapping[str, float], held: Mapping[str, int]) -> dict[str, int]:
    """How many sessions which endpoint has above its share, where that is above the margin."""
    excess = {}
    for name, part in fair.items():
        above = held.get(name, 0) - part
        if above >= 1 and above > MARGIN * part:
            excess[name] = int(above)
    return excess
