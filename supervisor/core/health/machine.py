"""One endpoint's health: evidence in, state and the time of the next probe out.

Active endpoints are probed every interval. An inactive one is probed with backoff, which doubles
from 100 ms, so the wait for the next probe is about as long as the endpoint was already down.
A state that is half confirmed (``fall`` or ``rise`` above 1) is settled with quick probes.
A worker's failed dial is a failure like any other, and asks for a probe at once, so a bad dial is
confirmed or refuted in milliseconds.

An endpoint that keeps going up and down is *held* inactive for longer and longer, though its probes
succeed: each change costs its clients a reconnection. A hold cannot hurt availability, because
workers fail open.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from gateway.core.endpoint import EndpointState
from supervisor.core.backoff import Draw, around_s, delay_s

PROBE_GAP_S = 0.1
"""First wait of the backoff, and the least time between two probes of one endpoint."""

SETTLE_S = 1.0
"""Between the probes that settle a half confirmed state; the interval, if that is shorter."""

STABLE_S = 30.0
"""An endpoint that was active for this long before it failed did not flap."""

FREE_FLAPS = 3
"""So many flaps in a row are not damped: a rolling restart is none of our business."""

HOLD_FIRST_S = 1.0
"""The first hold; it doubles with each flap more, up to the retry delay."""


class HealthChange(enum.Enum):
    """What a piece of evidence did to the state."""

    ACTIVATED = "activated"
    DEACTIVATED = "deactivated"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the configuration says about health; durations in seconds.

    ``probe_active``: False with ``--health-check=off``: active endpoints are judged by dials only.
    ``dials_prove``: a dial that connected proves as much as a probe would (TCP probes); else it
    only makes the next probe come at once.
    """

    interval_s: float = 5.0
    retry_delay_s: float = 60.0
    rise: int = 1
    fall: int = 1
    probe_active: bool = True
    dials_prove: bool = True


