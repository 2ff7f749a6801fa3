"""Worker commands: what the fleet answers; the worker pool carries them out."""

from __future__ import annotations

from gateway.core.records import dataclass
from supervisor.core.workers.worker_id import WorkerId


@dataclass(frozen=True, slots=True)
class Spawn:
    """Fork a worker. ``exclusive``: it is the first of the group and must own the address.

    ``reason``: ``start``, or why its predecessor was replaced.
    """

    who: WorkerId
    exclusive: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Kill:
    """Send SIGKILL; ``reason`` is ``start-timeout``, ``timeout``, ``deadline`` or ``giving-up``."""

    who: WorkerId
    reason: str


@dataclass(frozen=True, slots=True)
class Retire:
    """Send ``Drain`` to the worker; ``close_listeners`` as in that message."""

    who: WorkerId
    deadline_s: float
    close_listeners: bool


@dataclass(frozen=True, slots=True)
class AdoptListeners:
    """Give worker ``by`` duplicates of slot ``slot``'s listeners."""

    by: WorkerId
    slot: int


@dataclass(frozen=True, slots=True)
class ReleaseListeners:
    """Worker ``by`` closes its duplicates of slot ``slot``'s listeners."""

    by: WorkerId
    slot: int


@dataclass(frozen=True, slots=True)
class AnnounceReady:
    """Every slot is filled by a ready worker of ours: the first time."""


@dataclass(frozen=True, slots=True)
class ReportUpgradeFailed:
    """No worker of ours gets ready, and those of the former master serve: said once a minute."""


@dataclass(frozen=True, slots=True)
class ShutListeners:
    """Shut down and close the listeners: nobody is to connect any more."""


@dataclass(frozen=True, slots=True)
class LeaveBehind:
    """The worker was killed and does not go: the gateway ends without having seen its end."""

    who: WorkerId


@dataclass(frozen=True, slots=True)
class Finish:
    """No worker is left (or the master leaves them): exit with ``code``."""

    code: int


Command = (
    Spawn
    | Kill
    | Retire
    | AdoptListeners
    | ReleaseListeners
    | AnnounceReady
    | ReportUpgradeFailed
    | ShutListeners
    | LeaveBehind
    | Finish
)
