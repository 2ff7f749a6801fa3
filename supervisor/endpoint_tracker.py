"""The endpoints in the master: what discovery found and probes judged, told to the workers."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping

from gateway.core import messages
from gateway.core.endpoint import RETIRED, EndpointState
from gateway.core.log import Log
from gateway.core.networks import Networks
from supervisor.core.admin.totals import Totals, Traffic
from supervisor.core.admin.views import EndpointView, endpoint_view
from supervisor.core.certificates import Place
from supervisor.core.config import Config
from supervisor.core.discovery.endpoints import Discovered
from supervisor.core.discovery.targets import describe_tls_check
from supervisor.core.health.health_view import HealthView
from supervisor.core.health.probing import plan
from supervisor.core.rebalance import Rebalancer, compose_orders
from supervisor.core.reload_rules import worker_settings
from supervisor.core.roster import Roster
from supervisor.core.roster_member import Policy, Removed, Since
from supervisor.core.workers.worker_id import WorkerId
from supervisor.health.endpoint_health import EndpointHealth
from supervisor.snapshot_publisher import SnapshotPublisher
from supervisor.system.machine import identify
from supervisor.system.shared_tls import SharedTls

NOTHING_SINCE = Since()

FIRST_LIST_S = 5.0
"""For so long after a start or a reload, endpoints may still come from a first member list."""


class EndpointTracker:
    """Keeps roster, prober and totals in step, and publishes a snapshot when one of them changed.

    Owns the prober. ``send(snapshot)`` gives a snapshot to the workers, and has what the next
    master will know brought up to date; ``record()`` does that alone.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        config: Config,
        log: Log,
        *,
        roster: Roster,
        totals: Totals,
        send: Callable[[messages.Snapshot], None],
        record: Callable[[], None],
        shared_tls: SharedTls,
    ) -> None:
        self._loop = loop
        self._config = config
        self._machine = identify()
        self._roster = roster
        self._certificates = shared_tls.certificates
        self.health = EndpointHealth(config, log, self._on_health, shared_tls=shared_tls)
        self._totals = totals
        self._send = send
        self._record = record
        self._publisher: SnapshotPublisher | None = None
        self._reconfigured: asyncio.Handle | None = None
        self._unknown: frozenset[str] = frozenset()
        self._configured_at = loop.time()
        self._rebalancer = Rebalancer()
        self._rebalancing = False
        self._log = log
        self._follow_policy()

    def publish_from_now_on(self) -> messages.Snapshot:
        """The snapshot for the first workers; later ones go through ``send``."""
        snapshot = self._make()
        self._totals.retain([each.name for each in snapshot.endpoints])
        self._publisher = SnapshotPublisher(
            self._loop,
            make=self._make,
            send=self._publish,
            record=self._record,
            version=snapshot.version,
        )
        return snapshot

    def remember(
        self,
        found: tuple[Discovered, ...],
        removed: Iterable[Removed],
        health: Mapping[str, HealthView],
        since: Since = NOTHING_SINCE,
    ) -> None:
        """Begin with what a former master knew: endpoints, those in their grace, their health.

        ``since``: since when they drain, or come back to their share.

        Roster and probes have to begin alike: from then on probes tell only what changes.
        """
        self._roster.remember(removed)
        if found:
            self.on_found(found)
        else:
            self._watch_members()
        self._roster.assume_sessions()
        self.health.remember(health)
        for member in self._roster.members:
            self.health.tell(member.found.name)
        self._roster.resume(since, self._loop.time())

    def on_found(self, found: tuple[Discovered, ...]) -> None:
        """Discovery says which endpoints there are."""
        self._roster.resolve(found, self._loop.time(), self._config.removal_grace_s)
        self._watch_members()
        self._certificates.ends.retain(self._places())
        self._name_unknown()
        self.publish(record=True)

    def on_tick(self) -> dict[str, int]:
        """About once a second; sessions by endpoint over all workers."""
        traffic = self._totals.traffic()
        addresses = self._totals.sessions_by_address()
        nothing = Traffic()
        for member in self._roster.members:
            name = member.found.name
            moved = traffic.get(name, nothing)
            self._roster.sessions(name, moved.sessions, at_least=not self._totals.complete)
            self.health.take_traffic(
                name,
                sessions=moved.sessions,
                dials=moved.dials,
                bytes_out=moved.bytes_out,
                by_address=addresses.get(name, {}),
            )
        self._roster.advance(self._loop.time())
        self._watch_members()
        if self._config.member_sync_s and self._config.drain_endpoints:
            self._name_unknown()
        self.publish()
        return {name: moved.sessions for name, moved in traffic.items()}

    def rebalance(self) -> list[tuple[WorkerId, messages.GiveUp]]:
        """What workers are to do now so that endpoints come back to their shares."""
        over_s = self._config.rebalance_s
        if not over_s and not self._rebalancing:
            return []
        self._rebalancing = bool(over_s)
        commands, directions = self._rebalancer.step(
            self._roster.snapshot(self._settings()).endpoints,
            self._totals.sessions_by_worker(),
            over_s=over_s,
            now=self._loop.time(),
            draw=random.randrange,
        )
        return compose_orders(commands, directions)

    def reconfigure(self, config: Config) -> None:
        """The configuration changed: the workers get it with the next snapshot, at once.

        Discovery tells of its endpoints, if they are others, before the loop goes on: both are one
        snapshot, and nothing is said or forgotten of endpoints that are just about to come.
        """
        self._config = config
        self._configured_at = self._loop.time()
        self._follow_policy()
        self.health.reconfigure(config)
        self._reconfigured = self._loop.call_soon(self._after_reload)

    def _after_reload(self) -> None:
        self._certificates.ends.retain(self._places())
        self._name_unknown()
        if self._publisher is not None:
            self._publisher.publish()

    def publish(self, *, record: bool = False) -> None:
        """Something that the workers should know may have changed.

        ``record``: the next master is to know of it, also if workers need not.
        """
        if self._publisher is not None:
            self._publisher.ask(record=record)

    def active_names(self) -> list[str]:
        """The endpoints that are active."""
        members = self._roster.members
        return [each.found.name for each in members if each.state is EndpointState.ACTIVE]

    def views(self) -> tuple[EndpointView, ...]:
        """What the status document and the metrics say of each endpoint, in the roster's order."""
        certificates = self._certificates.ends.by_endpoint()
        monotonic_began_at = time.time() - self._loop.time()
        return tuple(
            endpoint_view(
                member,
                self.health.view(member.found.name),
                self.health.address_views(member.found.name),
                certificates.get(member.found.name),
                None if member.retired_at is None else monotonic_began_at + member.retired_at,
            )
            for member in self._roster.members
        )

    def cut_off(self) -> Iterator[str | None]:
        """Of each active endpoint, why this host cannot dial it; None: it can."""
        for member in self._roster.members:
            if member.state is EndpointState.ACTIVE:
                view = self.health.view(member.found.name)
                yield None if view is None else view.cut_off

    @property
    def any_active(self) -> bool:
        """Whether an endpoint is active, and not only because too few others are."""
        for member in self._roster.members:
            if member.state is EndpointState.ACTIVE:
                view = self.health.view(member.found.name)
                if view is None or not view.kept:
                    return True
        return False

    async def close(self) -> None:
        if self._publisher is not None:
            self._publisher.cancel()
        if self._reconfigured is not None:
            self._reconfigured.cancel()
        await self.health.close()

    def _follow_policy(self) -> None:
        config = self._config
        policy = Policy(
            draining=frozenset(config.drain_endpoints),
            grace_s=config.removal_grace_s,
            slow_start_s=config.slow_start_s,
            prefer=Networks(map(str, config.prefer)),
        )
        self._roster.follow(policy, self._loop.time())
        self._watch_members()

    def _name_unknown(self) -> None:
        """Say which names of --drain-endpoints no endpoint has: one may be misspelled.

        With --member-sync a list may bring them that nobody has been asked for yet.
        """
        waited_s = self._loop.time() - self._configured_at
        if self._config.member_sync_s and waited_s < FIRST_LIST_S:
            return
        names = {member.found.name for member in self._roster.members}
        unknown = frozenset(self._config.drain_endpoints) - names if names else frozenset()
        if unknown - self._unknown:
            self._log.warn("no such endpoint in --drain-endpoints", names=sorted(unknown))
        self._unknown = unknown

    def _on_health(self, name: str, active: bool, inactive: tuple[str, ...]) -> None:
        """The judgement of one endpoint, or of one of its addresses, changed."""
        self._roster.judge(name, active, self._loop.time(), inactive)
        self.publish()

    def _watch_members(self) -> None:
        """Probe those in their grace, too: they may come back, or fail."""
        members = self._roster.members
        self.health.set_endpoints(
            (member.found for member in members),
            retired=[member.found.name for member in members if member.state in RETIRED],
        )

    def _places(self) -> set[Place]:
        """Where probes, and the TLS check, are shown certificates."""
        checked = bool(describe_tls_check(self._config))
        places: set[Place] = set()
        for found in (member.found for member in self._roster.members):
            how = plan(self._config, found)
            ports = [] if how.secure is False else [how.port or found.port]
            if checked and found.srv:
                ports.append(found.port)
            places |= {(found.name, each, port) for each in found.addresses for port in ports}
        return places

    def _make(self) -> messages.Snapshot:
        self._roster.advance(self._loop.time())
        return self._roster.snapshot(self._settings())

    def _settings(self) -> messages.Settings:
        return worker_settings(self._config, self._machine)

    def _publish(self, snapshot: messages.Snapshot) -> None:
        self._totals.retain([each.name for each in snapshot.endpoints])
        self._send(snapshot)
