"""Worker events: what the fleet is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from gateway.core.records import dataclass
from supervisor.core.workers.worker_id import WorkerId


@dataclass(frozen=True, slots=True)
class FormerSlot:
    """What a former master left in one slot: its listeners (``bound``) and live workers.

    ``serving`` is the generation that accepts, ``draining`` those that were told to leave, ``gen``
    the highest that was used. ``keep``: the serving one is of the same program and need not be
    replaced. ``ends_at``: when the sessions of those that drain are cut, where that is known.
    """

    slot: int
    gen: int
    bound: bool
    serving: int | None = None
    draining: tuple[int, ...] = ()
    keep: bool = False
    ends_at: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Start:
    """Fill ``slots`` slots; what a former master left is taken over and then replaced.

    ``by_upgrade``: the former image left it, and may be gone back to.
    """

    slots: int
    left: tuple[FormerSlot, ...] = ()
    by_upgrade: bool = False


@dataclass(frozen=True, slots=True)
class WorkerBound:
    """The worker bound its slot's listeners; the master holds duplicates now."""

    who: WorkerId


@dataclass(frozen=True, slots=True)
class WorkerReady:
    """The worker listens, holds its first snapshot and accepts."""

    who: WorkerId


@dataclass(frozen=True, slots=True)
class WorkerFailed:
    """The worker says why it cannot start; ``bind``: a listen address is not to be had."""

    who: WorkerId
    reason: str


@dataclass(frozen=True, slots=True)
class WorkerExited:
    """The worker is gone (or could not be forked)."""

    who: WorkerId


@dataclass(frozen=True, slots=True)
class AdoptionFailed:
    """The slot's listeners could not be given to the worker that was to adopt them.

    ``by``: that worker, if it may have been replaced by another adopter since.
    """

    slot: int
    by: WorkerId | None = None


@dataclass(frozen=True, slots=True)
class Resize:
    """So many workers more, or fewer if negative; one stays."""

    by: int


@dataclass(frozen=True, slots=True)
class DrainAll:
    """Stop for good: accept no more, sessions may go on for ``deadline_s`` seconds."""

    deadline_s: float


@dataclass(frozen=True, slots=True)
class StopAll:
    """Stop for good, at once."""


@dataclass(frozen=True, slots=True)
class LeaveWorkers:
    """The master goes; the workers go on for the next one."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time went by; ``signs``: who gave a sign of life since the last tick, and when.

    One from the future holds until then: of workers that give signs seldom.
    """

    signs: Mapping[WorkerId, float] = field(default_factory=dict)


Event = (
    Start
    | WorkerBound
    | WorkerReady
    | WorkerFailed
    | WorkerExited
    | AdoptionFailed
    | Resize
    | DrainAll
    | StopAll
    | LeaveWorkers
    | Tick
)
