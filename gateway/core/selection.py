"""Which endpoint of one priority class is next: exact shares, or fewest sessions.

Both balancers serve the endpoints that are *enabled*, never the others, and agree on what an SRV
weight means (:func:`shares`). A pick costs O(log n) and does not remember sessions.

:class:`Rotation` is earliest deadline first in a virtual time that runs once round per cycle: an
endpoint of share w is due at ``(k + phase) / w`` for k = 0..w-1, so each cycle serves it exactly w
times, evenly apart. Smooth weighted round-robin (nginx) gives the same shares but looks at every
endpoint for every pick, which 3,000 endpoints make expensive.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Collection, Mapping
from typing import Protocol

ZERO_WEIGHT_DIVISOR = 100
"""All endpoints of weight 0 together get one session in this many, beside positive weights.

RFC 2782 asks for "a very small chance"; etcd gateway gives each 1 %.
"""


class Balancer(Protocol):
    """Picks among the enabled endpoints of one priority class."""

    def pick(self, tried: Collection[str]) -> str | None:
        """The next enabled endpoint that is not in ``tried``; None if there is none."""
        ...

    def enable(self, name: str) -> None: ...
    def disable(self, name: str) -> None: ...

    def set_load(self, name: str, sessions: int) -> None:
        """``sessions`` is the estimate over all workers, 0 or more."""
        ...


def shares(weights: Mapping[str, int], ramps: Mapping[str, int] | None = None) -> dict[str, int]:
    """Weights of RFC 2782 as the smallest positive integers with the proportions we serve.

    All zero is all equal; zero beside positive is together 1 in ZERO_WEIGHT_DIVISOR. ``ramps``: the
    percentage, 1 or more, that some get for now of what they would get.
    """
    if ramps:
        whole = shares(weights)
        ramped = {name: share * ramps.get(name, 100) for name, share in whole.items()}
        divisor = math.gcd(*ramped.values())
        return {name: share // divisor for name, share in ramped.items()}
    positive = sum(weights.values())
    zeros = sum(1 for weight in weights.values() if weight == 0)
    if positive == 0:
        return dict.fromkeys(weights, 1)
    scaled = dict(weights)
    if zeros:
        factor = (ZERO_WEIGHT_DIVISOR - 1) * zeros
        scaled = {name: weight * factor or positive for name, weight in weights.items()}
    divisor = math.gcd(*scaled.values())
    return {name: weight // divisor for name, weight in scaled.items()}


class Rotation:
    """Weighted rotation; every enabled endpoint gets its exact share of every full cycle.

    ``slot`` of ``slots`` says where this worker starts: the starts of all workers cut the line of
    all weights into equal strips, so the first sessions of all together are spread like one's.
    ``start`` (0 to 1) is where on that line the host begins, so that a fleet is spread as well.
    An endpoint that is enabled again gets no arrears, and ``at`` continues a replaced rotation.
    """

    __slots__ = (
        "_absent", "_at", "_cycle", "_enabled", "_heap", "_names", "_phase", "_rank", "_share",
    )  # fmt: skip

    def __init__(
        self,
        weights: Mapping[str, int],
        *,
        ramps: Mapping[str, int] | None = None,
        slot: int = 0,
        slots: int = 1,
        start: float = 0.0,
        at: float | None = None,
    ) -> None:
        parts = shares(weights, ramps)
        self._names = list(parts)
        self._rank = {name: i for i, name in enumerate(self._names)}
        self._share = list(parts.values())
        self._phase = _phases(self._share)
        self._enabled = [True] * len(self._names)
        self._absent: set[int] = set()  # disabled ones that have left the heap
        self._cycle = 0
        if at is None:
            total = sum(self._share)
            self._at, first = self._find_start(total * (slot + start * slots) / slots)
        else:
            self._at, first = at, len(self._names)
        self._heap = [self._first_turn(i, first) for i in range(len(self._names))]
        heapq.heapify(self._heap)

    @property
    def at(self) -> float:
        """Where in its cycle the rotation is, 0 to 1."""
        return self._at

    def pick(self, tried: Collection[str]) -> str | None:
        """O(log n), and as much again for each tried endpoint that is due before the picked one."""
        heap = self._heap
        waiting: list[tuple[int, float, int, int]] = []
        picked = None
        while heap:
            cycle, due, i, k = heap[0]
            if not self._enabled[i]:
                heapq.heappop(heap)
                self._absent.add(i)
            elif tried and self._names[i] in tried:
                waiting.append(heapq.heappop(heap))
            else:
                picked = self._names[i]
                heapq.heapreplace(heap, self._turn(i, cycle, k + 1))
                if cycle > self._cycle or (due > self._at and cycle == self._cycle):
                    self._cycle, self._at = cycle, due
                break
        if waiting:
            for entry in waiting:
                heapq.heappush(heap, entry)
        return picked

    def enable(self, name: str) -> None:
        i = self._rank[name]
        self._enabled[i] = True
        if i in self._absent:
            self._absent.discard(i)
            heapq.heappush(self._heap, self._first_turn(i, len(self._names)))

    def disable(self, name: str) -> None:
        """Takes effect at the next pick; its entry leaves the heap when it comes up."""
        self._enabled[self._rank[name]] = False

    def set_load(self, name: str, sessions: int) -> None:
        """Shares do not depend on it."""

    def _find_start(self, mark: float) -> tuple[float, int]:
        """The turn, when and whose, at ``mark`` on the line of all weights; beyond it goes round.

        A slot beyond ``slots`` is one worker more that nobody was told of yet.
        """
        mark = mark % sum(self._share) if self._share else 0.0
        for i, share in enumerate(self._share):
            if mark < share:
                return (int(mark) + self._phase[i]) / share, i
            mark -= share
        return 0.0, 0  # no endpoints

    def _first_turn(self, i: int, first: int) -> tuple[int, float, int, int]:
        """Endpoint ``i``'s first turn from where we are; of those due right now, from ``first`` on.

        The same order, and the same floats, as the heap's: otherwise two endpoints that are due
        almost together would be one turn off for ever.
        """
        share, phase = self._share[i], self._phase[i]
        k = max(0, int(self._at * share - phase) - 1)
        while ((k + phase) / share, i) < (self._at, first):
            k += 1
        return self._turn(i, self._cycle, k)

    def _turn(self, i: int, cycle: int, k: int) -> tuple[int, float, int, int]:
        """Turn ``k`` of ``cycle``; computed from integers every time, so nothing ever drifts."""
        if k >= self._share[i]:
            cycle, k = cycle + 1, 0
        return cycle, (k + self._phase[i]) / self._share[i], i, k


def _phases(share: list[int]) -> list[float]:
    """Where inside its own interval each endpoint is served, spread evenly among its like.

    Like are those whose shares have the same number of bits: a hundred small ones would otherwise
    all be due at the same instant and come in one burst between the turns of a big one.
    """
    like: dict[int, list[int]] = {}
    for i, each in enumerate(share):
        like.setdefault(each.bit_length(), []).append(i)
    phase = [0.5] * len(share)
    for group in like.values():
        for j, i in enumerate(group):
            phase[i] = (j + 0.5) / len(group)
    return phase


class LeastSessions:
    """The enabled endpoint with the fewest sessions for its share; ties go to the longest unused.

    The order in which ties start is the rotation's, so that neither the workers nor the hosts of a
    fleet, which know nothing yet, all choose the same. Loads are told by :meth:`set_load`; a stale
    heap entry is recognized by its load and dropped when it comes up.
    """

    __slots__ = ("_absent", "_enabled", "_heap", "_load", "_share", "_turn", "_used")

    def __init__(
        self,
        weights: Mapping[str, int],
        *,
        ramps: Mapping[str, int] | None = None,
        slot: int = 0,
        slots: int = 1,
        start: float = 0.0,
    ) -> None:
        self._share = shares(weights, ramps)
        self._enabled = dict.fromkeys(self._share, True)
        self._load = dict.fromkeys(self._share, 0)
        order = Rotation(dict.fromkeys(weights, 1), slot=slot, slots=slots, start=start)
        self._turn = 0
        self._used: dict[str, int] = {}
        for _ in self._share:
            self._next_turn(order.pick(()) or "")
        self._absent: set[str] = set()  # disabled ones that have left the heap
        self._heap: list[tuple[float, int, str]] = []
        self._rebuild()

    def pick(self, tried: Collection[str]) -> str | None:
        waiting: list[tuple[float, int, str]] = []
        picked = None
        while self._heap:
            entry = heapq.heappop(self._heap)
            name = entry[2]
            if entry != self._entry(name):
                continue
            if not self._enabled[name]:
                self._absent.add(name)
                continue
            if name in tried:
                waiting.append(entry)
                continue
            self._next_turn(name)
            waiting.append(self._entry(name))
            picked = name
            break
        for entry in waiting:
            heapq.heappush(self._heap, entry)
        return picked

    def set_load(self, name: str, sessions: int) -> None:
        if self._load[name] == sessions:
            return
        self._load[name] = sessions
        if name not in self._absent:
            heapq.heappush(self._heap, self._entry(name))
            if len(self._heap) > 2 * len(self._share) + 64:
                self._rebuild()

    def enable(self, name: str) -> None:
        self._enabled[name] = True
        if name in self._absent:
            self._absent.discard(name)
            heapq.heappush(self._heap, self._entry(name))

    def disable(self, name: str) -> None:
        self._enabled[name] = False

    def _next_turn(self, name: str) -> None:
        self._turn += 1
        self._used[name] = self._turn

    def _entry(self, name: str) -> tuple[float, int, str]:
        return (self._load[name] + 1) / self._share[name], self._used[name], name

    def _rebuild(self) -> None:
        self._heap = [self._entry(name) for name in self._share if name not in self._absent]
        heapq.heapify(self._heap)
