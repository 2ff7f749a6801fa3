"""From one master to the next: what is taken over at the start, and what is left at the end.

A next image of ours (USR2) gets every descriptor and the facts; a next process under a service
manager that keeps descriptors gets what their names say.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from supervisor.core.admin.totals import Totals
from supervisor.core.admin.views import DiscoveryView, ReloadView
from supervisor.core.discovery.endpoints import Discovered
from supervisor.core.health.machine import HealthView
from supervisor.core.roster import Roster
from supervisor.handover import systemd, upgrade
from supervisor.system.uptime import Uptime
from supervisor.workers.inherited import InheritedDescriptors
from supervisor.workers.pool import WorkerPool


@dataclass(slots=True)
class Inheritance:
    """What this master starts with; empty if it is the first.

    ``workers``: how many there were to be, 0 if nobody says. ``found``: the last good endpoints.
    """

    inherited: InheritedDescriptors = field(default_factory=InheritedDescriptors)
    totals: Totals = field(default_factory=Totals)
    started_at: float | None = None
    started_boot_s: float | None = None
    workers: int = 0
    version: int = 0
    found: tuple[Discovered, ...] = ()
    health: dict[str, HealthView] = field(default_factory=dict)
    discovery: DiscoveryView | None = None
    reload: ReloadView = field(default_factory=ReloadView)
    restarts: dict[str, int] = field(default_factory=dict)
    events: tuple[Mapping[str, Any], ...] = ()


def take_over(environ: MutableMapping[str, str]) -> Inheritance:
    """What the image before us left, else what the service manager kept, else nothing."""
    if (handed_over := upgrade.take_inherited(environ)) is not None:
        inherited, facts = handed_over
        return Inheritance(
            inherited=inherited,
            totals=Totals.restore(facts["totals"]),
            started_at=facts["started_at"],
            started_boot_s=facts.get("started_boot_s"),
            workers=facts["wanted"],
            version=facts["version"],
            found=tuple(_discovered(each) for each in facts["found"]),
            health={name: HealthView(**each) for name, each in facts["health"].items()},
            discovery=DiscoveryView(**facts["discovery"]),
            reload=ReloadView(**facts["reload"]),
            restarts=facts["restarts"],
            events=tuple(facts["events"]),
        )
    if stored := systemd.take_stored(environ):
        return Inheritance(inherited=InheritedDescriptors.from_names(stored))
    return Inheritance()


def facts_for_the_next(
    *,
    pool: WorkerPool,
    totals: Totals,
    roster: Roster,
    uptime: Uptime,
    reload: ReloadView,
    discovery: DiscoveryView,
    health: Callable[[str], HealthView | None],
    events: tuple[Mapping[str, Any], ...],
) -> dict[str, Any]:
    """Everything that an image of ours wants to know of the one before it, as JSON values."""
    present = [member for member in roster.members if member.removed_at is None]
    return pool.facts() | {
        "totals": totals.export(),
        "started_at": uptime.started_at,
        "started_boot_s": uptime.started_boot_s,
        "version": roster.version,
        "found": [dataclasses.asdict(member.found) for member in present],
        "health": {
            member.found.name: dataclasses.asdict(view)
            for member in present
            if (view := health(member.found.name)) is not None
        },
        "discovery": dataclasses.asdict(discovery),
        "reload": dataclasses.asdict(reload),
        "restarts": dict(pool.restarts),
        "events": list(events),
    }


def _discovered(document: dict[str, Any]) -> Discovered:
    known = {each.name for each in dataclasses.fields(Discovered)}
    kept = {key: value for key, value in document.items() if key in known}
    return Discovered(**kept | {"addresses": tuple(document["addresses"])})
