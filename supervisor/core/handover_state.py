"""The handover state: what one image of the program tells the next.

It travels as a JSON document, see ``handover_document``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from gateway.core.records import dataclass
from supervisor.core.admin.totals import Totals
from supervisor.core.admin.views import DiscoveryView, ReloadView
from supervisor.core.certificates import CertificateEnd
from supervisor.core.discovery.adoption import AdoptedList
from supervisor.core.discovery.endpoints import Discovered
from supervisor.core.health.health_view import HealthView
from supervisor.core.roster_member import Removed, Since
from supervisor.core.workers.worker_id import WorkerId


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """How to execute an image again, and how to see whether it is still what it was.

    ``files`` maps paths of its code to a fingerprint of each.
    """

    argv: tuple[str, ...]
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class HandoverState:
    """Everything but the descriptors themselves, which travel beside it under the same names.

    ``workers``: how many there are to be, 0 if nobody says; ``workers_given``: how many the
    configuration asked for; ``forked_with``: the flags that a worker keeps for life, "" if nobody
    says. ``gens``: the highest generation that each slot used. ``draining``: workers that were told
    to leave; ``drains_until``: when (monotonic) the sessions of each are cut. ``own_gens``: up to
    which generation of each slot the workers are as those of ``image``; ``replacing``: some that
    are not, although they are as old. ``found``: the last good endpoints. ``removed``: those that
    left DNS and are in their grace. ``since``: since when others drain or come back.
    ``member_list``: the list of the cluster that they follow; ``member_list_of``: the targets that
    led to it. ``tls_check``: the TLS check that ``found`` has passed, None if nobody says.
    ``searched``: by host, the name of the search list whose addresses are in use.
    ``listen_given`` and ``listen``: the addresses as configured, and as bound; ``listen_held``:
    those of workers of before, until ours are ready. ``admin``: the admin addresses that are bound.
    ``image``: who wrote this, None if it is not worth going back to. ``command``: what an upgrade
    executes, as the gateway was started; ``image`` names one release. ``failure``: why an upgrade
    was undone, if one was. ``handover`` and ``drain_timeout_s``: the flags, for a stop while the
    next image cannot start.
    """

    descriptors: dict[str, int] = field(default_factory=dict)
    workers: int = 0
    workers_given: int = 0
    forked_with: str = ""
    gens: dict[int, int] = field(default_factory=dict)
    draining: tuple[WorkerId, ...] = ()
    drains_until: dict[WorkerId, float] = field(default_factory=dict)
    own_gens: dict[int, int] = field(default_factory=dict)
    replacing: tuple[WorkerId, ...] = ()
    totals: Totals = field(default_factory=Totals)
    started_at: float | None = None
    started_boot_s: float | None = None
    snapshot_version: int = 0
    found: tuple[Discovered, ...] = ()
    removed: tuple[Removed, ...] = ()
    since: Since = field(default_factory=Since)
    health: dict[str, HealthView] = field(default_factory=dict)
    certificates: tuple[CertificateEnd, ...] = ()
    discovery: DiscoveryView | None = None
    member_list: AdoptedList | None = None
    member_list_of: str = ""
    tls_check: str | None = None
    searched: dict[str, str] = field(default_factory=dict)
    reload: ReloadView = field(default_factory=ReloadView)
    restarts: dict[str, int] = field(default_factory=dict)
    events: tuple[Mapping[str, Any], ...] = ()
    listen_given: tuple[str, ...] = ()
    listen: tuple[str, ...] = ()
    listen_held: tuple[str, ...] = ()
    admin: tuple[str, ...] = ()
    image: Image | None = None
    command: tuple[str, ...] = ()
    failure: str = ""
    handover: bool = False
    drain_timeout_s: float = 0.0

    @property
    def held(self) -> tuple[str, ...]:
        """The addresses that workers listen at."""
        return self.listen_held or self.listen
