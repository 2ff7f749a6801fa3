"""Virtual time: a heap of calls, each at its instant, those of one instant in their order."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

BEGIN_S = 1000.0
"""The monotonic clock of a host that booted a while ago."""


class Violation(AssertionError):  # noqa: N818 - it is a finding, and the word of the page
    """A promise that was broken; ``promise`` is its short name in ``checks``."""

    def __init__(self, promise: str, text: str) -> None:
        super().__init__(f"{promise}: {text}")
        self.promise = promise


class Clock:
    """``now`` never goes back, whatever the wall clock does."""

    __slots__ = ("_calls", "_serial", "now")

    def __init__(self) -> None:
        self.now = BEGIN_S
        self._serial = 0
        self._calls: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []

    def at(self, when: float, call: Callable[..., None], *args: Any) -> None:
        """Have ``call`` called at that instant, or next if it is past."""
        self._serial += 1
        heapq.heappush(self._calls, (max(when, self.now), self._serial, call, args))

    def after(self, wait_s: float, call: Callable[..., None], *args: Any) -> None:
        self.at(self.now + wait_s, call, *args)

    def step(self) -> bool:
        """Make the next call; False if there is none."""
        if not self._calls:
            return False
        self.now, _, call, args = heapq.heappop(self._calls)
        call(*args)
        return True
