"""The start of the gateway: endpoints and listen addresses are found, then workers are forked.

A master that takes over from a former one serves clients from its first moment, by the former
workers. What would end the start of any other gateway is then logged, and tried again or left.
"""

from __future__ import annotations

import asyncio
import os

from gateway.core.outcome import EXHAUSTED
from gateway.process_title import set_title
from supervisor.admin.lifecycle import PATIENCE_S
from supervisor.admin.port_monitor import PortMonitor
from supervisor.core.discovery.targets import describe_targets
from supervisor.core.next_master import find_own
from supervisor.core.workers.worker_id import WorkerId
from supervisor.discovery.loop import NoEndpointsError
from supervisor.discovery.publication import STAYING
from supervisor.discovery.targets import BadTargetError
from supervisor.handover.record import RECORD_NAME, open_record
from supervisor.handover.upgrade import OLD_WORKERS_GO_ON
from supervisor.interim_admin import KIND as INTERIM_KIND
from supervisor.listen_search import ListenSearch
from supervisor.master_handover import MasterHandover
from supervisor.parts import Parts
from supervisor.system import kernel_calls, limits
from supervisor.system.connections import dial_as, find_foreign_source
from supervisor.system.orphans import OrphanReaper
from supervisor.workers.pool import Handlers, WorkerPool

RETRY_S = 5.0
"""With endpoints taken over from the image before us, unusable targets are tried again."""

STOP_WAITS_S = 5.0
"""The longest that a stop waits until the image has workers to drain, which it mostly has at once.
A start that waits for something has to end when it is asked to."""

UPGRADE_RETRY_S = 60.0
"""Until a start that failed beside the workers of a former master is gone on with."""

EXPECTED_ADDRESS = "expected in --listen-addr an address at which the gateway can listen"


class StartError(Exception):
    """The gateway cannot run on this host as it is; the text says why (exit code 1)."""


