"""What many hosts do together, as the simulator of tests/fleet finds it.

`make fleet` runs the same scenes for 1,000 and 10,000 hosts. Here are as few as still tell a fleet
from hosts that act together: that is a difference of many times, not of some percent.
"""

from __future__ import annotations

from functools import cache

import pytest

from tests.fleet import failures, quiet, returns
from tests.fleet.figure import PANELS, draw_figure
from tests.fleet.fleet import Outcome

pytestmark = pytest.mark.slow(seconds=2)

HOSTS = 300
FEW = 30
"""Of scenes whose hosts have many sessions each."""


def test_first_sessions_are_even() -> None:
    """1,000 hosts with one session each: the fullest of five members is near the mean."""
    outcome = quiet.first_sessions(1_000)
    assert outcome.figures["sessions of the fullest member / mean"] <= 1.15


@cache
def idle() -> Outcome:
    return quiet.idle(HOSTS)


@pytest.mark.parametrize("used", [False, True])
def test_probes_of_hosts_that_started_together_are_spread(used: bool) -> None:
    """Hosts of one moment do not probe in step, whether the cluster is used or not."""
    figures = (quiet.busy(HOSTS) if used else idle()).figures
    assert figures["probes of all members: peak / mean"] <= 1.3
    assert figures["probes of a member per second"] <= HOSTS / 55


def test_questions_follow_the_caches_ttl_and_no_more() -> None:
    """Behind a cache all hosts need the new answer within a tenth of its TTL; it asks once."""
    figures = idle().figures
    assert figures["DNS queries: peak / mean"] <= 12
    assert figures["DNS queries per second"] <= 1.05 * HOSTS * 6 / 60
    caches = HOSTS / 50
    assert figures["DNS queries of the caches to the zone per second"] <= 1.05 * caches * 6 / 60


def test_questions_at_an_interval_of_ours_are_spread() -> None:
    """With --discovery-refresh=1m hosts of one moment do not ask in step."""
    figures = quiet.idle(HOSTS, config=quiet.EVERY_MINUTE).figures
    assert figures["DNS queries: peak / mean"] <= 1.4


def test_the_sessions_of_a_dead_member_go_to_all_others() -> None:
    """No other member gets much more than its part of them, and none is probed by all at once."""
    figures = failures.restart(HOSTS).figures
    assert figures["most dials of another member in a second"] <= HOSTS / 10
    assert figures["most probes of the returned member in a second"] <= HOSTS / 5


def test_a_member_that_vanishes_is_left_by_and_by() -> None:
    """Hosts notice at times of their own."""
    figures = failures.blackout(HOSTS).figures
    assert figures["most dials in a second"] <= HOSTS / 30


def test_a_flapping_member_costs_less_and_less() -> None:
    """Damping keeps it out for longer each time, and it is used again when it has healed."""
    figures = failures.flapping(FEW).figures
    assert figures["sessions lost in the fifth minute"] <= (
        0.8 * figures["sessions lost in the first minute"]
    )
    assert figures["hosts that do not use it 70 s after the last time"] == 0


def test_a_slow_member_is_not_run_over() -> None:
    """It stays active, one client in four waits for a second dial, and probes stay few."""
    figures = failures.slow(FEW).figures
    assert figures["hosts that held it for inactive"] == 0
    assert figures["clients that waited for a second dial, percent"] <= 26
    assert figures["probes of it per second"] <= FEW / 5


def test_a_member_that_leaves_dns_is_left_within_ttl_and_grace() -> None:
    """66 s of TTL and jitter, 30 s of grace; its sessions do not all move at once."""
    figures = failures.removed(HOSTS).figures
    assert figures["seconds until it has no session"] <= 100
    assert figures["most dials in a second"] <= HOSTS / 15
    assert figures["probes of it after two minutes"] == 0
    assert figures["sessions of the fullest member that is left / mean"] <= 1.25


def test_sessions_come_home_with_their_age() -> None:
    """With a highest age of sessions the fleet is even again within that age."""
    aged = returns.coming_home(200, config=returns.AGED).figures
    assert aged["seconds until even again"] <= 700


def test_rebalancing_closes_hardly_more_than_has_to_move() -> None:
    """Within its time, and not all at once, though all hosts saw the member return."""
    figures = returns.coming_home(
        FEW, each=returns.SESSIONS_OF_A_HOST, config=returns.REBALANCED, watch_s=400
    ).figures
    assert figures["seconds until even again"] <= 330
    assert figures["sessions closed / sessions that had fled"] <= 1.1
    assert figures["most dials in a second"] <= FEW / 5


def test_a_member_is_warmed_up() -> None:
    """A member without sessions gets those of all hosts at once, unless --slow-start is set."""
    key = "its part of the new sessions, most in any 5 s / fair"
    assert returns.warming_up(FEW).figures[key] >= 2
    slowly = returns.warming_up(FEW, config=returns.SLOWLY).figures
    assert slowly[key] <= 1.7
    assert slowly["its part of the new sessions after a minute / fair"] >= 0.9


def test_sessions_stay_in_their_zone_while_it_has_a_member() -> None:
    """With --prefer; without their zone clients are served by the other, and come back."""
    figures = returns.zones(HOSTS // 2).figures
    assert figures["sessions within their zone"] == 1
    assert figures["clients that nobody served"] == 0
    assert figures["sessions within their zone, twelve minutes after its return"] >= 0.99
    assert figures["sessions of the fullest member of the zone that is left / mean"] <= 1.25


def test_the_figure_has_every_curve() -> None:
    """Each panel draws two curves."""
    curves: dict[str, dict[str, list[float]]] = {}
    for _, scene, curve in PANELS:
        for name in (scene, scene.partition(", --")[0]):
            curves.setdefault(name, {})[curve] = [0.0, 1.0, 2.0]
    drawn = draw_figure({when: {"curves": curves} for when in ("before", "now")})
    assert drawn.count("<polyline") == 2 * len(PANELS)
