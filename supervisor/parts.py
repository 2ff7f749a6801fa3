"""The parts of the master, and the few facts that all of them share.

The master makes the parts, connects them and closes them. A module that looks at many parts, or
sets many of them going, is handed all of them: the start, the upkeep, the view, the handover.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping

from gateway.core.address import Address
from gateway.core.messages import MAX_SLOTS
from supervisor.admin.lifecycle import AdminLifecycle
from supervisor.admin.port_monitor import PortMonitor
from supervisor.admin.recent_events import RecentEvents
from supervisor.core.config import Config
from supervisor.core.next_master import count_workers
from supervisor.core.roster import Roster
from supervisor.discovery.loop import DiscoveryLoop
from supervisor.endpoint_tracker import EndpointTracker
from supervisor.handover.image import command, describe
from supervisor.handover.inheritance import take_over
from supervisor.handover.record import HandoverRecord
from supervisor.handover.service_notifier import ServiceNotifier
from supervisor.handover.systemd import Notify
from supervisor.handover.upgrade import Upgrade
from supervisor.interim_admin import InterimAdmin
from supervisor.reloader import Reloader
from supervisor.shutdown import Shutdown
from supervisor.system import limits
from supervisor.system.log import make_log, take_library_messages
from supervisor.system.shared_tls import SharedTls
from supervisor.system.signals import SignalWatch
from supervisor.system.tasks import Tasks
from supervisor.system.uptime import Uptime
from supervisor.workers.pool import WorkerPool
from supervisor.workers.shared_listeners import SharedListeners


class Parts:
    """``Parts(config)`` makes those that need no loop and no other part; the master sets the rest.

    Making them takes over what the master before this one left: ``left``.
    """

    admin: AdminLifecycle
    loop: asyncio.AbstractEventLoop
    tasks: Tasks
    notify: Notify
    shared: SharedListeners
    service_notifier: ServiceNotifier
    shutdown: Shutdown
    endpoints: EndpointTracker
    discovery_loop: DiscoveryLoop
    reloader: Reloader
    signals: SignalWatch
    upgrade: Upgrade

    def __init__(self, config: Config) -> None:
        self.config = config
        """In use; a reload replaces it."""
        self.listen: tuple[Address, ...] = ()
        """The listen addresses as literals; none until they are known."""
        self.workers_given = 0
        """How many workers the configuration asks for; 0 until the host was looked at."""
        self.resized_by = 0
        """What TTIN and TTOU asked for while there was no pool: workers more, or fewer."""
        self.ready = False
        """Whether every slot has had a worker that was ready."""
        self.keeps_workers = False
        """Whether the workers that a crash of the master left go on for good."""
        self.pool: WorkerPool | None = None
        """None until the first worker may be forked."""
        self.port_monitor: PortMonitor | None = None
        self.record: HandoverRecord | None = None
        """None without a service manager that keeps it."""
        self.image = describe()
        self.left = take_over(os.environ)
        state = self.left.state
        # An image that is gone back to was executed under the path of its own release.
        self.command = (state.command if state.failure else ()) or command()
        self.events = RecentEvents(state.events)
        self.log = make_log(config.log_level, config.log_format, tap=self.events.take)
        take_library_messages(self.log)
        self.tls = SharedTls(self.log)
        self.tls.certificates.ends.restore(state.certificates)
        self.uptime = Uptime(state.started_at, state.started_boot_s)
        self.totals = state.totals
        self.roster = Roster(state.snapshot_version)
        self.interim_admin = InterimAdmin()

    @property
    def worker_restarts(self) -> Mapping[str, int]:
        """Workers that were replaced, by reason, also under the images before this one."""
        return self.left.state.restarts if self.pool is None else self.pool.restarts

    def plan_workers(self) -> int:
        """How many workers there are to be when the pool starts."""
        given = self.workers_given or limits.given_workers(self.config.workers)
        slots = count_workers(self.left.state, given, restarted=self.left.restarted)
        return min(max(slots + self.resized_by, 1), MAX_SLOTS)

    def plan_more(self, by: int) -> int:
        """The same with so many more, as far as there may be."""
        before = self.plan_workers()
        after = min(max(before + by, 1), MAX_SLOTS)
        self.resized_by += after - before
        return after

    def share_out_files(self, open_files: int, *, workers: int) -> None:
        """Tell the parts how many descriptors each may use, beside so many workers."""
        shares = limits.share_out(open_files, workers=workers, listen=len(self.listen))
        self.endpoints.health.prober.queue.max_sockets = shares.probes
        self.discovery_loop.means.max_lookups = shares.lookups
        self.discovery_loop.means.max_handshakes = shares.handshakes
        self.admin.max_connections = shares.admin
