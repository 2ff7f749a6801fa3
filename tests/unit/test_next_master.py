"""What of the handover state the next master is to know."""

from __future__ import annotations

import dataclasses

from gateway.core.address import HostPort
from supervisor.core.config import Config, StaticTarget
from supervisor.core.discovery.endpoints import Discovered
from supervisor.core.discovery.targets import describe_targets
from supervisor.core.handover_state import HandoverState, Image
from supervisor.core.next_master import after_crash, after_restart, fit

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
    assert (left.found, left.listen) == (FOUND, STATE.listen)


def test_after_a_restart_the_configuration_decides_of_the_workers() -> None:
    left = after_restart(STATE)
    assert (left.workers, left.image) == (0, None)
    assert (left.found, left.gens, left.snapshot_version) == (FOUND, {0: 4}, 9)


def test_the_same_configuration_keeps_everything() -> None:
    assert fit(STATE, CONFIG) is STATE


def test_other_targets_forget_the_endpoints() -> None:
    other = dataclasses.replace(CONFIG, endpoints=(StaticTarget(HostPort("b", 1)),))
    left = fit(STATE, other)
    assert (left.found, left.gens, left.snapshot_version) == ((), {0: 4}, 9)


def test_other_listen_addresses_forget_the_endpoints() -> None:
    """They may be one of the new addresses."""
    other = dataclasses.replace(CONFIG, listen_addr=(HostPort("127.0.0.1", 1),))
    left = fit(STATE, other)
    assert (left.found, left.gens, left.snapshot_version) == ((), {0: 4}, 9)
