"""Rebalancing: sessions that fled to other endpoints come home, few at a time.

An endpoint that holds more than its share by a margin gives sessions up until it is even: the
oldest idle ones, which are closed, and whose clients connect again and are sent where sessions are
missing. The workers choose the sessions; the master decides how many, because it alone knows all.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

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
        pending = [name for _, name in self._ordered]
        self._excess = {
            name: self._excess.get(name) or _Excess(now, draw(STEPS) / STEPS) for name in due
        }
        commands: list[Order] = []
        directions: list[Direction] = []
        for name, excess in due.items():
            state = self._excess[name]
            if state.since < now:
                state.credit = min(state.credit + excess * elapsed_s / over_s, float(excess))
            count = min(int(state.credit), excess - pending.count(name))
            for _ in range(count):
                state.credit -= 1
                worker = self._choose(name, workers)
                commands.append(Order(worker, name, now - state.since))
                self._ordered.append((now, name))
                directions += self._direct(worker, workers, fair, held)
        return commands, directions

    def _choose(self, name: str, workers: Mapping[WorkerId, Mapping[str, int]]) -> WorkerId:
        """A worker that has sessions of the endpoint; each in turn."""
        having = sorted(who for who, sessions in workers.items() if sessions.get(name))
        self._turn += 1
        return having[self._turn % len(having)]

    def _direct(
        self,
        closing: WorkerId,
        workers: Collection[WorkerId],
        fair: Mapping[str, float],
        held: Mapping[str, int],
    ) -> list[Direction]:
        """Where the client of a closed session is to go; a rotation would rarely send it there.

        It may connect again at any worker, so several are told: as many as the endpoint can take
        without getting over-full itself.
        """
        coming = Counter(name for _, name in self._directed)
        lacks = {name: part - held.get(name, 0) - coming[name] for name, part in fair.items()}
        name = max(lacks, key=lacks.__getitem__)
        if lacks[name] <= 0:
            return []
        self._directed.append((self._at, name))
        count = int(lacks[name] + max(1.0, MARGIN * fair[name]))
        told = [closing, *sorted(who for who in workers if who != closing)]
        return [Direction(worker, name) for worker in told[:count]]


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