class Startup:
    """Starts ``parts``; owns the start's timers, and the reaper of orphans, until :meth:`close`.

    ``handlers`` are what the worker pool calls.
    """

    def __init__(self, parts: Parts, handover: MasterHandover, handlers: Handlers) -> None:
        self._parts = parts
        self._handover = handover
        self._handlers = handlers
        self.search = ListenSearch(parts)
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._orphans: OrphanReaper | None = None

    def check_host(self) -> None:
        """StartError: a system call is missing, or --source-addr is no address of this host."""
        if missing := kernel_calls.find_missing_call():
            raise StartError(missing)
        if self._parts.config.pin_workers and (why := kernel_calls.find_unpinnable()):
            self._object(OLD_WORKERS_GO_ON, why)
        dial_as(self._parts.config)
        if foreign := find_foreign_source(self._parts.config):
            self._object("cannot dial", foreign)

    def bind_admin(self) -> None:
        """Bind the admin address, and serve it if the start takes longer than PATIENCE_S.

        That of a former image is served at once: clients may wait for it already.
        AdminError: the address cannot be had.
        """
        parts = self._parts
        if parts.left.took_over:
            parts.admin.bind(parts.config.admin_addr, parts.left.take("admin"))
            parts.interim_admin.take_over(parts.left.take(INTERIM_KIND))
            self._open_admin()
        else:
            parts.admin.bind(parts.config.admin_addr)
        self._timers["admin"] = parts.loop.call_later(PATIENCE_S, self._open_admin)

    async def run(self) -> None:
        """Find the listen addresses and the endpoints, and fork the workers.

        It may take as long as DNS does. Raises StartError, OSError, and as :meth:`follow`.
        """
        parts = self._parts
        self._timers["stop"] = parts.loop.call_later(STOP_WAITS_S, parts.signals.let_in)
        parts.listen = await self.search.find()
        set_title("master", ",".join(str(address) for address in parts.listen))
        self._settle_size()
        state = parts.left.state
        # Also if DNS has denied everything: sessions go on in the workers of a former master.
        parts.endpoints.remember(state.found, state.removed, state.health, state.since)
        if state.found or state.discovery is not None:
            self._take_over_discovery()
            await self._open_listeners()
            self._start_pool()
        await self.follow()
        if parts.pool is None:
            await self._open_listeners()
            self._start_pool()

    async def follow(self) -> None:
        """Resolve for the first time. With endpoints at hand its failure is no reason to end.

        Else raises NoEndpointsError or BadTargetError.
        """
        parts = self._parts
        while True:
            try:
                await parts.discovery_loop.start(parts.listen)
            except (BadTargetError, NoEndpointsError) as error:
                if parts.pool is None:
                    raise
                parts.log.error(STAYING, error=str(error))
                await asyncio.sleep(RETRY_S)
            else:
                return

    def follow_later(self) -> None:
        """The start failed beside workers of a former master: go on with it in a minute."""
        parts = self._parts
        self._timers["begin"] = parts.loop.call_later(
            UPGRADE_RETRY_S, lambda: parts.tasks.start(self.follow(), "begin")
        )

    def close(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        if self._orphans is not None:
            self._orphans.close()

    # -- the steps ----------------------------------------------------------------------------

    def _object(self, msg: str, why: str) -> None:
        """End the start, or only log it where workers of a former master serve."""
        if not self._parts.left.took_over:
            raise StartError(why)
        self._parts.log.error(msg, error=why)

    def _open_admin(self) -> None:
        self._parts.tasks.start(self._parts.admin.open(), "admin")

    def _settle_size(self) -> None:
        """Settle how many workers there are to be, and share the host's open files out."""
        parts = self._parts
        open_files = limits.raise_open_files()
        parts.workers_given = limits.given_workers(parts.config.workers)
        slots = parts.plan_workers()
        parts.log.info(
            "starting",
            listen=[str(address) for address in parts.listen],
            workers=slots,
            open_files=open_files,
            max_sessions=parts.config.max_sessions,
        )
        listen = len(parts.listen)
        if obstacle := limits.find_obstacle(open_files, workers=slots, listen=listen):
            self._object(OLD_WORKERS_GO_ON, obstacle)
        parts.share_out_files(open_files, workers=slots)

    def _take_over_discovery(self) -> None:
        """The master before us knew endpoints a moment ago: serve with them until DNS answers.

        There may be none, because DNS had denied them all. The master before us went on then, and
        so does this one.
        """
        parts, state = self._parts, self._parts.left.state
        if state.discovery is not None:
            same = state.member_list_of == describe_targets(parts.config)
            adopted = state.member_list if same else None
            parts.discovery_loop.remember(
                state.discovery,
                adopted,
                state.found,
                tls_check=state.tls_check,
                searched=state.searched,
            )

    async def _open_listeners(self) -> None:
        """Open the UNIX sockets, and TCP sockets beside those of a former master.

        Beside workers that serve, a failure is one to try again.
        """
        parts = self._parts
        inherited = parts.left.inherited.shared_sockets()
        held = parts.left.state.held
        while True:
            try:
                parts.shared.take_over(parts.listen, inherited)
                await parts.shared.open(parts.listen)
                parts.left.inherited.fit_listeners(parts.listen, held=held)
            except OSError as error:
                if not parts.left.took_over:
                    if error.errno in EXHAUSTED:
                        raise
                    raise StartError(f"{error.strerror or error}; {EXPECTED_ADDRESS}") from error
                parts.log.error(OLD_WORKERS_GO_ON, error=str(error))
                inherited = []
                await asyncio.sleep(RETRY_S)
            else:
                return

    def _start_pool(self) -> None:
        """Fork the workers. From here on this master is responsible for what it took over."""
        parts = self._parts
        slots = parts.plan_workers()
        parts.left.inherited.identify()
        parts.port_monitor = PortMonitor(parts.listen, parts.log, parts.shared.renewed())
        kept = self._find_kept()
        parts.keeps_workers = bool(kept) and kept == parts.left.inherited.serving()
        # A start that fails before the commit is made again with all that was inherited.
        pool = WorkerPool(
            parts.config,
            parts.listen,
            parts.log,
            self._handlers,
            slots=slots,
            inherited=parts.left.inherited,
            shared=parts.shared,
            kept=kept,
            store=parts.notify,
        )
        parts.left.commit(os.environ)
        parts.totals.expect(parts.left.inherited.worker_ids(), pool.sessions_by_worker())
        pool.restarts.update(parts.left.state.restarts)
        parts.pool = pool
        parts.signals.let_in()
        self._timers["stop"].cancel()  # else it could let them in again while an upgrade holds them
        if parts.config.handover and parts.notify.enabled:
            parts.record = open_record(parts.notify, parts.log)
        else:
            parts.notify.remove(RECORD_NAME)  # of a master that was configured otherwise
        parts.shutdown.record = parts.record
        first = parts.endpoints.publish_from_now_on()
        self._handover.write_record()
        if parts.keeps_workers and parts.left.crashed:
            parts.log.info("the master before this one crashed, its workers go on")
        pool.start(first)
        self._orphans = OrphanReaper(parts.loop, self._owns_process, pid=os.getpid())
        self._orphans.start()

    def _find_kept(self) -> frozenset[WorkerId]:
        """The workers that are as good as new ones: a crash left them, or an upgrade was undone."""
        left, shared = self._parts.left, self._parts.shared
        serving = left.inherited.serving()
        if shared.made_anew or not left.inherited.is_whole(self._parts.listen):
            return frozenset()
        if left.is_crash_of(self._parts.image):
            return frozenset(serving)
        return find_own(left.state, serving, self._parts.config)

    def _owns_process(self, pid: int) -> bool:
        pool = self._parts.pool
        return (pool is not None and pool.owns(pid)) or self._parts.upgrade.owns(pid)
