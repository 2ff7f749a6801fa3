"""Balancing over several workers, simulated; and the figures of docs/tuning.md."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.balance import LEAST_SESSIONS, ROUND_ROBIN, TABLES, Scene, Simulation

pytestmark = pytest.mark.slow(seconds=4)

TUNING = Path(__file__).parents[3] / "docs" / "tuning.md"


def test_least_sessions_evens_out_what_round_robin_cannot() -> None:
    """One endpoint's sessions last ten times longer: it fills up, or it gets fewer new ones."""
    ratios = {}
    for balance in (ROUND_ROBIN, LEAST_SESSIONS):
        scene = Scene(
            balance=balance, lasting_s={"a": 2.0, "b": 2.0, "c": 20.0}, rate=60.0, until_s=120.0
        )
        ratios[balance] = Simulation(scene).run().fullest(60.0)
    assert ratios[ROUND_ROBIN] > 2
    assert ratios[LEAST_SESSIONS] < 1.15


@pytest.mark.parametrize("table", TABLES)
def test_the_published_figures_are_the_simulations(table: Callable[[], Iterator[str]]) -> None:
    """docs/tuning.md has these tables to the letter."""
    assert "\n".join(table()) in TUNING.read_text()
