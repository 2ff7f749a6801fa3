"""The life of one worker, from fork to reap, as a table.

The diagram in ``docs/life-of-a-worker.md`` is generated from :data:`TRANSITIONS`.
"""

from __future__ import annotations

import enum


class WorkerState(enum.Enum):
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
    """The process has exited and was waited for; no state follows."""


class Happening(enum.Enum):
    """What can happen to one worker."""

    READY = "Ready"
    BEAT = "heartbeat"
    LATE = "heartbeats missed"
    RETIRE = "told to drain"
    KILL = "killed"
    EXIT = "exited"


class IllegalTransitionError(Exception):
    """Something happened to a worker that its state excludes: a bug in master or worker."""


TRANSITIONS: dict[tuple[WorkerState, Happening], WorkerState] = {
    (WorkerState.STARTING, Happening.READY): WorkerState.READY,
    (WorkerState.STARTING, Happening.BEAT): WorkerState.STARTING,
    (WorkerState.STARTING, Happening.RETIRE): WorkerState.DRAINING,
    (WorkerState.STARTING, Happening.KILL): WorkerState.DYING,
    (WorkerState.STARTING, Happening.EXIT): WorkerState.REAPED,
    (WorkerState.READY, Happening.BEAT): WorkerState.READY,
    (WorkerState.READY, Happening.LATE): WorkerState.HUNG,
    (WorkerState.READY, Happening.RETIRE): WorkerState.DRAINING,
    (WorkerState.READY, Happening.KILL): WorkerState.DYING,
    (WorkerState.READY, Happening.EXIT): WorkerState.REAPED,
    (WorkerState.HUNG, Happening.BEAT): WorkerState.READY,
    (WorkerState.HUNG, Happening.RETIRE): WorkerState.DRAINING,
    (WorkerState.HUNG, Happening.KILL): WorkerState.DYING,
    (WorkerState.HUNG, Happening.EXIT): WorkerState.REAPED,
    # A message that the worker sent before it read our command is legal and changes nothing.
    (WorkerState.DRAINING, Happening.READY): WorkerState.DRAINING,
    (WorkerState.DRAINING, Happening.BEAT): WorkerState.DRAINING,
    (WorkerState.DRAINING, Happening.RETIRE): WorkerState.DRAINING,
    (WorkerState.DRAINING, Happening.KILL): WorkerState.DYING,
    (WorkerState.DRAINING, Happening.EXIT): WorkerState.REAPED,
    (WorkerState.DYING, Happening.READY): WorkerState.DYING,
    (WorkerState.DYING, Happening.BEAT): WorkerState.DYING,
    (WorkerState.DYING, Happening.EXIT): WorkerState.REAPED,
}


def next_state(state: WorkerState, happening: Happening) -> WorkerState:
    """The next state; IllegalTransitionError if this cannot happen in ``state``."""
    try:
        return TRANSITIONS[state, happening]
    except KeyError:
        raise IllegalTransitionError(f"{happening.value!r} while {state.value}") from None


def draw_diagram() -> str:
    """The table as a Mermaid state diagram; transitions that change nothing are left out."""
    lines = ["stateDiagram-v2", "    [*] --> starting: forked"]
    lines += [
        f"    {before.value} --> {after.value}: {happening.value}"
        for (before, happening), after in TRANSITIONS.items()
        if before is not after
    ]
    return "\n".join([*lines, "    reaped --> [*]"])
