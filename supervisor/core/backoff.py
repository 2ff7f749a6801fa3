"""How long to wait before the next attempt: doubling, capped, jittered."""

from __future__ import annotations

from collections.abc import Callable

Draw = Callable[[int], int]
"""``draw(n)`` is an integer from 0 to n-1, as ``random.randrange``."""

STEPS = 1024
"""How finely a jitter is drawn."""


def delay_s(failures: int, *, first_s: float, most_s: float, draw: Draw) -> float:
    """Seconds to wait after ``failures`` (1 or more) failures in a row.

    ``first_s`` doubled for each failure after the first, at most ``most_s``; up to a quarter is
    drawn off, never added, so ``most_s`` is a promise.
    """
    full = min(first_s * 2.0 ** min(failures - 1, 64), most_s)
    return full * (1 - 0.25 * draw(STEPS) / STEPS)


def around_s(interval_s: float, draw: Draw) -> float:
    """``interval_s`` with a tenth more or less, so that many of a kind do not fall into step."""
    return interval_s * (0.9 + 0.2 * draw(STEPS) / STEPS)
