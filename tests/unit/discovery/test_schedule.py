"""When the next resolution is due."""

from __future__ import annotations

import math

from supervisor.core.discovery.schedule import URGENT_S, Due, next_due


def test_with_an_active_endpoint_the_plan_holds() -> None:
    """Questions are asked when they are due."""
    assert next_due(300, asked_all_at=0, urgent=False) == Due(300, everything=False)
    assert next_due(math.inf, asked_all_at=0, urgent=False) == Due(math.inf, everything=False)


def test_without_one_everything_is_asked_again_and_again() -> None:
    """Five seconds after the last time, whatever the plan says; at once if never."""
    assert next_due(300, asked_all_at=100, urgent=True) == Due(100 + URGENT_S, everything=True)
    assert next_due(math.inf, asked_all_at=-math.inf, urgent=True).at == -math.inf
    assert next_due(101, asked_all_at=100, urgent=True) == Due(101, everything=False)
