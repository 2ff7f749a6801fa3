"""What this master hands over to the next one: by an upgrade, or by the record.

``handover.upgrade`` and ``handover.record`` know how it gets there; this module knows what
it is, and brings the parts to a halt before an upgrade.
"""

from __future__ import annotations

import asyncio

from supervisor.core.discovery.targets import describe_targets
from supervisor.core.handover_state import HandoverState
from supervisor.core.next_master import describe_fork
from supervisor.gateway_view import make_view
from supervisor.handover.record import CANNOT_RECORD
from supervisor.handover.upgrade import STARTING
from supervisor.parts import Parts


class MasterHandover:
    """Hands over from ``parts``; every descriptor stays with the part that owns it."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def state(self) -> HandoverState:
        """Everything that this image holds and knows at this moment. There must be a pool."""
        parts, left = self._parts, self._parts.left.state
        pool = parts.pool
        assert pool is not None  # noqa: S101 (for the type checker: it is ready)
        part = pool.hand_over()
        present = [member for member in parts.roster.members if member.removed_at is None]
        health = parts.endpoints.health.export(each.found.name for each in parts.roster.members)
        return HandoverState(
            descriptors=part.descriptors
            | parts.admin.named_descriptors()
            | parts.interim_admin.named_descriptors()
            | parts.left.others,
            workers=part.workers,
            workers_given=parts.workers_given,
            forked_with=describe_fork(parts.config),
            gens=part.gens,
            draining=part.draining,
            drains_until=part.drains_until,
            own_gens=part.gens,
            replacing=part.replacing,
            totals=parts.totals,
            started_at=parts.uptime.started_at,
            started_boot_s=parts.uptime.started_boot_s,
            snapshot_version=parts.roster.version,
            found=tuple(member.found for member in present),
            removed=parts.roster.removed,
            since=parts.roster.since,
            health={name: view for name, view in health.items() if view is not None},
            certificates=parts.tls.certificates.ends.export(),
            discovery=parts.discovery_loop.view,
            member_list=parts.discovery_loop.adopted,
            member_list_of=describe_targets(parts.config),
            tls_check=parts.discovery_loop.tls_check,
            searched=parts.discovery_loop.searched,
            reload=parts.reloader.view,
            restarts=dict(pool.restarts),
            events=parts.events.all(),
            listen_given=tuple(map(str, parts.config.listen_addr)),
            listen=tuple(map(str, parts.listen)),
            listen_held=() if parts.ready else left.held,
            admin=tuple(parts.config.admin_addr),
            image=parts.image,
            command=parts.command,
            handover=parts.config.handover,
            drain_timeout_s=parts.config.drain_timeout_s,
        )

    def write_record(self) -> None:
        """Keep the record for the next master up to date, if there is one."""
        parts = self._parts
        if parts.record is None:
            return
        try:
            parts.record.write(self.state(), ours=parts.ready or parts.keeps_workers)
        except OSError as error:  # no memory for it: the next time it is tried again
            parts.log.warn(CANNOT_RECORD, error=str(error))

    def find_obstacle(self) -> str:
        """What is in the way of an upgrade; "" if nothing is."""
        parts = self._parts
        if parts.shutdown.draining:
            return "draining"
        if parts.ready or (parts.pool is not None and parts.left.took_over):
            return ""  # after an upgrade that failed, the next one is the way out
        return STARTING

    async def pause(self) -> None:
        """Bring what cannot be handed over half done to an end before the next image starts."""
        queue = self._parts.endpoints.health.prober.queue
        discovery = self._parts.discovery_loop
        await asyncio.gather(self._pause_admin(), queue.pause(), discovery.pause())

    async def resume(self) -> None:
        """There is no next image: go on."""
        self._parts.endpoints.health.prober.queue.resume()
        self._parts.discovery_loop.resume()
        await self._parts.admin.resume()

    async def _pause_admin(self) -> None:
        """From here on another process answers, until the next image does, or this one again."""
        parts = self._parts
        sockets = parts.admin.sockets
        await parts.admin.pause()
        if sockets:
            parts.interim_admin.start(
                sockets, make_view(parts), parts.log, names=parts.config.admin_host
            )
