"""What a master makes of the names of the descriptors that it inherits."""

from __future__ import annotations

import os
import resource
import socket

import pytest

from gateway.core.address import HostPort
from gateway.core.unix_address import UnixAddress
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


def test_workers_are_whole_if_nothing_of_theirs_is_missing() -> None:
    """Who drains takes no clients, and of who is not whole the service manager has the rest."""
    serving = [f"{kind}.0.2" for kind in ("ctl", "pipe", "pid")]
    sockets = ["scoreboard", "inbox-r.0", "inbox-w.0", "listener.0.0"]
    others = ["pid.1.1", *(f"{kind}.2.1" for kind in ("ctl", "pipe", "pid"))]
    tcp = (HostPort("127.0.0.1", 1),)

    def is_whole(missing: str = "", listen: tuple[HostPort | UnixAddress, ...] = tcp) -> bool:
        names = [each for each in (*serving, *sockets, *others) if each != missing]
        inherited = InheritedDescriptors.from_names(
            ((name, number) for number, name in enumerate(names, 1000)), leaving=[WorkerId(2, 1)]
        )
        return inherited.is_whole(listen)

    assert is_whole()
    assert [each for each in sockets if is_whole(each)] == []
    assert is_whole("listener.0.0", (UnixAddress("/s"),))
    assert is_whole("ctl.0.2"), "nobody serves"


def test_workers_are_not_whole_without_a_listener_that_was_opened_here() -> None:
    """They have another one of that address, and nobody accepts from ours."""
    first = socket.create_server(("127.0.0.1", 0), reuse_port=True)
    names = ["scoreboard", "inbox-r.0", "inbox-w.0"]
    names += [f"{kind}.0.1" for kind in ("ctl", "pipe", "pid")]
    named = [(name, os.open(os.devnull, os.O_RDONLY)) for name in names]
    inherited = InheritedDescriptors.from_names([*named, ("listener.0.0", first.fileno())])
    with first:
        here = HostPort("127.0.0.1", first.getsockname()[1])
        inherited.fit_listeners((here,))
        assert inherited.is_whole((here,))
        both = (here, HostPort("127.0.0.2", here.port))
        inherited.fit_listeners(both)
        assert not inherited.is_whole(both)
    for fd in (*(fd for _, fd in named), inherited.slots[0].listeners[1]):
        os.close(fd)


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
