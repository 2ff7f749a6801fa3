"""One endpoint's health: evidence in, state and the time of the next probe out.

An active endpoint is probed every interval. A thousand hosts in front of one member are a thousand
times as many probes, so what is known without a probe is not asked again: an endpoint that answers
its sessions needs few probes, and one that nobody uses is probed seldom.

An inactive endpoint is probed with backoff, which doubles from 100 ms, so the wait for the next
probe is about as long as the endpoint was already down. The whole wait is drawn by chance (full
jitter): hosts that saw an endpoint fail at the same moment do not ask for it at the same moment.

A state that is half confirmed (``fall`` or ``rise`` above 1) is decided by quick probes. A worker's
failed dial is a failure like any other, and asks for a probe at once, so a bad dial is confirmed or
refuted in milliseconds.

One that keeps going up and down is held inactive although its probes succeed, see ``damping``.
"""

from __future__ import annotations

import enum
import math

from gateway.core.records import dataclass
from supervisor.core.backoff import STEPS, Draw, around_s, delay_s, doubled_s
from supervisor.core.health.damping import Damping

PROBE_GAP_S = 0.1
"""First wait of the backoff, and the least time between two probes of one endpoint."""

SETTLE_S = 1.0
"""Between the probes that decide a half confirmed state; the interval, if that is shorter."""

REPORT_S = 2.0
"""What workers saw is known this much later at most: they report once a second."""


