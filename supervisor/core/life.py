"""The life of one worker, from fork to reap, as a table.

The diagram in ``docs/life-of-a-worker.md`` is generated from :data:`TRANSITIONS`.
"""

from __future__ import annotations

import enum


class Life(enum.Enum):
    """Where one worker process is in its life, as the master sees it."""

    STARTING = "starting"
    """Forked; not Ready yet."""
    READY = "ready"
    """Listens, holds a snapshot, its heartbeats come in time."""
    HUNG = "hung"
    """Was ready and missed its heartbeats: a survivor accepts from its sockets."""
    DRAINING = "draining"
    """Was told to stop accepting; its sessions may go on until the deadline."""
    DYING = "dying"
    """SIGKILL was sent; the exit has not been seen yet."""
    REAPED = "reaped"
    """Gone, and its exit was taken note of: the end of every life."""


class Turn(enum.Enum):
    """What can happen to one worker."""

    READY = "Ready"
    BEAT = "heartbeat"
    LATE = "heartbeats missed"
    RETIRE = "told to drain"
    KILL = "killed"
    EXIT = "exited"


class IllegalTurnError(Exception):
    """Something happened to a worker that cannot happen in its state: a bug of one side."""


TRANSITIONS: dict[tuple[Life, Turn], Life] = {
    (Life.STARTING, Turn.READY): Life.READY,
    (Life.STARTING, Turn.BEAT): Life.STARTING,
    (Life.STARTING, Turn.RETIRE): Life.DRAINING,
    (Life.STARTING, Turn.KILL): Life.DYING,
    (Life.STARTING, Turn.EXIT): Life.REAPED,
    (Life.READY, Turn.BEAT): Life.READY,
    (Life.READY, Turn.LATE): Life.HUNG,
    (Life.READY, Turn.RETIRE): Life.DRAINING,
    (Life.READY, Turn.KILL): Life.DYING,
    (Life.READY, Turn.EXIT): Life.REAPED,
    (Life.HUNG, Turn.BEAT): Life.READY,
    (Life.HUNG, Turn.RETIRE): Life.DRAINING,
    (Life.HUNG, Turn.KILL): Life.DYING,
    (Life.HUNG, Turn.EXIT): Life.REAPED,
    # What crossed our order on its way up is legal and changes nothing.
    (Life.DRAINING, Turn.READY): Life.DRAINING,
    (Life.DRAINING, Turn.BEAT): Life.DRAINING,
    (Life.DRAINING, Turn.RETIRE): Life.DRAINING,
    (Life.DRAINING, Turn.KILL): Life.DYING,
    (Life.DRAINING, Turn.EXIT): Life.REAPED,
    (Life.DYING, Turn.READY): Life.DYING,
    (Life.DYING, Turn.BEAT): Life.DYING,
    (Life.DYING, Turn.EXIT): Life.REAPED,
}


def turn(life: Life, happening: Turn) -> Life:
    """The next state; IllegalTurnError if this cannot happen in ``life``."""
    try:
        return TRANSITIONS[life, happening]
    except KeyError:
        raise IllegalTurnError(f"{happening.value!r} while {life.value}") from None


def draw_diagram() -> str:
    """The table as a Mermaid state diagram; turns that change nothing are left out."""
    lines = ["stateDiagram-v2", "    [*] --> starting: forked"]
    lines += [
        f"    {before.value} --> {after.value}: {happening.value}"
        for (before, happening), after in TRANSITIONS.items()
        if before is not after
    ]
    return "\n".join([*lines, "    reaped --> [*]"])
