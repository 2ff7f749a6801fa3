"""The round-trip time to an endpoint: a mean of samples in which the recent ones weigh most."""

from __future__ import annotations

from gateway.core.records import dataclass

KEPT_PER_REPORT = 0.9
"""What a sample still weighs at the next report; after seven seconds it is half."""

LEAST = 0.01
"""Samples do not weigh less than this together, so an endpoint whose sessions are quiet keeps its
figure, and the first new sample outweighs it."""


@dataclass(slots=True)
class RoundTrips:
    """``weighted_s / weight`` is the mean; no sample was ever taken where ``weight`` is 0."""

    weight: float = 0.0
    weighted_s: float = 0.0

    @property
    def fades(self) -> bool:
        """Whether :meth:`fade` still changes anything."""
        return self.weight > LEAST

    def add(self, rtt_s: float) -> None:
        self.weight += 1.0
        self.weighted_s += rtt_s

    def fade(self) -> None:
        """A report was made: what was sampled until now counts for less."""
        kept = max(KEPT_PER_REPORT, LEAST / self.weight) if self.weight else 0.0
        self.weight *= kept
        self.weighted_s *= kept
