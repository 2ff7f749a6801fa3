"""The master: composition root of the control plane.

Everything that happens (signals, child exits, messages, DNS answers, probe results, timers)
arrives here as a call on the one loop. ``core`` decides what is to be done about it; the parts do
it: worker pool, discovery loop, prober, service notifier and admin address. The master has one
thread, the standard asyncio loop, and nothing in it blocks.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import random
import signal
import socket
import sys
from collections.abc import Callable
from typing import assert_never

from gateway.core import messages
from gateway.core.address import Address
from gateway.process_title import set_title
from supervisor import __version__
from supervisor.admin.lifecycle import PATIENCE_S, AdminLifecycle
from supervisor.admin.port_monitor import PortMonitor
from supervisor.admin.recent_events import RecentEvents
from supervisor.admin.sockets import AdminError
from supervisor.core.admin.document import log_lines
from supervisor.core.admin.readiness import summary_of
from supervisor.core.admin.turned_away import TurnedAway
from supervisor.core.admin.views import GatewayView, endpoint_view
from supervisor.core.config import Config
from supervisor.core.discovery.endpoints import describe_targets
from supervisor.core.effective import to_document
from supervisor.core.exit_codes import EXIT_FAILURE, EXIT_NO_ENDPOINT, EXIT_USAGE
from supervisor.core.handover_state import HandoverState
from supervisor.core.roster import Roster
from supervisor.discovery.listen_addresses import wait_for_listen
from supervisor.discovery.loop import STAYING, DiscoveryLoop, NoEndpointsError
from supervisor.discovery.resolution import BadTargetError
from supervisor.endpoint_tracker import EndpointTracker
from supervisor.handover import preflight, upgrade
from supervisor.handover.crash_record import CrashRecord
from supervisor.handover.image import describe
from supervisor.handover.inherited_listen import find_listen
from supervisor.handover.service_notifier import ServiceNotifier
from supervisor.handover.state import take_over
from supervisor.handover.systemd import Notify, watchdog_interval_s
from supervisor.interim_admin import KIND as INTERIM_KIND
from supervisor.interim_admin import InterimAdmin, start_interim_admin
from supervisor.reloader import Reloader, Steps
from supervisor.session_lister import SessionLister
from supervisor.shutdown import Shutdown
from supervisor.system import kernel_calls, limits
from supervisor.system.certificate_watch import CertificateWatch
from supervisor.system.connections import dial_as, find_foreign_source
from supervisor.system.log import make_log, take_library_messages
from supervisor.system.orphans import OrphanReaper
from supervisor.system.patience import try_until_done
from supervisor.system.signals import SignalWatch
from supervisor.system.tasks import Tasks, make_loop
from supervisor.system.tls import TlsContexts
from supervisor.system.uptime import Uptime
from supervisor.workers.pool import Handlers, WorkerPool
from supervisor.workers.shared_listeners import SharedListeners

TICK_S = 1.0
"""Loads to the workers, the roster's expiries, the status line, more time for a long stop."""

RETRY_S = 5.0
"""With endpoints taken over from the image before us, unusable targets are tried again."""

UPGRADE_RETRY_S = 60.0
"""Until a start that failed beside the workers of a former master is gone on with."""

OLD_WORKERS_GO_ON = "upgrade failed, the old workers go on"

ACCEPT_FAILED = "socket.accept() out of system resource"
"""How asyncio's exception handler is told (``selector_events.py``)."""

FATAL_TASKS = ("begin", "leave")
"""Without these there is no gateway, or no end of it; others may fail without a session lost."""


def run(config: Config, reread: Callable[[], Config]) -> int:
    """Run the gateway until a signal or a failure ends it; returns the exit code.

    ``reread`` makes the configuration anew from the same command line, the environment and the
    file; it raises ConfigError.
    """
    if (document := preflight.handed_over(os.environ)) is not None:
        return _try_start(config, document)
    with asyncio.Runner(loop_factory=make_loop) as runner:
        return runner.run(Master(config, reread).main())


def _try_start(config: Config, document: int) -> int:
    """This process is the preflight of an upgrade: the reason goes to standard error."""
    from supervisor.handover import trial_start

    try:
        trial_start.run(config, document)
    except trial_start.TrialError as error:
        print(f"etcd-gateway: {error}", file=sys.stderr)
        return EXIT_FAILURE
    return 0


