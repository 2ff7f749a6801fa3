"""What the fleet hears (events) and what it answers (commands): the crew carries them out."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class WorkerId:
    """One worker for ever: which slot it fills and the how-manieth incarnation it is."""

    slot: int
    gen: int


@dataclass(frozen=True, slots=True)
class Left:
    """What a former master left in one slot: its listeners (``bound``) and live workers.

    ``serving`` is the generation that accepts, ``leaving`` those that drain; ``gen`` the highest
    that was used.
    """

    slot: int
    gen: int
    bound: bool
    serving: int | None = None
    leaving: tuple[int, ...] = ()


# Events


@dataclass(frozen=True, slots=True)
class Start:
    """Fill ``slots`` slots; what a former master left is taken over and then replaced."""

    slots: int
    left: tuple[Left, ...] = ()


@dataclass(frozen=True, slots=True)
class Bound:
    """The worker bound its slot's listeners; the master holds duplicates now."""

    who: WorkerId


@dataclass(frozen=True, slots=True)
class Ready:
    """The worker listens, holds its first snapshot and accepts."""

    who: WorkerId


@dataclass(frozen=True, slots=True)
class Failed:
    """The worker says why it cannot start; ``bind``: a listen address is not to be had."""

    who: WorkerId
    reason: str


@dataclass(frozen=True, slots=True)
class Exited:
    """The worker is gone (or could not be forked)."""

    who: WorkerId


@dataclass(frozen=True, slots=True)
class Resize:
    """So many workers more, or fewer if negative; one stays."""

    by: int


@dataclass(frozen=True, slots=True)
class Renew:
    """Replace every worker; the replacement accepts before the old one stops."""

    reason: str


@dataclass(frozen=True, slots=True)
class Drain:
    """Stop for good: accept no more, sessions may go on for ``deadline_s`` seconds."""

    deadline_s: float


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop for good, at once."""


@dataclass(frozen=True, slots=True)
class Leave:
    """The master goes; the workers go on for the next one."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time went by; the workers in ``alive`` gave a sign of life since the last tick."""

    alive: tuple[WorkerId, ...] = ()


Event = Start | Bound | Ready | Failed | Exited | Resize | Renew | Drain | Stop | Leave | Tick


# Commands


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
class Adopt:
    """Give worker ``by`` duplicates of slot ``slot``'s listeners."""

    by: WorkerId
    slot: int


@dataclass(frozen=True, slots=True)
class Release:
    """Worker ``by`` closes its duplicates of slot ``slot``'s listeners."""

    by: WorkerId
    slot: int


@dataclass(frozen=True, slots=True)
class Announce:
    """Every slot is filled by a ready worker of ours: the first time."""


@dataclass(frozen=True, slots=True)
class Shut:
    """Shut down and close the listeners: nobody is to connect any more."""


@dataclass(frozen=True, slots=True)
class Finish:
    """No worker is left (or the master leaves them): exit with ``code``."""

    code: int


Command = Spawn | Kill | Retire | Adopt | Release | Announce | Shut | Finish
