"""How long to wait before the next attempt: doubled after each failure, up to a cap.

The master takes its waits from here: those before probes, DNS questions, TLS checks, forks and
one-shot steps of a start, and the holds of damping. ``launch`` has a formula of its own, because it
runs where nothing of ours can be imported.
"""

from __future__ import annotations

from collections.abc import Callable

Draw = Callable[[int], int]
"""``draw(n)`` returns an integer from 0 to n-1, as ``random.randrange`` does."""

STEPS = 1024
"""How many different values a jitter can have."""

MAX_DOUBLINGS = 64
"""Keeps the power finite; every cap is reached long before."""


def doubled_s(failures: int, *, first_s: float, most_s: float) -> float:
    """Seconds to wait after ``failures`` (1 or more) failures in a row, without jitter.

    ``first_s`` after the first failure, twice as long after each further one, at most ``most_s``.
    """
    return min(first_s * 2.0 ** min(failures - 1, MAX_DOUBLINGS), most_s)


def delay_s(failures: int, *, first_s: float, most_s: float, draw: Draw) -> float:
    """The same with jitter: up to a quarter is taken off, nothing is added above ``most_s``."""
    return doubled_s(failures, first_s=first_s, most_s=most_s) * (1 - 0.25 * draw(STEPS) / STEPS)


def around_s(interval_s: float, draw: Draw) -> float:
    """``interval_s`` plus or minus a tenth, so that many timers do not run at the same moments."""
    return interval_s * (0.9 + 0.2 * draw(STEPS) / STEPS)
