"""The names of descriptors that outlive the master: what they are called, and what a name says.

The same names serve both ways: through ``execve`` (USR2, with the handover state beside them) and
through the service manager's descriptor store, where FDNAME= allows no more than a name. Images of
other releases read them.
"""

from __future__ import annotations

from enum import StrEnum

from supervisor.core.workers.worker_id import WorkerId


class Kind(StrEnum):
    """What a name begins with, and which numbers follow."""

    SCOREBOARD = "scoreboard"
    LISTENER = "listener"
    """slot, number of the listen address"""
    INBOX_R = "inbox-r"
    """slot"""
    INBOX_W = "inbox-w"
    """slot"""
    SHARED = "unix"
    """a number, device and inode of the socket's file"""
    LENT = "lent"
    """a number"""
    CONTROL = "ctl"
    """slot, generation"""
    PIPE = "pipe"
    """slot, generation"""
    PIDFD = "pid"
    """slot, generation"""
    UNREADY = "unready"
    """slot, generation: the pidfd of a worker that was not ready"""


_KINDS = {kind.value: kind for kind in Kind}

BORN_WITH = frozenset(
    (Kind.SCOREBOARD, Kind.LISTENER, Kind.INBOX_R, Kind.INBOX_W, Kind.SHARED, Kind.LENT)
)
"""The kinds of those descriptors that a worker is born with."""


def compose_name(kind: Kind, *numbers: int) -> str:
    """The name of the descriptor of this kind and these numbers."""
    return ".".join((kind, *map(str, numbers)))


def read_name(name: str) -> tuple[Kind, list[int]] | None:
    """The reverse of :func:`compose_name`; None for what is no such name."""
    kind, *numbers = name.split(".")
    if kind not in _KINDS or not all(number.isdecimal() for number in numbers):
        return None
    return _KINDS[kind], [int(number) for number in numbers]


def worker_names(who: WorkerId) -> tuple[str, str, str]:
    """The names of a worker's control socket, pipe and pidfd."""
    return (
        compose_name(Kind.CONTROL, who.slot, who.gen),
        compose_name(Kind.PIPE, who.slot, who.gen),
        compose_name(Kind.PIDFD, who.slot, who.gen),
    )
