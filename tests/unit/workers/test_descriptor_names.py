"""The names of descriptors, which images of other releases and service managers have, too."""

from __future__ import annotations

import pytest

from supervisor.core.workers.descriptor_names import (
    Kind,
    compose_name,
    read_name,
    worker_names,
)
from supervisor.core.workers.worker_id import WorkerId

NAMES = {
    "scoreboard": (Kind.SCOREBOARD, []),
    "listener.2.1": (Kind.LISTENER, [2, 1]),
    "inbox-r.2": (Kind.INBOX_R, [2]),
    "inbox-w.2": (Kind.INBOX_W, [2]),
    "unix.0.2049.131": (Kind.SHARED, [0, 2049, 131]),
    "lent.0": (Kind.LENT, [0]),
    "ctl.2.7": (Kind.CONTROL, [2, 7]),
    "pipe.2.7": (Kind.PIPE, [2, 7]),
    "pid.2.7": (Kind.PIDFD, [2, 7]),
    "unready.2.7": (Kind.UNREADY, [2, 7]),
}


def test_a_name_is_what_every_release_calls_it() -> None:
    """A store that an older release filled is read, and an older release reads ours."""
    assert {name: read_name(name) for name in NAMES} == NAMES
    assert [compose_name(kind, *numbers) for kind, numbers in NAMES.values()] == list(NAMES)
    assert {kind for kind, _ in NAMES.values()} == set(Kind)
    assert worker_names(WorkerId(2, 7)) == ("ctl.2.7", "pipe.2.7", "pid.2.7")


@pytest.mark.parametrize("name", ["", "stored", "gateway.socket", "pid.x.1", "pid.-1.1", "pid..1"])
def test_what_is_no_name_of_ours_is_none(name: str) -> None:
    """Sockets of a socket unit have the unit's name, or what FileDescriptorName= says."""
    assert read_name(name) is None
