"""The record of what the next master is to know: what it says, and until when it is kept."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from supervisor.core.admin.views import ReloadView
from supervisor.core.handover_state import HandoverState, Image
from supervisor.core.workers.worker_id import WorkerId
from supervisor.handover.record import RECORD_NAME, HandoverRecord
from supervisor.handover.state import read_state

STATE = HandoverState(
    image=Image(argv=("etcd-gateway",)),
    snapshot_version=7,
    draining=(WorkerId(0, 1),),
    reload=ReloadView(asked=True),
)


class Store:
    """Keeps a duplicate of each descriptor, as the service manager does."""

    def __init__(self) -> None:
        self.kept: dict[str, int] = {}

    def keep(self, name: str, fd: int) -> None:
        self.kept[name] = os.dup(fd)

    def remove(self, name: str) -> None:
        os.close(self.kept.pop(name))


@pytest.fixture
def store() -> Iterator[Store]:
    made = Store()
    yield made
    for name in list(made.kept):
        made.remove(name)


def said(store: Store) -> HandoverState:
    return read_state(store.kept[RECORD_NAME])


def test_who_leaves_is_no_crash_whatever_is_written_after(store: Store) -> None:
    """Endpoints may change until the master has ended: the next one replaces the workers."""
    record = HandoverRecord(store)
    record.write(STATE, ours=True)
    assert said(store).image == STATE.image
    assert said(store).reload.asked
    record.write(STATE, ours=False)
    assert said(store).image is None
    record.leave(STATE)
    record.write(STATE, ours=True)
    assert (said(store).image, said(store).snapshot_version) == (None, 7)
    assert not said(store).reload.asked, "a restart reads the configuration itself"
    record.close()


def test_a_shorter_record_leaves_nothing_of_the_one_before(store: Store) -> None:
    """What is left over would make it no JSON."""
    record = HandoverRecord(store)
    record.write(STATE, ours=True)
    record.write(HandoverState(snapshot_version=8), ours=True)
    assert said(store).snapshot_version == 8
    record.close()


def test_who_cannot_say_that_it_leaves_leaves_no_record(store: Store) -> None:
    """The one of before would tell the next master of a crash."""
    record = HandoverRecord(store)
    record.write(STATE, ours=True)
    record.close()  # no more can be written
    record.leave(STATE)
    assert RECORD_NAME not in store.kept