class Health:
    """The machine of one endpoint; born active, and probed at once if probes are on.

    Every method that takes evidence returns what it changed, or None, and sets ``next_probe_at``:
    the instant at which the shell starts a probe, infinite while one runs or none is due.
    """

    __slots__ = (
        "_passed_at",
        "_probed_at",
        "active",
        "bad",
        "failures",
        "flaps",
        "good",
        "hold_until",
        "last_change_at",
        "last_error",
        "last_error_at",
        "next_probe_at",
        "probing",
        "rules",
    )  # fmt: skip

    def __init__(self, rules: Rules, now: float) -> None:
        self.rules = rules
        self.active = True
        self.good = 0
        """Good evidence in a row."""
        self.bad = 0
        """Bad evidence in a row."""
        self.failures = 0
        """Failed probes since it turned inactive: where the backoff is."""
        self.flaps = 0
        self.hold_until = -math.inf
        self.last_error: str | None = None
        """Why it failed last; kept when it is active again, None if it never failed."""
        self.last_error_at = -math.inf
        self.last_change_at = -math.inf
        self.probing = False
        self.next_probe_at = now if rules.probe_active else math.inf
        self._probed_at = -math.inf
        self._passed_at = -math.inf

    def hold_s(self, now: float) -> float:
        """How long it will be kept inactive though probes may succeed; 0 if it is not held."""
        return 0.0 if self.active else max(0.0, self.hold_until - now)

    def probe_started(self) -> None:
        """A probe runs; exactly one of the probe's three outcomes must follow."""
        self.probing = True
        self.next_probe_at = math.inf

    def probe_passed(self, now: float, draw: Draw) -> HealthChange | None:
        self._probe_ended(now)
        change = self._take_good(now)
        self._schedule(now, draw)
        return change

    def probe_failed(self, error: str, now: float, draw: Draw) -> HealthChange | None:
        self._probe_ended(now)
        change = self._take_bad(error, now)
        self.failures += 1
        self._schedule(now, draw)
        return change

    def probe_undecided(self, now: float, draw: Draw) -> None:
        """The probe failed for a reason of our own host's: no evidence, try again."""
        self._probe_ended(now)
        self.failures += 1
        self._schedule(now, draw)

    def dial_failed(self, error: str, now: float, *, began_at: float) -> HealthChange | None:
        """A worker's dial, begun at ``began_at``, failed.

        Of an inactive endpoint that is no news: eight workers that fail open must not bring forward
        the probes of what is down. A dial that began before the last good evidence proves nothing
        either: after a black hole, timeouts trickle in when the endpoint is long back.
        """
        if not self.active:
            return None
        change = self._take_bad(error, now) if began_at >= self._passed_at else None
        self._hurry(now)
        return change

    def dial_succeeded(self, now: float, draw: Draw) -> HealthChange | None:
        """A worker reached it although it was inactive, or suspect there.

        Evidence as good as a TCP probe's; whether it also *serves*, only a probe can tell.
        """
        if not self.rules.dials_prove:
            if not self.active:
                self.hint(now)
            return None
        change = self._take_good(now)
        if change is not None and not self.probing:
            self._schedule(now, draw)
        return change

    def hint(self, now: float, *, gap_s: float = SETTLE_S) -> None:
        """Something that proves nothing, but is worth a look: probe soon, ``gap_s`` after the last.

        The gap is longer than after evidence: hints may come from every worker all the time.
        """
        self._hurry(now, gap_s)

    def follow(self, rules: Rules, now: float) -> None:
        """New rules, or a changed endpoint: probe at once what is probed at all."""
        self.rules = rules
        if rules.probe_active or not self.active:
            self._hurry(now)
        else:
            self.next_probe_at = math.inf

    def _take_good(self, now: float) -> HealthChange | None:
        self.bad = 0
        self.good += 1
        self._passed_at = now
        if self.active or self.good < self.rules.rise or now < self.hold_until:
            return None
        self.active = True
        self.failures = 0
        self.last_change_at = now
        return HealthChange.ACTIVATED

    def _take_bad(self, error: str, now: float) -> HealthChange | None:
        self.good = 0
        self.bad += 1
        self.last_error, self.last_error_at = error, now
        if not self.active or self.bad < self.rules.fall:
            return None
        self.active = False
        self.failures = 0
        self.flaps = self.flaps + 1 if now - self.last_change_at < STABLE_S else 0
        if self.flaps > FREE_FLAPS:
            doublings = min(self.flaps - FREE_FLAPS - 1, 64)
            self.hold_until = now + min(HOLD_FIRST_S * 2.0**doublings, self.rules.retry_delay_s)
        self.last_change_at = now
        return HealthChange.DEACTIVATED

    def _probe_ended(self, now: float) -> None:
        self.probing = False
        self._probed_at = now

    def _hurry(self, now: float, gap_s: float = PROBE_GAP_S) -> None:
        """Probe at once, but neither beside a running probe nor within the gap after the last."""
        if not self.probing:
            soon = max(now, self._probed_at + gap_s)
            self.next_probe_at = min(self.next_probe_at, soon)

    def _schedule(self, now: float, draw: Draw) -> None:
        """When to probe next, after a probe ended."""
        rules = self.rules
        settle_s = min(SETTLE_S, rules.interval_s, rules.retry_delay_s)
        if self.active and self.bad == 0:
            wait_s = around_s(rules.interval_s, draw) if rules.probe_active else math.inf
        elif self.active:
            wait_s = settle_s
        elif self.good:  # not yet often enough, or held
            wait_s = max(self.hold_s(now), settle_s)
        else:
            wait_s = delay_s(
                max(1, self.failures), first_s=PROBE_GAP_S, most_s=rules.retry_delay_s, draw=draw
            )
        self.next_probe_at = now + wait_s


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthView:
    """What the status document and the metrics say of one endpoint's health.

    Instants are seconds since the epoch: ``since``, when it came into this state, and
    ``last_error_at``, None if the time is not known any more. ``probes`` counts by result,
    ``transitions`` by the state changed to. ``hold_s``: how long damping still keeps it inactive.
    """

    active: bool
    since: float
    last_error: str | None = None
    last_error_at: float | None = None
    dial_failures: int = 0
    probe_failures: int = 0
    probes: Mapping[str, int] = field(default_factory=dict)
    transitions: Mapping[str, int] = field(default_factory=dict)
    hold_s: float = 0.0
    flaps: int = 0

    @property
    def state(self) -> EndpointState:
        return EndpointState.ACTIVE if self.active else EndpointState.INACTIVE
