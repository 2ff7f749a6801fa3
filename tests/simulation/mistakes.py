"""Mistakes to plant, one at a time: bugs that were found, and rules taken away.

Each replaces one function of the product, or of the model where it stands for the product's shell.
A run of the simulation has to notice it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from gateway.core.messages import Report
from gateway.ingress.quota import Quota
from supervisor.core import handover_document, next_master
from supervisor.core.admin.totals import Totals
from supervisor.core.discovery import adoption, joining
from supervisor.core.discovery.answers import Answers
from supervisor.core.discovery.seed_votes import SeedVotes
from supervisor.core.handover_state import HandoverState
from supervisor.core.health.machine import Health
from supervisor.core.roster import Roster
from supervisor.core.workers.fleet import Fleet
from supervisor.core.workers.slot import Slot
from supervisor.core.workers.worker_id import WorkerId
from supervisor.workers.inherited import InheritedDescriptors
from tests.simulation.kernel import UNIX, Listener
from tests.simulation.process import Process


def _nothing(*_: Any, **__: Any) -> None:
    """Does nothing, whatever it is asked for."""


def _failed_once(self: Health, error: str, now: float) -> None:
    self.dial_failed(error, now, began_at=now)


def _start_without_release(original: Callable[..., None]) -> Callable[..., None]:
    def start(self: Fleet, event: Any, now: float) -> None:
        original(self, event, now)
        self._out.clear()

    return start


def _always(_: object) -> bool:
    return True


def _by_any_cluster(original: Callable[..., Any]) -> Callable[..., Any]:
    def weigh(heard: adoption.Heard, adopted: adoption.AdoptedList | None, **_: Any) -> Any:
        return original(heard, adopted, any_cluster=True)

    return weigh


def _by_who_knows_no_leader(original: Callable[..., Any]) -> Callable[..., Any]:
    def weigh(heard: adoption.Heard, adopted: adoption.AdoptedList | None, **how: Any) -> Any:
        return original(dataclasses.replace(heard, leaderless=False), adopted, **how)

    return weigh


def _without_memory(original: Callable[..., None]) -> Callable[..., None]:
    def begin(self: SeedVotes, *seeds: Any, **how: Any) -> None:
        self.forget()
        original(self, *seeds, **how)

    return begin


def _the_first_counts(original: Callable[..., bool]) -> Callable[..., bool]:
    def take(self: adoption.Hearing, heard: adoption.Heard) -> bool:
        original(self, heard)
        return True

    return take


def _without_majority(proposal: adoption.Proposal, _: object) -> adoption.AdoptedList:
    return proposal.adopted


def _all_known(known: Sequence[Any], *_: object) -> tuple[Any, ...]:
    return tuple(known)


def _nothing_of_unix(original: Callable[..., bool]) -> Callable[..., bool]:
    def take(self: InheritedDescriptors, name: str, fd: int) -> bool:
        return name.startswith("unix.") or original(self, name, fd)

    return take


def _from_unix_in_slot_0(original: Callable[..., None]) -> Callable[..., None]:
    def accept_from(self: Process, listener: Listener) -> None:
        if listener.slot != UNIX or self.who.slot == 0:
            original(self, listener)

    return accept_from


def _with_all(state: HandoverState) -> HandoverState:
    return state


def _without_removed(original: Callable[..., Any]) -> Callable[..., Any]:
    def after_restart(state: HandoverState) -> Any:
        return dataclasses.replace(original(state), removed=())

    return after_restart


def _without_its_counts(original: Callable[..., None]) -> Callable[..., None]:
    def gone(self: Totals, who: WorkerId, last: Report | None = None) -> None:
        if last is not None:
            self.report(who, last)
        if (worker := self._living.get(who)) is not None:
            worker.report = dataclasses.replace(worker.report, endpoints={})
        original(self, who)

    return gone


def _whatever_the_targets(state: HandoverState, *_: Any) -> Any:
    return state


Mistake = tuple[object, str, Callable[..., Any]]

MISTAKES: dict[str, Mistake] = {
    "an upgrade forgets what DNS said": (Answers, "remember", _nothing),
    "an upgrade counts one failure for what was inactive": (Health, "start_inactive", _failed_once),
    "an upgrade forgets who is in grace": (Roster, "remember", _nothing),
    "an adoption survives a crash of the master": (
        Fleet, "_start", _start_without_release(Fleet._start),
    ),
    "workers that ended unseen are counted": (next_master, "after_crash", _with_all),
    "a dead worker's counts are lost": (Totals, "gone", _without_its_counts(Totals.gone)),
    "sessions are not limited": (Quota, "_has_place", _always),
    "nobody adopts": (Slot, "may_be_adopted", lambda *_: False),
    "another cluster is adopted by itself": (
        adoption, "weigh", _by_any_cluster(adoption.weigh),
    ),
    "a member that knows no leader is believed": (
        adoption, "weigh", _by_who_knows_no_leader(adoption.weigh),
    ),
    "a member that is not followed hides the others": (
        adoption.Hearing, "take", _the_first_counts(adoption.Hearing.take),
    ),
    "seeds that are silent now have no vote": (
        SeedVotes, "begin", _without_memory(SeedVotes.begin),
    ),
    "a member list is adopted without a majority": (adoption, "judge", _without_majority),
    "seeds that are not on the member list stay": (joining, "choose", _all_known),
    "an upgrade forgets the member list": (handover_document, "_member_list", _nothing),
    "an upgrade forgets the UNIX socket": (
        InheritedDescriptors, "_take", _nothing_of_unix(InheritedDescriptors._take),
    ),
    "a restart forgets who is in grace": (
        next_master, "after_restart", _without_removed(next_master.after_restart),
    ),
    "a restart takes sessions that nobody told of for none": (
        Roster, "assume_sessions", _nothing,
    ),
    "a restart goes on with endpoints of other targets": (
        next_master, "fit", _whatever_the_targets,
    ),
    "one worker alone accepts from the UNIX socket": (
        Process, "_accept_from", _from_unix_in_slot_0(Process._accept_from),
    ),
}  # fmt: skip


@contextmanager
def planted(name: str) -> Iterator[None]:
    """The product with this mistake in it; without any if ``name`` is empty."""
    if not name:
        yield
        return
    where, attribute, wrong = MISTAKES[name]
    right = getattr(where, attribute)
    setattr(where, attribute, wrong)
    try:
        yield
    finally:
        setattr(where, attribute, right)
