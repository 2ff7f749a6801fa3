"""What a master makes of the names of the descriptors that it inherits."""

from __future__ import annotations

import os
import resource

import pytest

from supervisor.core.workers.worker_id import WorkerId
from supervisor.workers.inherited import InheritedDescriptors


def test_no_generation_is_used_twice() -> None:
    """After a crash the record may be older than the newest worker, or the worker be gone."""
    names = [f"{kind}.0.{gen}" for gen in (3, 5) for kind in ("ctl", "pipe", "pid")]
    inherited = InheritedDescriptors.from_names(((name, 0) for name in names), gens={0: 4, 1: 7})
    assert {index: slot.gen for index, slot in inherited.slots.items()} == {0: 5, 1: 7}
    assert inherited.worker_ids() == {WorkerId(0, 3), WorkerId(0, 5)}
    assert inherited.slots[0].draining == {3}


def test_the_newest_worker_may_be_one_that_drains() -> None:
    """Its successor ended just before the master did, and the next one was not ready."""
    names = [f"{kind}.{slot}.3" for slot in (0, 1) for kind in ("ctl", "pipe", "pid")]
    inherited = InheritedDescriptors.from_names(
        ((name, 0) for name in names), leaving=[WorkerId(0, 2), WorkerId(0, 3)]
    )
    assert [slot.draining for slot in inherited.slots.values()] == [{3}, set()]
    assert not inherited.told_to_drain, "nobody knows whether it heard of it"


def test_of_two_under_one_name_the_newest_is_taken_and_the_other_closed() -> None:
    """A socket that nobody accepts from would take its share of the clients."""
    newest, other = os.pipe()
    try:
        named = [("listener.0.0", newest), ("listener.0.0", other)]
        inherited = InheritedDescriptors.from_names(named)
        assert inherited.slots[0].listeners == {0: newest}
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(other)
    finally:
        os.close(newest)


def test_the_process_of_a_worker_is_found_by_its_pidfd() -> None:
    """Before anything is taken over: without a descriptor it fails, and nothing is lost."""
    pidfd = os.pidfd_open(os.getpid())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        inherited = InheritedDescriptors.from_names([("pid.0.1", pidfd), ("unready.1.1", pidfd)])
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
        try:
            with pytest.raises(OSError, match="Too many open files"):
                inherited.identify()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert inherited.pids == {}
        inherited.identify()
        assert inherited.pids == {pidfd: os.getpid()}
    finally:
        os.close(pidfd)
