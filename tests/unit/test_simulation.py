"""The simulation of the whole control plane: some runs of it, and what it has found before."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.simulation.mistakes import MISTAKES, planted
from tests.simulation.plan import draw_plan, read_case
from tests.simulation.simulation import try_seed

pytestmark = pytest.mark.slow
"""Other tests cover every branch; counting lines makes these take three times as long."""

SEEDS = range(5000, 5012)
"""About four seconds; ``make simulate`` draws others for ten minutes."""

CASES = sorted((Path(__file__).parents[1] / "simulation" / "cases").glob("*.json"))


@pytest.mark.slow
def test_no_promise_is_broken() -> None:
    """Whatever is killed, starved, denied, reloaded and upgraded: see ``docs/promises.md``."""
    broken = {seed: try_seed(seed, draw_plan(seed)).violation for seed in SEEDS}
    assert {seed: str(each) for seed, each in broken.items() if each is not None} == {}


@pytest.mark.slow
@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_what_was_found_stays_mended(path: Path) -> None:
    """A run that broke a promise once breaks none now."""
    case = read_case(path)
    assert try_seed(case.seed, case.plan).violation is None


@pytest.mark.slow
@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_the_simulation_can_fail(path: Path) -> None:
    """With its bug in the product again, the same run breaks the same promise."""
    case = read_case(path)
    if not case.planted:
        pytest.skip("found in the product, and mended there")
    with planted(case.planted):
        violation = try_seed(case.seed, case.plan).violation
    assert violation is not None
    assert violation.promise == case.found


def test_every_mistake_has_a_case() -> None:
    """No planted mistake goes unnoticed."""
    assert {read_case(path).planted for path in CASES} >= MISTAKES.keys()


@pytest.mark.slow
def test_a_run_is_repeatable() -> None:
    """The same seed makes the same steps."""
    first, second = (try_seed(7, draw_plan(7)) for _ in range(2))
    assert (first.steps, first.happened) == (second.steps, second.happened)
