"""The whole gateway as one view: what the parts know, put together for those who ask."""

from __future__ import annotations

import collections
import os
import resource
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from gateway.core.address import HostPort
from supervisor import __version__
from supervisor.core.admin.status import (
    DiscoveryView,
    EndpointView,
    GatewayView,
    ReloadView,
    WorkerView,
)
from supervisor.core.admin.totals import Sums
from supervisor.core.config import Config
from supervisor.core.health.machine import HealthView
from supervisor.core.roster import Member

EVENTS_KEPT = 50
"""Log lines that the status page shows."""


class Events:
    """The last log lines, for the status page; neither sessions nor the status itself are."""

    def __init__(self, before: Iterable[Mapping[str, Any]] = ()) -> None:
        """``before``: those of an earlier image."""
        self._kept = collections.deque(map(dict, before), maxlen=EVENTS_KEPT)

    def take(self, record: dict[str, Any]) -> None:
        """The log's tap."""
        if record["level"] != "debug" and not record["msg"].startswith("status"):
            self._kept.append(dict(record))

    def all(self) -> tuple[Mapping[str, Any], ...]:
        return tuple(self._kept)


def endpoint_view(member: Member, health: HealthView | None) -> EndpointView:
    """One endpoint: the roster says what it is, health what became of it."""
    found = member.found
    if health is None:
        return EndpointView(
            endpoint=found.name,
            addresses=found.addresses,
            priority=found.priority,
            weight=found.weight,
            state=member.state,
        )
    return EndpointView(
        endpoint=found.name,
        addresses=found.addresses,
        priority=found.priority,
        weight=found.weight,
        state=member.state,
        since=health.since,
        last_error=health.last_error,
        probe_failures=health.probe_failures,
        probes=health.probes,
        transitions=health.transitions,
        hold_s=health.hold_s,
    )


def limits(config: Config, workers: int) -> dict[str, int]:
    """The figures that bound this gateway, as log and status show them."""
    open_files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return {"workers": workers, "max_sessions": config.max_sessions, "open_files": open_files}


class Overview:
    """Knows since when the gateway runs; everything else is asked for at the moment."""

    def __init__(self, started_at: float | None = None) -> None:
        """``started_at``: wall clock, of the first image of this master."""
        self.started_at = time.time() if started_at is None else started_at

    def view(
        self,
        *,
        config: Config,
        listen: tuple[HostPort, ...],
        started: bool,
        draining: bool,
        slots: int,
        snapshot_version: int,
        discovery: DiscoveryView,
        reload: ReloadView,
        members: tuple[Member, ...],
        health: Callable[[str], HealthView | None],
        workers: tuple[WorkerView, ...],
        sums: Sums,
        worker_restarts: Mapping[str, int],
        events: tuple[Mapping[str, Any], ...],
        foreign_listeners: tuple[Mapping[str, Any], ...],
    ) -> GatewayView:
        return GatewayView(
            version=__version__,
            pid=os.getpid(),
            started_at=self.started_at,
            uptime_s=max(time.time() - self.started_at, 0.0),
            started=started,
            draining=draining,
            slots=slots,
            listen=tuple(str(address) for address in listen),
            snapshot_version=snapshot_version,
            discovery=discovery,
            reload=reload,
            endpoints=tuple(endpoint_view(member, health(member.found.name)) for member in members),
            workers=workers,
            sums=sums,
            worker_restarts=worker_restarts,
            events=events,
            foreign_listeners=foreign_listeners,
            limits=limits(config, slots),
        )
