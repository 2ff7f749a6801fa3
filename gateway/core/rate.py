"""How many clients a second the whole gateway takes, as one of its workers sees it."""

from __future__ import annotations

BURST_S = 0.1
"""So much of a second's clients may come at once; one at least."""

EXACT_S = 1e-6
"""A shorter wait is a rounding error."""


class RateLimit:
    """A leaky bucket over what all workers accepted; time is an argument, ``now`` is monotonic.

    ``total`` is how many clients all workers ever accepted. Workers that look at the same moment
    may each take a client too many; the bucket counts them, so the rate holds in the mean.
    """

    __slots__ = ("_at", "_level", "_seen", "burst", "per_s")

    def __init__(self, per_s: int, total: int, now: float) -> None:
        self.per_s = per_s
        self.burst = max(1.0, per_s * BURST_S)
        self._level = 0.0
        self._seen = total
        self._at = now

    def wait_s(self, total: int, now: float) -> float:
        """How long until the next client may be accepted; 0 is now."""
        leaked = max(0.0, self._level - self.per_s * (now - self._at))
        self._level = leaked + max(0, total - self._seen)
        # The total is lower for a moment while the count of a worker that ended is moved.
        self._seen, self._at = max(total, self._seen), now
        wait_s = (self._level + 1 - self.burst) / self.per_s
        return wait_s if wait_s > EXACT_S else 0.0
