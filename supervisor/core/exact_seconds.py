"""Seconds that add up to the same sum in any order, so that no sum of counters goes back.

What a worker counted moves from the living to the dead, and what an address counted to the past of
its endpoint. Floating-point numbers added in another order give a sum that may be smaller by its
last bit, and Prometheus takes any decrease for a counter that began again at 0.
"""

from __future__ import annotations

import math

FINE = 2**20
"""Steps in a second, of about a microsecond. Their multiples add up exactly to 2**33 s, 270 years:
for dials, probes and CPU."""

COARSE = 2**10
"""Steps of about a millisecond add up exactly to 2**43 s: for sessions, of which ten thousand have
270 years in ten days."""


def exact(seconds: float, steps_per_s: int = FINE) -> float:
    """The nearest multiple of a step that is no less: nothing goes back where it was not one."""
    return math.ceil(seconds * steps_per_s) / steps_per_s
