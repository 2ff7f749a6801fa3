"""What was measured: medians, ranges, ratios, and whether the goals are reached. No I/O."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

OURS = "etcd-gateway"
BEFORE = "etcd-gateway before"
"""Another release of ours, no peer: what became better or worse since."""
COMPILED = "etcd-gateway compiled"
"""This release with the compiled relay, no peer either."""
VARIANTS = (OURS, BEFORE, COMPILED)
ETCD = "etcd gateway"
FLOOR = "floor"
"""A relay in C that does nothing else: what can be reached, and no peer."""

Samples: TypeAlias = dict[str, dict[str, dict[str, list[float]]]]
"""Measure, subject, metric: the values of all rounds."""


@dataclass(frozen=True, slots=True)
class Figure:
    """The middle one of several rounds, with the lowest and the highest."""

    median: float
    low: float
    high: float
    rounds: int


@dataclass(slots=True)
class Results:
    """Samples by measure, subject and metric, in the order in which they were taken."""

    machine: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    samples: Samples = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def add(self, measure: str, subject: str, sample: Mapping[str, float]) -> None:
        """Note one round."""
        metrics = self.samples.setdefault(measure, {}).setdefault(subject, {})
        for metric, value in sample.items():
            metrics.setdefault(metric, []).append(value)

    def figure(self, measure: str, subject: str, metric: str) -> Figure | None:
        """The figure of a metric; None if it was not measured."""
        values = self.samples.get(measure, {}).get(subject, {}).get(metric)
        if not values:
            return None
        return Figure(statistics.median(values), min(values), max(values), len(values))

    def subjects(self, measure: str) -> list[str]:
        """Who was measured."""
        return list(self.samples.get(measure, {}))

    def best_peer(
        self, measure: str, metric: str, among: Iterable[str] | None = None
    ) -> tuple[str, float] | None:
        """The peer with the lowest median, and that median."""
        peers = [s for s in self.subjects(measure) if s not in (*VARIANTS, FLOOR)]
        figures = [
            (peer, figure.median)
            for peer in peers
            if (among is None or peer in among)
            and (figure := self.figure(measure, peer, metric)) is not None
        ]
        return min(figures, key=lambda item: item[1], default=None)

    def ratio(self, measure: str, metric: str, peer: str, variant: str = OURS) -> float | None:
        """Ours, or another variant's, divided by a peer's, by medians."""
        ours = self.figure(measure, variant, metric)
        theirs = self.figure(measure, peer, metric)
        if ours is None or theirs is None or not theirs.median:
            return None
        return ours.median / theirs.median

    def to_json(self) -> dict[str, Any]:
        """Everything, to be written; ``from_json`` reads it back."""
        return {
            "machine": self.machine,
            "versions": self.versions,
            "samples": self.samples,
            "failures": self.failures,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Results:
        """What ``to_json`` wrote."""
        return cls(
            machine=dict(value["machine"]),
            versions=dict(value["versions"]),
            samples=dict(value["samples"]),
            failures=list(value["failures"]),
        )


@dataclass(frozen=True, slots=True)
class Goal:
    """``metric`` of ours is to be at most ``limit``.

    ``against`` says of what the limit is a multiple: a subject, ``best`` of all peers, ``c`` for
    the better one of HAProxy and nginx, another metric of our own (``cpu_us_100``), or nothing
    (then it is a value).
    """

    measure: str
    metric: str
    limit: float
    against: str
    text: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """A goal and what was reached, also with the compiled relay; None: not measured."""

    goal: Goal
    reached: float | None
    compiled: float | None = None

    def holds(self, reached: float | None) -> bool:
        """Whether ``reached``, one of the two, is within the limit."""
        return reached is not None and reached <= self.goal.limit


C_PROXIES = ("HAProxy", "nginx stream")
GOALS = (
    Goal("requests-64", "cpu_us", 1.00, "best", "CPU per round trip, 64 sessions"),
    Goal("requests-64", "cpu_us", 1.10, FLOOR, "CPU per round trip, 64 sessions"),
    Goal("requests-64", "p99_us", 1.10, "best", "p99 of a round trip, 64 sessions"),
    Goal("requests-1", "p50_us", 1.00, "best", "p50 of a round trip, one session"),
    Goal("requests-2000", "cpu_us", 1.10, "best", "CPU per round trip, 2,000 busy sessions"),
    Goal("requests-2000", "p99_us", 1.20, "best", "p99 of a round trip, 2,000 busy sessions"),
    Goal("connections", "cpu_us", 1.00, "best", "CPU per connection"),
    Goal("connections", "cpu_us", 1.10, FLOOR, "CPU per connection"),
    Goal("bulk-1", "cpu_s_per_gb", 1.10, FLOOR, "CPU per GB, one stream"),
    Goal("bulk-8", "cpu_s_per_gb", 1.10, FLOOR, "CPU per GB, eight streams"),
    Goal("mixed", "p99_rise_us", 2.0, "best", "rise of p99 beside a bulk stream"),
    Goal("idle-sessions", "bytes_per_session", 1229, "", "memory of an idle session, bytes"),
    Goal("idle-gateway", "pss_mb", 30.0, "", "idle gateway with one worker, MB"),
    Goal("idle-workers", "mb_per_worker", 3.0, "", "each further idle worker, MB"),
    Goal("idle-workers", "mb_64", 220.0, "", "idle gateway with 64 workers, MB"),
    Goal("start", "ms", 120.0, "", "exec to first proxied byte, 1 worker, ms"),
    Goal("start-16", "ms", 500.0, "", "exec to first proxied byte, 16 workers, ms"),
    Goal("many-sessions", "cpu_us_9000", 1.3, "cpu_us_100", "CPU per round trip, 9,000 sessions"),
)


def judge(results: Results, goals: Iterable[Goal] = GOALS) -> list[Outcome]:
    """Each goal with what was reached."""
    return [
        Outcome(goal, _reached(results, goal, OURS), _reached(results, goal, COMPILED))
        for goal in goals
    ]


def _reached(results: Results, goal: Goal, variant: str) -> float | None:
    peer: str | None = goal.against
    if not peer:
        ours = results.figure(goal.measure, variant, goal.metric)
        return ours.median if ours else None
    if peer.startswith("cpu_us_"):
        ours = results.figure(goal.measure, variant, goal.metric)
        other = results.figure(goal.measure, variant, peer)
        return ours.median / other.median if ours and other and other.median else None
    if peer in ("best", "c"):
        best = results.best_peer(goal.measure, goal.metric, C_PROXIES if peer == "c" else None)
        peer = best[0] if best else None
    return results.ratio(goal.measure, goal.metric, peer, variant) if peer else None
