"""A simulation of balancing over several workers with the workers' real tables.

``python -m tests.balance`` prints the tables of docs/tuning.md. Time is simulated, chance is
seeded: the same figures every time. Workers report once a second, each at its own moment, and the
master sends the totals of the last reports once a second, as in the real gateway.
"""

from __future__ import annotations

import argparse
import heapq
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from gateway.core.endpoint import Endpoint, EndpointState
from gateway.core.loads import LoadBook
from gateway.core.messages import Loads, Settings, Snapshot
from gateway.core.table import Table

ROUND_ROBIN, LEAST_SESSIONS = "round-robin", "least-sessions"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """``rate`` sessions a second over ``workers``; how long one lasts on each endpoint, in mean.

    ``alike``: a worker takes the others to do between two totals what it does itself.
    From ``returns_at`` on, the last endpoint is active; before, it is not (0: from the start on).
    """

    balance: str
    lasting_s: Mapping[str, float]
    rate: float
    until_s: float
    workers: int = 4
    returns_at: float = 0.0
    alike: bool = True
    seed: int = 1


@dataclass(slots=True)
class Outcome:
    """Sessions by endpoint, sampled ten times a second."""

    samples: list[tuple[float, dict[str, int]]] = field(default_factory=list)

    def mean(self, name: str, since_s: float) -> float:
        values = [sample[name] for at, sample in self.samples if at >= since_s]
        return sum(values) / len(values)

    def fullest(self, since_s: float) -> float:
        """The fullest endpoint's sessions over the mean of all, averaged over time."""
        ratios = [
            max(sample.values()) * len(sample) / max(1, sum(sample.values()))
            for at, sample in self.samples
            if at >= since_s
        ]
        return sum(ratios) / len(ratios)

    def share(self, name: str, at_s: float) -> float:
        """The sessions of ``name`` over the mean of all at that moment."""
        sample = next(sample for at, sample in self.samples if at >= at_s)
        return sample[name] * len(sample) / max(1, sum(sample.values()))

    def most(self, name: str, since_s: float) -> float:
        """The most that ``name`` ever had, over the mean of all at that moment."""
        return max(
            sample[name] * len(sample) / max(1, sum(sample.values()))
            for at, sample in self.samples
            if at >= since_s
        )


class Simulation:
    """Events in a heap: (when, serial number, what to do)."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.now = 0.0
        self.random = random.Random(scene.seed)
        self.tables = [Table(slot, scene.workers) for slot in range(scene.workers)]
        if not scene.alike:
            for each in self.tables:
                each._book = LoadBook(1)
        self.sessions = [Counter[str]() for _ in range(scene.workers)]
        self.reported = [dict[str, int]() for _ in range(scene.workers)]
        self.outcome = Outcome()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._serial = 0

    def run(self) -> Outcome:
        self._publish(1, returned=self.scene.returns_at == 0)
        if self.scene.returns_at:
            self._at(self.scene.returns_at, lambda: self._publish(2, returned=True))
        for slot in range(self.scene.workers):
            self._at(1 + slot / self.scene.workers, lambda slot=slot: self._report(slot))  # type: ignore[misc]
        self._at(1.1, self._tick)
        self._at(0.0, self._arrive)
        self._at(0.1, self._sample)
        while self._events[0][0] < self.scene.until_s:
            self.now, _, act = heapq.heappop(self._events)
            act()
        return self.outcome

    def _at(self, when: float, act: Callable[[], None]) -> None:
        self._serial += 1
        heapq.heappush(self._events, (when, self._serial, act))

    def _publish(self, version: int, *, returned: bool) -> None:
        names = list(self.scene.lasting_s)
        endpoints = tuple(
            Endpoint(
                name,
                ("192.0.2.1",),
                1,
                state=EndpointState.ACTIVE
                if returned or name != names[-1]
                else EndpointState.INACTIVE,
            )
            for name in names
        )
        for table in self.tables:
            table.apply(Snapshot(version, endpoints, Settings(balance=self.scene.balance)))

    def _arrive(self) -> None:
        """The kernel's hash chooses the worker, its table the endpoint."""
        slot = self.random.randrange(self.scene.workers)
        endpoint = self.tables[slot].pick()
        assert endpoint is not None
        name = endpoint.name
        self.tables[slot].session_started(name)
        self.sessions[slot][name] += 1
        lasts_s = self.random.expovariate(1 / self.scene.lasting_s[name])
        self._at(self.now + lasts_s, lambda: self._end(slot, name))
        self._at(self.now + self.random.expovariate(self.scene.rate), self._arrive)

    def _end(self, slot: int, name: str) -> None:
        self.tables[slot].session_ended(name)
        self.sessions[slot][name] -= 1

    def _report(self, slot: int) -> None:
        self.tables[slot].reported()
        self.reported[slot] = dict(self.sessions[slot])
        self._at(self.now + 1, lambda: self._report(slot))

    def _tick(self) -> None:
        totals = Counter[str]()
        for each in self.reported:
            totals.update(each)
        for table in self.tables:
            table.take_loads(Loads(dict(totals)))
        self._at(self.now + 1, self._tick)

    def _sample(self) -> None:
        totals = Counter(dict.fromkeys(self.scene.lasting_s, 0))
        for each in self.sessions:
            totals.update(each)
        self.outcome.samples.append((self.now, dict(totals)))
        self._at(self.now + 0.1, self._sample)