class HealthChange(enum.Enum):
    """What a piece of evidence did to the state."""

    ACTIVATED = "activated"
    DEACTIVATED = "deactivated"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the configuration says about health; durations in seconds.

    ``idle_interval_s``: between two probes of an active endpoint that has neither sessions nor
    dials, or whose traffic proves as much as a probe would; never less than ``interval_s``.
    ``probe_active``: False with ``--health-check=off``: active endpoints are judged by dials only.
    ``dials_prove``: a dial that connected proves as much as a probe would (TCP probes); else it
    only makes the next probe come at once.
    ``bytes_prove``: so do bytes that the endpoint sent to its clients (TCP and TLS probes).
    """

    interval_s: float = 5.0
    idle_interval_s: float = 60.0
    retry_delay_s: float = 60.0
    rise: int = 1
    fall: int = 1
    probe_active: bool = True
    dials_prove: bool = True
    bytes_prove: bool = True

    @property
    def longest_s(self) -> float:
        """The longest time between two probes of an active endpoint."""
        return max(self.interval_s, self.idle_interval_s)


class Health:
    """The machine of one endpoint; born active, and probed at once if probes are on.

    Every method that takes evidence returns what it changed, or None, and sets ``next_probe_at``:
    the instant at which the shell asks :meth:`is_due` and starts a probe if it is; infinite while
    one runs or none is wanted.
    """

    __slots__ = (
        "_passed_at", "_phased", "_probed_at", "_proved_at", "_put_off_until", "_urgent",
        "_used_at", "active", "bad", "damping", "failures", "good", "kept", "last_error",
        "last_error_at", "next_probe_at", "probing", "rules", "undecided",
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
        self.damping = Damping()
        self.kept = False
        """Probes say that it should be inactive, but too few others are active."""
        self.undecided = 0
        """Probes in a row that proved nothing."""
        self.last_error: str | None = None
        """Why it failed last; kept when it is active again, None if it never failed."""
        self.last_error_at = -math.inf
        self.probing = False
        self.next_probe_at = now if rules.probe_active else math.inf
        self._probed_at = -math.inf
        self._passed_at = -math.inf
        self._used_at = -math.inf
        self._proved_at = -math.inf
        self._urgent = True
        """The next probe is not to be put off."""
        self._put_off_until: float | None = None
        """Until when the next probe may be put off; None if it was not put off yet."""
        self._phased = False
        """Whether chance has set our probes apart from those of hosts that started with us."""

    def hold_s(self, now: float) -> float:
        """How long it will be kept inactive though probes may succeed; 0 if it is not held."""
        return 0.0 if self.active else self.damping.left_s(now)

    def is_due(self, now: float, draw: Draw) -> bool:
        """Whether to probe now that ``next_probe_at`` has come; False: it was put off."""
        rules = self.rules
        if self._urgent or not self.active or self.bad:
            return True
        proved = self._proved_at > self._probed_at
        idle = self._is_idle(now)
        if not idle and not proved:
            return True
        if self._put_off_until is None:
            self._put_off_until = self._draw_put_off(now, draw)
        later_at = self._put_off_until
        if not idle:
            later_at = min(later_at, self._proved_at + rules.interval_s)
        if later_at <= now:
            return True
        self.next_probe_at = later_at
        return False

    def _draw_put_off(self, now: float, draw: Draw) -> float:
        """When to probe at the latest; the first time anywhere before the idle interval is over."""
        until = self._probed_at + around_s(self.rules.longest_s, draw)
        if not self._phased:
            self._phased = True
            until = now + (until - now) * draw(STEPS) / STEPS
        return until

    def take_traffic(
        self, now: float, draw: Draw, *, sessions: int, dialed: bool, answered: bool
    ) -> None:
        """What workers reported since the last time, about once a second.

        ``dialed``: a dial connected. ``answered``: the endpoint sent bytes.
        """
        rules = self.rules
        if sessions or dialed:
            if self._is_idle(now) and self.active and not self.probing and rules.probe_active:
                self.next_probe_at = min(self.next_probe_at, now + around_s(rules.interval_s, draw))
            self._used_at = now
        if (dialed and rules.dials_prove) or (answered and rules.bytes_prove):
            self._proved_at = now

    def probe_started(self) -> None:
        """A probe runs; exactly one of the probe's three outcomes must follow."""
        self.probing = True
        self._urgent = False
        self._put_off_until = None
        self.next_probe_at = math.inf

    def probe_passed(self, now: float, draw: Draw) -> HealthChange | None:
        first = self._passed_at == -math.inf
        self._probe_ended(now)
        change = self._take_good(now)
        self._schedule(now, draw)
        if first and self.next_probe_at < math.inf and self.active:
            # Hosts that were started together shall not probe together.
            wait_s = max(PROBE_GAP_S, self.rules.interval_s * (1 - draw(STEPS) / STEPS))
            self.next_probe_at = now + wait_s
        return change

    def probe_failed(
        self, error: str, now: float, draw: Draw, *, keep: bool = False
    ) -> HealthChange | None:
        """``keep``: so few endpoints are active that a probe alone takes none away."""
        self._probe_ended(now)
        change = self._take_bad(error, now, keep=keep)
        self.failures += 1
        self._schedule(now, draw)
        return change

    def probe_undecided(self, now: float, draw: Draw) -> None:
        """The probe failed for a reason of our own host's: no evidence, probe again soon."""
        self.probing = False
        self._probed_at = now
        self.undecided += 1
        self._urgent = True
        self.next_probe_at = now + delay_s(
            self.undecided, first_s=PROBE_GAP_S, most_s=self._patience_s(), draw=draw
        )

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

    def start_inactive(self, error: str, now: float) -> None:
        """A former master held it inactive: so it is here, and a probe is due at once."""
        self.active = False
        self.good, self.bad = 0, self.rules.fall
        self.last_error, self.last_error_at = error, now
        self._hurry(now)

    def resume_damping(self, flaps: int, hold_s: float, unchanged_s: float, now: float) -> None:
        """A former master saw it flap: damping goes on from there, see :meth:`Damping.resume`."""
        self.damping.resume(flaps, hold_s, unchanged_s, now, self.rules.retry_delay_s)

    def note(self, error: str, now: float) -> None:
        """Something went wrong that proves nothing, but should be shown."""
        self.last_error, self.last_error_at = error, now

    def hint(self, now: float) -> None:
        """Something that proves nothing, but is worth a look: probe soon.

        The gap is longer than after evidence: hints may come from every worker all the time.
        """
        self._hurry(now, SETTLE_S)

    def follow(self, rules: Rules, now: float) -> None:
        """New rules, or a changed endpoint: probe at once what is probed at all."""
        self.rules = rules
        self.damping.limit(rules.retry_delay_s)
        if rules.probe_active or not self.active:
            self._hurry(now)
        else:  # what probes found does not count any more, and none will follow
            self.next_probe_at = math.inf
            self.kept, self.bad = False, 0

    def _is_idle(self, now: float) -> bool:
        """Whether it had neither sessions nor dials for an interval, as far as reports tell."""
        return now - self._used_at > self.rules.interval_s + REPORT_S

    def _patience_s(self) -> float:
        """The longest wait for a probe that has to be made again."""
        return self.rules.interval_s if self.active else self.rules.retry_delay_s

    def _take_good(self, now: float) -> HealthChange | None:
        self.bad = 0
        self.kept = False
        if self.active:
            self.failures = 0
        self.good += 1
        self._passed_at = now
        if self.active or self.good < self.rules.rise or self.damping.left_s(now):
            return None
        self.active = True
        self.failures = 0
        self.damping.activated(now)
        return HealthChange.ACTIVATED

    def _take_bad(self, error: str, now: float, *, keep: bool = False) -> HealthChange | None:
        self.good = 0
        self.bad += 1
        self.last_error, self.last_error_at = error, now
        if not self.active or self.bad < self.rules.fall:
            return None
        self.kept = keep
        if keep:
            return None
        self.active = False
        self.failures = 0
        self.damping.deactivated(now, self.rules.retry_delay_s)
        return HealthChange.DEACTIVATED

    def _probe_ended(self, now: float) -> None:
        self.probing = False
        self.undecided = 0
        self._probed_at = now

    def _hurry(self, now: float, gap_s: float = PROBE_GAP_S) -> None:
        """Probe at once, but neither beside a running probe nor within the gap after the last."""
        if not self.probing:
            self._urgent = True
            soon = max(now, self._probed_at + gap_s)
            self.next_probe_at = min(self.next_probe_at, soon)

    def _schedule(self, now: float, draw: Draw) -> None:
        """When to probe next, after a probe ended."""
        rules = self.rules
        quick_s = min(SETTLE_S, rules.interval_s, rules.retry_delay_s)
        if self.active and self.bad == 0:
            wait_s = around_s(rules.interval_s, draw) if rules.probe_active else math.inf
        elif self.active and not self.kept:
            wait_s = quick_s
        elif self.good:  # not yet often enough, or held
            wait_s = max(self.hold_s(now), quick_s)
        else:
            most_s = self._patience_s()
            full_s = doubled_s(max(self.failures, 1), first_s=PROBE_GAP_S, most_s=most_s)
            wait_s = max(min(PROBE_GAP_S, most_s), full_s * (1 - draw(STEPS) / STEPS))
        self.next_probe_at = now + wait_s
