"""Virtual time for the simulator: events in a heap, and counts per second."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable


class Clock:
    """Calls what is due, in order; time passes only from one event to the next."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._serial = 0

    def at(self, when: float, act: Callable[[], None]) -> None:
        self._serial += 1
        heapq.heappush(self._events, (when, self._serial, act))

    def run_until(self, end: float) -> None:
        events = self._events
        while events and events[0][0] < end:
            self.now, _, act = heapq.heappop(events)
            act()
        self.now = end


class PerSecond:
    """How often something happened in each second of virtual time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._counts: Counter[int] = Counter()

    def note(self) -> None:
        self._counts[int(self._clock.now)] += 1

    def curve(self, begin: int, end: int) -> list[int]:
        """The counts of the seconds from ``begin`` up to ``end``."""
        return [self._counts[second] for second in range(begin, end)]

    def total(self, begin: int, end: int) -> int:
        return sum(self.curve(begin, end))

    def most(self, begin: int, end: int) -> int:
        return max(self.curve(begin, end))

    def peak(self, begin: int, end: int) -> float:
        """The busiest five seconds over the mean of all."""
        buckets = [self.total(at, at + 5) for at in range(begin, end, 5)]
        mean = sum(buckets) / len(buckets)
        return max(buckets) / mean if mean else 0.0
