"""What of the handover state the next master is to know, by how this one ends.

An upgrade (USR2) hands over everything. A crash and a restart under a service manager hand over
what the record says.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping

from supervisor.core.admin.totals import Totals
from supervisor.core.admin.views import DiscoveryView, ReloadView
from supervisor.core.config import Config
from supervisor.core.discovery.targets import describe_targets, describe_tls_check
from supervisor.core.handover_state import HandoverState
from supervisor.core.health.health_view import without_counts
from supervisor.core.roster_member import Removed
from supervisor.core.workers.descriptor_names import BORN_WITH, read_name
from supervisor.core.workers.worker_id import WorkerId


def after_crash(state: HandoverState) -> HandoverState:
    """Another process counts anew, and the service manager has the descriptors.

    The record is older than the crash, and a counter that goes on from a little less than it was
    looks like one that counted all of it again.
    """
    return dataclasses.replace(
        state,
        descriptors={},
        totals=Totals(),
        health={name: without_counts(view) for name, view in state.health.items()},
        discovery=None if state.discovery is None else _without_counts(state.discovery),
        events=(),
        restarts={},
        started_at=None,
        started_boot_s=None,
    )


def _without_counts(view: DiscoveryView) -> DiscoveryView:
    synced = view.member_sync
    if synced is not None:
        synced = dataclasses.replace(synced, results={})
    return dataclasses.replace(view, results={}, by_source={}, member_sync=synced)


def after_restart(state: HandoverState) -> HandoverState:
    """Another program may start, with another configuration: it decides of its workers itself."""
    return dataclasses.replace(after_crash(state), image=None, workers=0, reload=ReloadView())


def going_back(
    now: HandoverState,
    before: HandoverState,
    reason: str,
    *,
    files: Mapping[str, tuple[int, int]],
    files_before: Mapping[str, tuple[int, int]],
) -> HandoverState:
    """What the image that handed ``before`` over is told when this one gives up.

    Its workers go on there for good, unless one of their sockets was made anew here. ``files``:
    device and inode of each descriptor, by name; ``files_before``: as they were handed over.
    """
    sockets = {
        name: file
        for name, file in files_before.items()
        if (known := read_name(name)) is not None and known[0] in BORN_WITH
    }
    same = now.listen == before.listen and sockets.items() <= files.items()
    return dataclasses.replace(
        now,
        image=None,
        failure=reason,
        forked_with=before.forked_with,
        own_gens=before.own_gens if same else {},
        replacing=before.replacing,
    )


def find_own(
    state: HandoverState, serving: Collection[WorkerId], config: Config
) -> frozenset[WorkerId]:
    """Which of the workers that serve are as good as new ones, where the image is gone back to."""
    if not state.failure or state.forked_with != describe_fork(config):
        return frozenset()
    return frozenset(
        who
        for who in serving
        if who.gen <= state.own_gens.get(who.slot, 0) and who not in state.replacing
    )


def count_workers(state: HandoverState, configured: int, *, restarted: bool) -> int:
    """How many workers there are to be.

    TTIN and TTOU count until the configuration names another number, or somebody restarts the
    gateway.
    """
    if restarted or state.workers_given not in (0, configured):
        return configured
    return state.workers or configured


def describe_fork(config: Config) -> str:
    """The flags that workers are forked with, and no snapshot changes; equal ones, equal text."""
    return f"--log-format={config.log_format} --pin-workers={config.pin_workers}"


def fit(state: HandoverState, config: Config, now: float) -> HandoverState:
    """What of a state holds for the configuration of a master that is another process.

    Endpoints belong to the targets that led to them and to the TLS check that they have passed, and
    have been compared with the gateway's own addresses. Those of another configuration get no new
    session. They are in their grace from now on, because workers of before have sessions of them.
    Workers that were forked with other flags are replaced, also after a crash.
    """
    if state.forked_with not in ("", describe_fork(config)):
        state = dataclasses.replace(state, image=None)
    check = describe_tls_check(config)
    given = tuple(map(str, config.listen_addr))
    if state.listen_given != given and set(state.listen_given) == set(given):
        # In another order: workers, which number their listeners, are replaced, and that is all.
        state = dataclasses.replace(state, image=None, listen_given=given, listen=())
    same_listen = state.listen_given == given
    same_targets = state.member_list_of == describe_targets(config)
    if same_listen and same_targets and (not check or state.tls_check == check):
        return state
    left = tuple(
        Removed(found=each, at=now, grace_s=config.removal_grace_s) for each in state.found
    )
    fitting = state
    if not same_listen:  # also workers that a crash left cannot be kept
        fitting = HandoverState(gens=state.gens, snapshot_version=state.snapshot_version)
    return dataclasses.replace(
        fitting,
        found=(),
        removed=(*state.removed, *left),
        health=state.health,
        discovery=None,
        member_list=None,
    )
