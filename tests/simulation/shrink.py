"""Making a run that broke a promise as short as it gets: delta debugging of its plan."""

from __future__ import annotations

from tests.simulation.plan import Event
from tests.simulation.simulation import try_seed


def shrink(seed: int, plan: list[Event], promise: str) -> list[Event]:
    """The fewest of the events that still break the same promise (Zeller's ddmin, simplified)."""
    size = max(1, len(plan) // 2)
    while True:
        begin, shorter = 0, False
        while begin < len(plan):
            without = plan[:begin] + plan[begin + size :]
            violation = try_seed(seed, without).violation
            if violation is not None and violation.promise == promise:
                plan, shorter = without, True
            else:
                begin += size
        if size == 1 and not shorter:
            return plan
        size = max(1, size // 2)
