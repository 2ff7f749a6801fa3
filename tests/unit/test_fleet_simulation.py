"""What a thousand hosts do together, as the simulator of tests/fleet finds it."""

from __future__ import annotations

import pytest

from tests.fleet import scenes
from tests.fleet.figure import PANELS, draw_figure


def test_first_sessions_are_even() -> None:
    """1,000 hosts with one session each: the fullest of five members is near the mean."""
    outcome = scenes.first_sessions(1_000)
    assert outcome.figures["sessions of the fullest member / mean"] <= 1.15


@pytest.mark.parametrize("scene", [scenes.idle, scenes.busy])
def test_probes_of_hosts_that_started_together_are_spread(scene: object) -> None:
    """Hosts of one moment do not probe in step, whether the cluster is used or not."""
    assert callable(scene)
    figures = scene(1_000).figures
    assert figures["probes of all members: peak / mean"] <= 1.3
    assert figures["probes of a member per second"] <= 1_000 / 55


def test_the_sessions_of_a_dead_member_go_to_all_others() -> None:
    """No other member gets much more than its part of them."""
    figures = scenes.restart(500).figures
    assert figures["most dials of another member in a second"] <= 50


def test_sessions_come_home() -> None:
    """With a highest age of sessions the fleet is even again within that age."""
    aged = scenes.coming_home(200, flags=scenes.AGED).figures
    assert aged["seconds until even again"] <= 700


def test_the_figure_has_every_curve() -> None:
    """Each panel draws two curves."""
    curves: dict[str, dict[str, list[float]]] = {}
    for _, scene, curve in PANELS:
        for name in (scene, scene.partition(", --")[0]):
            curves.setdefault(name, {})[curve] = [0.0, 1.0, 2.0]
    drawn = draw_figure({when: {"curves": curves} for when in ("before", "now")})
    assert drawn.count("<polyline") == 2 * len(PANELS)
