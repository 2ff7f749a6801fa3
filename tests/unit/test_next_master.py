"""What of the handover state the next master is to know."""

from __future__ import annotations

import dataclasses
from dataclasses import replace

import pytest

from gateway.core.address import HostPort
from supervisor.core.admin.totals import Totals
from supervisor.core.admin.views import DiscoveryView, MemberSyncView
from supervisor.core.config import Config, StaticTarget
from supervisor.core.discovery.endpoints import Discovered
from supervisor.core.discovery.targets import describe_targets, describe_tls_check
from supervisor.core.handover_state import HandoverState, Image
from supervisor.core.health.health_view import HealthView
from supervisor.core.next_master import (
    after_crash,
    after_restart,
    count_workers,
    describe_fork,
    find_own,
    fit,
    going_back,
)
from supervisor.core.roster_member import Removed
from supervisor.core.workers.worker_id import WorkerId

NOW = 100.0
CONFIG = Config(endpoints=(StaticTarget(HostPort("a", 1)),))
FOUND = (Discovered("a:1", "a", 1, ("127.0.0.1",)),)
STATE = HandoverState(
    descriptors={"listener.0.0": 7},
    workers=3,
    gens={0: 4},
    snapshot_version=9,
    found=FOUND,
    listen_given=tuple(map(str, CONFIG.listen_addr)),
    listen=("127.0.0.1:23790",),
    member_list_of=describe_targets(CONFIG),
    image=Image(argv=("etcd-gateway",)),
)


def test_after_a_crash_the_program_and_its_workers_go_on() -> None:
    left = after_crash(STATE)
    assert (left.descriptors, left.workers, left.image) == ({}, 3, STATE.image)
    assert left.totals.sums() == Totals().sums(), "workers may end unseen"
    assert (left.found, left.listen) == (FOUND, STATE.listen)


def test_after_a_crash_probes_and_questions_are_counted_anew() -> None:
    """The record is older than the crash: a counter must begin at zero, or be exact."""
    view = HealthView(
        active=True,
        since=5.0,
        last_error="refused",
        probe_failures=2,
        probes={"passed": 7, "failed": 2},
        probe_seconds=0.5,
        transitions={"active": 1},
        has_passed=True,
    )
    asked = DiscoveryView(srv="a", results={"success": 3}, by_source={"srv": {"success": 3}})
    both = dataclasses.replace(
        asked, member_sync=MemberSyncView(cluster_id="1", results={"success": 2})
    )
    for discovery in (asked, both):
        left = after_crash(dataclasses.replace(STATE, health={"a:1": view}, discovery=discovery))
        kept = left.health["a:1"]
        assert (kept.probe_failures, kept.probes, kept.probe_seconds) == (0, {}, 0.0)
        assert (kept.since, kept.last_error, kept.transitions) == (5.0, "refused", {"active": 1})
        assert kept.has_passed
        assert left.discovery is not None
        assert (left.discovery.srv, left.discovery.results, left.discovery.by_source) == (
            "a",
            {},
            {},
        )
        synced = left.discovery.member_sync
        assert synced is None or (synced.cluster_id, synced.results) == ("1", {})


def test_after_a_restart_the_configuration_decides_of_the_workers() -> None:
    left = after_restart(STATE)
    assert (left.workers, left.image) == (0, None)
    assert (left.found, left.gens, left.snapshot_version) == (FOUND, {0: 4}, 9)


def test_the_same_configuration_keeps_everything() -> None:
    assert fit(STATE, CONFIG, NOW) is STATE


def without_endpoints(left: HandoverState) -> bool:
    """Whether a master with this state waits for DNS, and knows of sessions and workers."""
    knows_nothing = (left.found, left.discovery, left.member_list) == ((), None, None)
    return knows_nothing and (left.gens, left.snapshot_version) == ({0: 4}, 9)


def test_other_targets_forget_the_endpoints() -> None:
    other = dataclasses.replace(CONFIG, endpoints=(StaticTarget(HostPort("b", 1)),))
    left = fit(STATE, other, NOW)
    assert without_endpoints(left)
    assert left.listen == STATE.listen


def test_other_listen_addresses_forget_the_endpoints() -> None:
    """They may be one of the new addresses. Workers of before do not listen there."""
    other = dataclasses.replace(CONFIG, listen_addr=(HostPort("127.0.0.1", 1),))
    left = fit(STATE, other, NOW)
    assert without_endpoints(left)
    assert (left.listen, left.image, left.workers) == ((), None, 0)
    assert left.removed == (Removed(found=FOUND[0], at=NOW, grace_s=CONFIG.removal_grace_s),)