class Master:
    """Owns the parts and wires them; one instance per process."""

    def __init__(self, config: Config, reread: Callable[[], Config]) -> None:
        self._config = config
        self._image = describe()
        self._left = take_over(os.environ)
        left = self._left.state
        self._events = RecentEvents(left.events)
        self._log = make_log(config.log_level, config.log_format, tap=self._events.take)
        take_library_messages(self._log)
        self._tls_contexts = TlsContexts(self._log)
        self._certificates = CertificateWatch(self._log)
        self._certificates.ends.restore(left.certificates)
        self._uptime = Uptime(left.started_at, left.started_boot_s)
        self._totals = left.totals
        self._turned_away = TurnedAway(left.totals.turned_away())
        self._roster = Roster(left.snapshot_version)
        self._listen: tuple[Address, ...] = ()
        self._reread = reread
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._ready = False
        self._failed_with = 0
        self._failure = ""
        self._pool: WorkerPool | None = None
        self._orphans: OrphanReaper | None = None
        self._record: CrashRecord | None = None
        self._port_monitor: PortMonitor | None = None
        self._interim_admin: InterimAdmin | None = None
        self._admin = AdminLifecycle(
            self.view,
            self._log,
            names=lambda: self._config.admin_host,
            sessions=SessionLister(lambda: self._pool, lambda: self._listen).answer,
            before_serving=self._end_interim_admin,
        )

    async def main(self) -> int:
        """The whole life; the exit code."""
        self._loop = asyncio.get_running_loop()
        self._done: asyncio.Future[int] = self._loop.create_future()
        self._log.attach(self._loop)
        self._loop.set_exception_handler(self._on_exception)
        self._notify = Notify(os.environ.get("NOTIFY_SOCKET"))
        self._shared = SharedListeners(self._notify)
        self._service_notifier = ServiceNotifier(
            self._notify, summary=self._summary, healthy=self._is_healthy
        )
        self._tasks = Tasks(self._loop, self._on_task_failed)
        self._shutdown = Shutdown(self._log, self._notify, self._tasks, end=self._end)
        self._endpoints = EndpointTracker(
            self._loop,
            self._config,
            self._log,
            roster=self._roster,
            totals=self._totals,
            send=self._send,
            contexts=self._tls_contexts,
            certificates=self._certificates,
        )
        self._discovery_loop = DiscoveryLoop(
            self._config,
            self._log,
            self._endpoints.on_found,
            active_names=self._endpoints.active_names,
            on_list=self._write_record,
            contexts=self._tls_contexts,
            certificates=self._certificates,
        )
        self._reloader = Reloader(
            Steps(
                running=lambda: self._config,
                reread=self._reread,
                resolve=self._discovery_loop.reload,
                apply=self._apply,
                on_begin=self._on_reload,
                on_end=self._on_reloaded,
            ),
            self._log,
            view=self._left.state.reload,
        )
        self._signals = SignalWatch(self._loop, self._on_signal)
        self._signals.start()
        if self._signals.deaf:
            self._log.warn("SIGTTIN and SIGTTOU are ignored", error=self._signals.deaf)
        self._upgrade = upgrade.Upgrade(
            self._log,
            obstacle=self._find_obstacle,
            hand_over=self._hand_over,
            pause=self._pause,
            resume=self._resume,
            resume_signals=self._signals.resume,
        )
        self._tasks.start(self._begin(), "begin")
        try:
            return await self._done
        finally:
            await self._close()

    # -- the beginning ----------------------------------------------------------------------

    def _log_configuration(self) -> None:
        for name, meant in self._config.misspelled:
            self._log.warn("unknown variable", variable=name, did_you_mean=meant)
        for each in self._config.effective:
            self._log.debug(
                "configuration", flag=each.flag, value=each.value, source=each.source.value
            )
            for source, text in each.overrides:
                self._log.info(
                    "configuration overridden",
                    flag=each.flag,
                    value=each.value,
                    source=each.source.value,
                    ignored=text,
                    ignored_source=source.value,
                )

    async def _begin(self) -> None:
        """Resolve, then open the listen address; the rest follows when the workers are ready."""
        self._log_configuration()
        if self._left.state.failure:
            self._log.error(upgrade.FAILED, error=self._left.state.failure)
        try:
            if missing := kernel_calls.find_missing_call():
                self._fail(missing, EXIT_FAILURE)
                return
            dial_as(self._config)
            if foreign := find_foreign_source(self._config):
                if not self._left.took_over:
                    self._fail(foreign, EXIT_FAILURE)
                    return
                self._log.error("cannot dial", error=foreign)
            self._bind_admin()
            self._timers["admin"] = self._loop.call_later(
                PATIENCE_S, lambda: self._tasks.start(self._admin.open(), "admin")
            )
            self._tick()
            self._listen = await self._find_listen()
            title = ",".join(str(address) for address in self._listen)
            set_title("master", title)
            open_files = limits.raise_open_files()
            slots = self._left.state.workers or self._config.workers or limits.usable_cpus()
            slots = min(slots, messages.MAX_SLOTS)
            self._log.info(
                "starting",
                listen=[str(address) for address in self._listen],
                workers=slots,
                open_files=open_files,
                max_sessions=self._config.max_sessions,
            )
            listen = len(self._listen)
            if obstacle := limits.find_obstacle(open_files, workers=slots, listen=listen):
                if not self._left.took_over:
                    self._fail(obstacle, EXIT_FAILURE)
                    return
                self._log.error(OLD_WORKERS_GO_ON, error=obstacle)
            self._share_descriptors(open_files, workers=slots, listen=listen)
            if self._left.state.found:
                self._take_over_endpoints()
                await self._open_shared()
                self._start_pool(slots)
            await self._start_following()
            if self._pool is None:
                await self._open_shared()
                self._start_pool(slots)
        except NoEndpointsError as error:
            self._fail(str(error), EXIT_NO_ENDPOINT)
        except BadTargetError as error:
            self._fail(str(error), EXIT_USAGE)
        except AdminError as error:
            self._fail(str(error), EXIT_FAILURE)
        except OSError as error:
            self._fail(f"cannot start: {limits.describe_shortage(error)}", EXIT_FAILURE)

    def _share_descriptors(self, open_files: int, *, workers: int, listen: int) -> None:
        """Leave enough for workers: forks and messages from workers need descriptors too."""
        shares = limits.share_out(open_files, workers=workers, listen=listen)
        self._endpoints.health.prober.queue.max_sockets = shares.probes
        self._discovery_loop.max_lookups = shares.lookups
        self._discovery_loop.max_handshakes = shares.handshakes
        self._admin.max_connections = shares.admin

    def _bind_admin(self) -> None:
        if not self._left.took_over:
            self._admin.bind(self._config.admin_addr)
            return
        self._admin.bind(self._config.admin_addr, self._left.take("admin"))
        self._interim_admin = InterimAdmin.take_over(self._left.take(INTERIM_KIND))
        self._tasks.start(self._admin.open(), "admin")  # clients may wait for it already

    async def _end_interim_admin(self) -> None:
        interim, self._interim_admin = self._interim_admin, None
        if interim is not None:
            await interim.end()

    async def _pause_admin(self) -> None:
        """From here on another process answers, until the next image does, or this one again."""
        sockets = self._admin.sockets
        await self._admin.pause()
        if sockets and self._interim_admin is None:
            names = self._config.admin_host
            self._interim_admin = start_interim_admin(sockets, self.view(), self._log, names=names)

    async def _find_listen(self) -> tuple[Address, ...]:
        """Listen addresses as literals. What is bound already does not depend on DNS."""
        if self._left.state.listen:
            return await find_listen(self._config, self._left.state)
        return await wait_for_listen(
            self._config.listen_addr, self._config.nameserver, self._log, draw=random.randrange
        )

    async def _start_following(self) -> None:
        """The first resolution; with endpoints already at hand its failure is no reason to end."""
        while True:
            try:
                await self._discovery_loop.start(self._listen)
            except (BadTargetError, NoEndpointsError) as error:
                if self._pool is None:
                    raise
                self._log.error(STAYING, error=str(error))
                await asyncio.sleep(RETRY_S)
            else:
                return

    def _take_over_endpoints(self) -> None:
        """The image before us knew them a moment ago: serve with them until DNS answers."""
        state = self._left.state
        self._roster.remember(state.removed)
        self._endpoints.on_found(state.found)
        self._endpoints.health.remember(state.health)
        if state.discovery is not None:
            same = state.member_list_of == describe_targets(self._config)
            adopted = state.member_list if same else None
            self._discovery_loop.remember(state.discovery, adopted, state.found)

    async def _open_shared(self) -> None:
        """Open the UNIX sockets. Beside workers that serve, a failure is one to try again."""
        inherited = self._left.inherited.shared_sockets()
        while True:
            try:
                self._shared.take_over(self._listen, inherited)
                await self._shared.open(self._listen)
            except OSError as error:
                if not self._left.took_over:
                    raise
                self._log.error(OLD_WORKERS_GO_ON, error=str(error))
                inherited = []
                await asyncio.sleep(RETRY_S)
            else:
                return

    def _start_pool(self, slots: int) -> None:
        self._left.commit(os.environ)
        self._port_monitor = PortMonitor(self._listen, self._log)
        self._pool = pool = WorkerPool(
            self._config,
            self._listen,
            self._log,
            Handlers(
                on_message=self._on_message,
                on_ready=self._on_ready,
                on_upgrade_failed=self._on_upgrade_failed,
                on_worker_gone=self._totals.gone,
                on_change=self._service_notifier.show_status,
                on_end=self._end,
            ),
            slots=slots,
            inherited=self._left.inherited,
            shared=self._shared,
            keep_workers=self._left.is_crash_of(self._image),
            store=self._notify,
        )
        pool.restarts.update(self._left.state.restarts)
        self._shutdown.record = self._record = self._make_record()
        first = self._endpoints.publish_from_now_on()
        self._write_record()
        if self._left.is_crash_of(self._image):
            self._log.info("the master before this one crashed, its workers go on")
        pool.start(first)
        self._orphans = OrphanReaper(self._loop, self._owns_process, pid=os.getpid())
        self._orphans.start()

    def _make_record(self) -> CrashRecord | None:
        if not (self._config.handover and self._notify.enabled):
            return None
        try:
            return CrashRecord(self._notify)
        except OSError as error:
            self._log.warn("cannot record the state for a crash", error=str(error))
            return None

    def _write_record(self) -> None:
        if self._record is not None:
            self._record.write(self._hand_over())

    def _owns_process(self, pid: int) -> bool:
        return (self._pool is not None and self._pool.owns(pid)) or self._upgrade.owns(pid)

    def _on_ready(self) -> None:
        self._ready = True
        self._shared.drop_former()
        self._log.info(
            "ready to proxy client requests",
            endpoints=[member.found.name for member in self._roster.members],
            listen=[str(address) for address in self._listen],
            workers=self._pool.wanted if self._pool else 0,
        )
        self._tasks.start(self._after_ready(), "after ready")

    def _on_upgrade_failed(self, why: str = "the new workers end before they are ready") -> None:
        self._tasks.start(self._go_back(why), "go back")

    async def _go_back(self, why: str) -> None:
        await self._upgrade.go_back(self._left.state, why)
        self._log.error(OLD_WORKERS_GO_ON, error=why)

    async def _after_ready(self) -> None:
        interval_s = watchdog_interval_s(os.environ)
        await try_until_done(
            lambda: self._service_notifier.tell_ready(interval_s),
            self._log,
            msg="cannot tell the service manager, trying again",
        )
        self._reloader.resume()
        await self._admin.open()

    async def _pause(self) -> None:
        """Bring what cannot be handed over half done to an end before the next image starts."""
        await asyncio.gather(self._pause_admin(), self._endpoints.health.prober.queue.pause())

    async def _resume(self) -> None:
        """There is no next image: go on."""
        self._endpoints.health.prober.queue.resume()
        await self._admin.resume()

    # -- what happens while it runs -----------------------------------------------------------

    def _send(self, snapshot: messages.Snapshot) -> None:
        if self._pool is None:
            return
        self._write_record()
        self._pool.push(snapshot)
        self._service_notifier.show_status()
        self._discovery_loop.set_any_active(self._endpoints.any_active)

    def _on_message(self, slot: int, gen: int, message: messages.Up) -> None:
        match message:
            case messages.Report():
                self._totals.report(slot, gen, message)
            case messages.DialFailed(endpoint, address, result, error):
                self._endpoints.health.dial_failed(endpoint, address, error.lower(), result)
            case messages.DialSucceeded(endpoint, address):
                self._endpoints.health.dial_succeeded(endpoint, address)
            case messages.Drained(cut):
                self._shutdown.on_drained(cut)
            case (
                messages.Bound()
                | messages.Ready()
                | messages.Failed()
                | messages.Missed()
                | messages.SessionSlice()
                | messages.SessionDetails()
            ):
                pass  # the pool's business
            case _:
                assert_never(message)

    def _tick(self) -> None:
        """What is due about once a second."""
        self._timers["tick"] = self._loop.call_later(TICK_S, self._tick)
        if self._shutdown.draining or not self._ready:
            self._service_notifier.ask_patience()
        if self._tls_contexts.look():
            self._discovery_loop.check_tls_again()
            self._endpoints.health.prober.look_again()
        if self._pool is None:
            return
        if self._port_monitor is not None and not self._shutdown.draining:
            self._port_monitor.tick(self._pool.listener_inodes())
            self._port_monitor.look_at_files(self._shared.missing_files())
        counts, last = self._totals.turned_away(), self._totals.last_turned_away
        for told in self._turned_away.tell(counts, last, self._loop.time()):
            self._log.warn(told.msg, clients=told.clients, last=told.last)
        sessions = self._endpoints.on_tick()
        self._discovery_loop.set_any_active(self._endpoints.any_active)
        if self._config.balance == "least-sessions":
            self._pool.push_loads(messages.Loads(sessions, self._totals.sessions_by_address()))
        for (slot, gen), order in self._endpoints.rebalance():
            self._pool.give_up(slot, gen, order)
        self._service_notifier.show_status()

    # -- signals ----------------------------------------------------------------------------

    def _on_signal(self, number: signal.Signals) -> None:
        match number:
            case signal.SIGHUP:
                self._ask_reload()
            case signal.SIGUSR1:
                self._log_status()
            case signal.SIGUSR2:
                self._tasks.start(self._upgrade.attempt(), "upgrade")
            case signal.SIGTTIN:
                self._resize(+1)
            case signal.SIGTTOU:
                self._resize(-1)
            case _:
                self._shutdown.on_signal(
                    number,
                    self._pool,
                    now=self._loop.time(),
                    handover=self._config.handover,
                    drain_timeout_s=self._config.drain_timeout_s,
                )
                self._admin.forget_view()

    def _resize(self, by: int) -> None:
        if self._pool is None or self._shutdown.draining:
            return
        before, after = self._pool.wanted, self._pool.resize(by)
        self._write_record()
        if after == before:
            self._log.warn("number of workers unchanged", workers=after, most=messages.MAX_SLOTS)
        else:
            self._log.info("number of workers changed", workers=after)

    def _log_status(self) -> None:
        for msg, fields in log_lines(self.view()):
            self._log.info(msg, **fields)

    def _find_obstacle(self) -> str:
        """What is in the way of an upgrade; "" if nothing is."""
        if self._shutdown.draining:
            return "draining"
        if self._ready or (self._pool is not None and self._left.took_over):
            return ""  # after an upgrade that failed, the next one is the way out
        return "starting"

    def _hand_over(self) -> HandoverState:
        """Everything that this image holds and knows, for the next one."""
        pool = self._pool
        assert pool is not None  # noqa: S101 (for the type checker: it is ready)
        part = pool.hand_over()
        present = [member for member in self._roster.members if member.removed_at is None]
        health = self._endpoints.health.export(each.found.name for each in present)
        return HandoverState(
            descriptors=part.descriptors
            | self._admin.named_descriptors()
            | (self._interim_admin.named_descriptors() if self._interim_admin else {})
            | self._left.others,
            workers=part.workers,
            gens=part.gens,
            draining=part.draining,
            totals=self._totals,
            started_at=self._uptime.started_at,
            started_boot_s=self._uptime.started_boot_s,
            snapshot_version=self._roster.version,
            found=tuple(member.found for member in present),
            removed=self._roster.removed,
            health={name: view for name, view in health.items() if view is not None},
            certificates=self._certificates.ends.export(),
            discovery=self._discovery_loop.view,
            member_list=self._discovery_loop.adopted,
            member_list_of=describe_targets(self._config),
            reload=self._reloader.view,
            restarts=dict(pool.restarts),
            events=self._events.all(),
            listen_given=tuple(map(str, self._config.listen_addr)),
            listen=tuple(map(str, self._listen)),
            admin=tuple(self._config.admin_addr),
            image=self._image,
        )

    # -- reload -----------------------------------------------------------------------------

    def _ask_reload(self) -> None:
        if self._shutdown.draining:
            self._log.warn("no reload now", reason="draining")
        elif self._pool is None:
            self._log.info("the reload follows the start")
            self._reloader.remember()
            self._discovery_loop.refresh()  # a start that waits for DNS need not wait any longer
        else:
            self._reloader.ask()

    def _on_reload(self) -> None:
        self._admin.forget_view()
        self._notify.reloading()

    def _apply(self, config: Config) -> None:
        self._config = config
        self._log.set_level(config.log_level)
        self._tls_contexts.retain(
            (config.trusted_ca_file, config.health_cert_file, config.health_key_file)
        )
        self._log_configuration()
        if self._pool is not None:
            self._pool.reconfigure(config)
        self._endpoints.reconfigure(config)

    def _on_reloaded(self, error: str | None) -> None:
        self._admin.forget_view()
        self._service_notifier.tell_reloaded(error)

    # -- what others see --------------------------------------------------------------------

    def view(self) -> GatewayView:
        """All of it at this moment."""
        pool, port_monitor = self._pool, self._port_monitor
        slots = pool.wanted if pool else 0
        certificates = self._certificates.ends.by_endpoint()
        return GatewayView(
            version=__version__,
            pid=os.getpid(),
            started_at=self._uptime.started_at,
            uptime_s=self._uptime.seconds(),
            host=socket.gethostname(),
            started=self._ready,
            draining=self._shutdown.draining,
            drain_deadline_s=self._shutdown.deadline_s(self._loop.time()),
            slots=slots,
            listen=tuple(str(address) for address in self._listen),
            snapshot_version=self._roster.version,
            discovery=self._discovery_loop.view,
            reload=self._reloader.view,
            endpoints=tuple(
                endpoint_view(
                    member,
                    self._endpoints.health.view(member.found.name),
                    self._endpoints.health.address_views(member.found.name),
                    certificates.get(member.found.name),
                )
                for member in self._roster.members
            ),
            workers=tuple(
                dataclasses.replace(
                    each, sessions_total=self._totals.worker_sessions_total(each.slot, each.gen)
                )
                for each in (pool.view() if pool else ())
            ),
            sums=self._totals.sums(),
            worker_restarts=pool.restarts if pool else {},
            events=self._events.all(),
            configuration=to_document(self._config.effective),
            foreign_listeners=port_monitor.foreign_listeners if port_monitor else (),
            limits={
                "workers": slots,
                "max_sessions": self._config.max_sessions,
                "open_files": limits.open_files(),
            },
        )

    def _summary(self) -> str:
        states = [member.state for member in self._roster.members]
        workers = self._pool.view() if self._pool else ()
        foreign_listeners = self._port_monitor is not None and bool(
            self._port_monitor.foreign_listeners
        )
        return summary_of(
            states, workers, self._totals.live_sessions, foreign_listeners=foreign_listeners
        )

    def _is_healthy(self) -> bool:
        """That this is asked proves that the loop turns; the rest is the workers' part."""
        return self._shutdown.draining or (self._pool is not None and self._pool.any_live)

    # -- the end ----------------------------------------------------------------------------

    def _on_task_failed(self, name: str, error: BaseException) -> None:
        if name in FATAL_TASKS:
            self._fail(f"internal error in {name}: {error!r}", EXIT_FAILURE)
        else:
            self._log.error("internal error", task=name, error=repr(error))

    def _fail(self, text: str, code: int) -> None:
        """End with this code; the log says ``text`` when everything else has been said."""
        if self._pool is not None and self._left.took_over and not self._shutdown.draining:
            # Workers of a former master serve: that is worth more than an exit code.
            self._on_upgrade_failed(text)
            self._timers["begin"] = self._loop.call_later(
                UPGRADE_RETRY_S, lambda: self._tasks.start(self._start_following(), "begin")
            )
            return
        self._failed_with = code
        self._failure = text
        if self._pool is None:
            self._end(code)
        else:
            self._log.error(text)
            self._pool.stop_now()

    def _end(self, code: int) -> None:
        if code and self._pool is not None:
            self._failure = self._failure or self._pool.failure
        if not self._done.done():
            self._done.set_result(code or self._failed_with)

    async def _close(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        if self._orphans is not None:
            self._orphans.close()
        await self._tasks.cancel()
        self._reloader.cancel()
        await self._admin.close()
        await asyncio.gather(self._discovery_loop.close(), self._endpoints.close())
        if self._pool is None:
            if not self._left.took_over:
                self._shared.remove_files()
            self._shared.close()
        self._service_notifier.close()
        if self._record is not None:
            self._record.close()
        self._shutdown.close()
        if self._failure:  # the last line says why: people look there first
            self._log.error(self._failure)
        self._log.close()
        self._signals.close()

    def _on_exception(self, _loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        """A bug must cost one event, not the gateway."""
        error = context.get("exception")
        if isinstance(error, OSError) and context.get("message") == ACCEPT_FAILED:
            # Only the admin address accepts on this loop. asyncio tries again a second later.
            self._log.warn("cannot accept at the admin address", error=error.strerror)
            return
        self._log.error("internal error", error=repr(error or context.get("message")))
