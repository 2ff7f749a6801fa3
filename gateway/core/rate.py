"""How many clients a second the whole gateway takes, as one of its workers sees it."""

from __future__ import annotations

from collections.abc import Iterable

BURST_S = 0.1
"""So much of a second's clients may come at once; one at least."""

EXACT_S = 1e-6
"""A shorter wait is a rounding error."""

MOST_PER_S = 1_000_000
"""More than any host accepts. With it, the marks of centuries fit into 64 bits."""

_UNIT = 1000
"""A client in thousandths: what a millisecond leaks is whole then."""


class RateLimit:
    """A leaky bucket over what all workers accepted; time is an argument, ``now`` is monotonic.

    ``total`` is how many clients all workers ever accepted. What is in the bucket is what came
    since it was last empty, less what leaked since. For each worker to see the same, whenever it
    looks, the workers share their marks: a *mark* is the lowest that the total was above what had
    leaked by then, and the lowest of all marks is of when the bucket was last empty. It can be
    empty only before a client comes, and that is when the client's worker looks.

    Workers that look at the same moment may each take a client too many; the bucket counts them,
    so the rate holds in the mean.
    """

    __slots__ = ("_seen", "burst", "mark", "per_s")

    def __init__(self, per_s: int, total: int) -> None:
        self.per_s = min(per_s, MOST_PER_S)
        self.burst = max(1.0, self.per_s * BURST_S)
        self.mark = 0
        """Ours, for the others; 0: none yet."""
        self._seen = total

    def wait_s(self, total: int, now: float, *, own: int = 0, marks: Iterable[int] = ()) -> float:
        """How long until the next client may be accepted; 0 is now.

        ``own``: so many of the clients came here just now. ``marks``: those of the other workers.
        """
        # The total is lower for a moment while the count of a worker that ended is moved.
        self._seen = max(total, self._seen)
        height = self._seen * _UNIT - self.per_s * int(now * _UNIT)
        before = height - own * _UNIT
        self.mark = min(before, self.mark or before)
        lowest = min(filter(None, marks), default=self.mark)
        level = (height - min(lowest, self.mark)) / _UNIT
        wait_s = (level + 1 - self.burst) / self.per_s
        return wait_s if wait_s > EXACT_S else 0.0