def test_listen_addresses_in_another_order_keep_the_endpoints() -> None:
    """None can be one of the addresses. Workers number their listeners, and are replaced."""
    one, other = HostPort("127.0.0.1", 1), HostPort("127.0.0.1", 2)
    before = dataclasses.replace(STATE, listen_given=(str(one), str(other)))
    left = fit(before, dataclasses.replace(CONFIG, listen_addr=(other, one)), NOW)
    assert (left.found, left.discovery) == (STATE.found, STATE.discovery)
    assert (left.image, left.listen) == (None, ())


def test_another_tls_check_forgets_the_endpoints() -> None:
    """Nobody is used that has not passed it; what needs no check needs none that passed."""
    insecure = Config(discovery_srv="test", insecure_discovery=True)
    secure = dataclasses.replace(insecure, insecure_discovery=False)
    of = describe_targets(insecure)
    unchecked = dataclasses.replace(STATE, member_list_of=of, tls_check="")
    assert without_endpoints(fit(unchecked, secure, NOW))
    assert without_endpoints(fit(dataclasses.replace(unchecked, tls_check=None), secure, NOW))
    checked = dataclasses.replace(unchecked, tls_check=describe_tls_check(secure))
    assert fit(checked, secure, NOW) is checked
    assert fit(checked, insecure, NOW) is checked


def test_sessions_of_endpoints_of_another_configuration_have_the_grace() -> None:
    """Workers of before have them, and would end them at once if nobody knew the endpoints."""
    gone = Removed(found=dataclasses.replace(FOUND[0], name="c:1"), at=3.0, grace_s=5.0)
    state = dataclasses.replace(STATE, removed=(gone,))
    other = dataclasses.replace(
        CONFIG, endpoints=(StaticTarget(HostPort("b", 1)),), removal_grace_s=7.0
    )
    left = fit(state, other, NOW)
    assert left.removed == (gone, Removed(found=FOUND[0], at=NOW, grace_s=7.0))


def test_workers_that_were_forked_with_other_flags_are_replaced_after_a_crash() -> None:
    """The program that would have kept them is not named; the endpoints stay."""
    state = dataclasses.replace(STATE, forked_with=describe_fork(CONFIG))
    assert fit(state, CONFIG, NOW) is state
    for change in ({"log_format": "text"}, {"pin_workers": True}):
        left = fit(state, dataclasses.replace(CONFIG, **change), NOW)
        assert (left.image, left.found) == (None, FOUND)


def test_signals_count_until_the_configuration_names_another_number() -> None:
    """A state of which nobody says what was configured is believed."""
    state = dataclasses.replace(STATE, workers_given=2)
    assert count_workers(state, 2, restarted=False) == 3
    assert count_workers(state, 4, restarted=False) == 4
    assert count_workers(STATE, 4, restarted=False) == 3
    assert count_workers(HandoverState(), 4, restarted=False) == 4


def test_a_restart_begins_with_what_is_configured() -> None:
    assert count_workers(dataclasses.replace(STATE, workers_given=2), 2, restarted=True) == 2


GIVEN = replace(
    STATE,
    forked_with=describe_fork(CONFIG),
    own_gens={0: 4, 1: 4},
    replacing=(WorkerId(1, 3),),
)
"""What the image before handed over: slot 1 has a worker of an image before that one."""

FILES = {"scoreboard": (1, 5), "listener.0.0": (2, 7), "admin.0": (2, 8)}
"""Device and inode of what it handed over."""

SERVING = {WorkerId(0, 4), WorkerId(1, 3), WorkerId(2, 1)}


def test_an_image_that_is_gone_back_to_keeps_its_own_workers() -> None:
    """Not those that it was about to replace, and not those of the image that gave up."""
    now = replace(GIVEN, gens={0: 5}, own_gens={})
    files = FILES | {"admin.0": (2, 9), "listener.1.0": (2, 10)}
    back = going_back(now, GIVEN, "told so", files=files, files_before=FILES)
    assert (back.image, back.failure, back.gens) == (None, "told so", {0: 5})
    assert find_own(back, SERVING, CONFIG) == {WorkerId(0, 4)}
    assert find_own(replace(back, failure=""), SERVING, CONFIG) == frozenset()
    assert find_own(back, SERVING, replace(CONFIG, pin_workers=True)) == frozenset()


@pytest.mark.parametrize(
    ("files", "listen"),
    [
        (FILES | {"scoreboard": (1, 6)}, STATE.listen),
        ({"scoreboard": (1, 5)}, STATE.listen),
        (FILES, ("127.0.0.1:2",)),
    ],
)
def test_workers_that_lack_a_socket_of_the_new_image_are_replaced(
    files: dict[str, tuple[int, int]], listen: tuple[str, ...]
) -> None:
    """Nobody would accept from it, or hear them."""
    now = replace(GIVEN, listen=listen)
    back = going_back(now, GIVEN, "told so", files=files, files_before=FILES)
    assert find_own(back, SERVING, CONFIG) == frozenset()
