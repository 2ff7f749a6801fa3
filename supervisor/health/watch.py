"""What the prober holds of one name: how it is probed, its health, and what was counted of it."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from dataclasses import field

from gateway.core.counters import DIAL_BOUNDS_S, Histogram
from gateway.core.records import dataclass
from supervisor.core.discovery.endpoints import Discovered
from supervisor.core.health.addresses import is_place
from supervisor.core.health.etcd import Known
from supervisor.core.health.health_view import HealthView
from supervisor.core.health.machine import Health
from supervisor.core.health.probing import Plan, Verdict
from supervisor.health.etcd_inquiry import EtcdMemory


@dataclass(slots=True, eq=False)
class Watch:
    """One endpoint with a single address under observation, or one address, and its timer.

    ``since``: when it came into its state, in seconds since the epoch. ``dials`` and ``bytes_out``:
    what workers had counted when they last reported. ``degraded``: what is wrong with it though it
    is healthy. ``undecided``: the last probe was, and that was logged.
    """

    found: Discovered
    plan: Plan
    health: Health
    since: float
    probes: Counter[str] = field(default_factory=Counter)
    durations: Histogram = field(default_factory=lambda: Histogram(DIAL_BOUNDS_S))
    transitions: Counter[str] = field(default_factory=Counter)
    timer: asyncio.TimerHandle | None = None
    dials: int = 0
    bytes_out: int = 0
    memory: EtcdMemory = field(default_factory=EtcdMemory)
    degraded: str = ""
    undecided: bool = False
    has_passed: bool = False
    """A probe passed in an earlier process."""
    unreached: bool = False
    """One of several addresses that this host cannot dial at all, and never could."""

    @property
    def counts_as_active(self) -> bool:
        return self.health.active and not self.unreached

    def note_reach(self, *, cut_off: bool) -> bool:
        """A probe told whether this host can dial the address at all; whether that is news."""
        before = self.unreached
        never = not self.has_passed and not self.probes[Verdict.PASSED]
        self.unreached = cut_off and never and is_place(self.found.name)
        return self.unreached != before

    def remember(self, view: HealthView, *, now: float, wall: float) -> None:
        """Go on counting from what an earlier master held; its state is not taken over here.

        ``now`` of the monotonic clock is ``wall`` of the other one.
        """
        self.probes = Counter(view.probes)
        if len(view.probe_buckets) == len(self.durations.counts):
            self.durations.counts = list(view.probe_buckets)
            self.durations.total = view.probe_seconds
        self.transitions = Counter(view.transitions)
        if view.since is not None:
            self.since = view.since
            if view.transitions:
                unchanged_s = max(0.0, wall - view.since)
                self.health.resume_damping(view.flaps, view.hold_s, unchanged_s, now)
        self.health.last_error = view.last_error
        if view.last_error_at is not None:
            self.health.last_error_at = now - max(0.0, wall - view.last_error_at)
        self.has_passed = view.has_passed
        self.unreached = view.unreached
        self.degraded = view.degraded or ""
        self.memory.known = Known(version=view.etcd_version)

    def view(self, *, now: float, wall: float, cut_off: str | None) -> HealthView:
        """What others see; ``now`` of the monotonic clock is ``wall`` of the other one.

        ``cut_off``: why this host cannot dial it at all.
        """
        health = self.health
        never = health.last_error_at == -math.inf
        last_error_at = None if never else wall - (now - health.last_error_at)
        return HealthView(
            active=health.active,
            since=self.since,
            cut_off=cut_off,
            last_error=cut_off or health.last_error,
            last_error_at=wall if cut_off else last_error_at,
            probe_failures=self.probes[Verdict.FAILED],
            probes=dict(self.probes),
            probe_buckets=tuple(self.durations.counts),
            probe_seconds=self.durations.total,
            transitions=dict(self.transitions),
            hold_s=health.hold_s(now),
            flaps=health.damping.flaps,
            kept=health.kept,
            unreached=self.unreached,
            degraded=(self.degraded or None) if health.active else None,
            etcd_version=self.memory.known.version,
            has_passed=self.has_passed or bool(self.probes[Verdict.PASSED]),
        )