def slow_endpoint() -> Iterator[str]:
    """Sessions on one endpoint of three last ten times longer."""
    lasting_s = {"a": 10.0, "b": 10.0, "c": 100.0}
    yield "| rate | balance | a | b | c (10 times longer) | fullest / mean |"
    yield "|---|---|---|---|---|---|"
    for rate in (1.0, 60.0):
        for balance in (ROUND_ROBIN, LEAST_SESSIONS):
            scene = Scene(balance=balance, lasting_s=lasting_s, rate=rate, until_s=800.0)
            got = Simulation(scene).run()
            means = " | ".join(f"{got.mean(name, 400.0):.0f}" for name in lasting_s)
            yield f"| {rate:g}/s | {balance} | {means} | {got.fullest(400.0):.2f} |"


def returning_endpoint() -> Iterator[str]:
    """One endpoint of three comes back to two that are full."""
    yield "| rate | balance | after 5 s | after 30 s | most, in five minutes |"
    yield "|---|---|---|---|---|"
    for rate in (10.0, 60.0):
        for balance in (ROUND_ROBIN, LEAST_SESSIONS):
            scene = Scene(
                balance=balance,
                lasting_s=dict.fromkeys("abc", 60.0),
                rate=rate,
                until_s=600.0,
                returns_at=300.0,
            )
            got = Simulation(scene).run()
            shares = [got.share("c", 300.0 + after_s) for after_s in (5.0, 30.0)]
            shares.append(got.most("c", 300.0))
            yield f"| {rate:g}/s | {balance} | " + " | ".join(f"{x:.2f}" for x in shares) + " |"


def many_workers() -> Iterator[str]:
    """Short sessions at a high rate: what workers do between two totals of the master."""
    yield "| workers | rate | sessions last | others do alike | others do nothing |"
    yield "|---|---|---|---|---|"
    for workers in (4, 16):
        for rate, lasts_s in ((500.0, 2.0), (30.0, 2.0)):
            ratios = []
            for alike in (True, False):
                scene = Scene(
                    balance=LEAST_SESSIONS,
                    lasting_s=dict.fromkeys("abc", lasts_s),
                    rate=rate,
                    until_s=60.0,
                    workers=workers,
                    alike=alike,
                )
                ratios.append(Simulation(scene).run().fullest(20.0))
            figures = " | ".join(f"{ratio:.2f}" for ratio in ratios)
            yield f"| {workers} | {rate:g}/s | {lasts_s:g} s | {figures} |"


TABLES = (slow_endpoint, returning_endpoint, many_workers)

if __name__ == "__main__":
    argparse.ArgumentParser(prog="python -m tests.balance", description=__doc__).parse_args()
    for table in TABLES:
        print(table.__doc__, *table(), "", sep="\n")
