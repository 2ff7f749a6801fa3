"""The master: composition root of the control plane, from its first part to its exit code.

Everything that happens (signals, child exits, messages, DNS answers, probe results, timers)
arrives here as a call on the one loop. ``core`` decides what is to be done about it; the parts do
it: worker pool, discovery loop, prober, service notifier and admin address. The master has one
thread, the standard asyncio loop, and nothing in it blocks.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from typing import assert_never

from gateway.core import messages
from gateway.core.outcome import EXHAUSTED
from supervisor.admin.lifecycle import AdminLifecycle
from supervisor.admin.sockets import AdminError
from supervisor.configuration import apply_configuration, log_configuration
from supervisor.core.config import Config
from supervisor.core.exit_codes import EXIT_FAILURE, EXIT_NO_ENDPOINT, EXIT_USAGE
from supervisor.core.reload_rules import FIXED, FIXED_FROM_THE_BEGINNING
from supervisor.core.workers.worker_id import WorkerId
from supervisor.discovery.loop import DiscoveryLoop, NoEndpointsError
from supervisor.discovery.targets import BadTargetError
from supervisor.endpoint_tracker import EndpointTracker
from supervisor.gateway_view import find_unreadiness, make_view, summarize
from supervisor.handover import preflight, upgrade
from supervisor.handover.service_notifier import ServiceNotifier
from supervisor.handover.systemd import Notify, watchdog_interval_s
from supervisor.master_handover import MasterHandover
from supervisor.parts import Parts
from supervisor.reloader import Reloader, Steps
from supervisor.session_lister import SessionLister
from supervisor.shutdown import Shutdown
from supervisor.signal_actions import SignalActions
from supervisor.startup import StartError, Startup
from supervisor.system import limits
from supervisor.system.patience import try_until_done
from supervisor.system.signals import STOP, SignalWatch
from supervisor.system.tasks import Tasks, run_in_loop
from supervisor.system.unix_listener import CANNOT_REMOVE
from supervisor.upkeep import Upkeep
from supervisor.workers.pool import Handlers
from supervisor.workers.shared_listeners import SharedListeners

ACCEPT_FAILED = "socket.accept() out of system resource"
"""How asyncio's exception handler is told (``selector_events.py``)."""

USED_S = 5.0
"""How long a reload waits for the workers to say that they use it; they do with their next beat."""

LOOK_AGAIN_S = 0.01

FATAL_TASKS = ("begin", "leave")
"""Without these there is no gateway, or no end of it; others may fail without a session lost."""


def run(config: Config, reread: Callable[[], Config]) -> int:
    """Run the gateway until a signal or a failure ends it; returns the exit code.

    ``reread`` makes the configuration anew from the same command line, the environment and the
    file; it raises ConfigError.
    """
    if (document := preflight.handed_over(os.environ)) is not None:
        return _try_start(config, document)
    return run_in_loop(lambda: Master(config, reread).main())


def _try_start(config: Config, document: int) -> int:
    """This process is the preflight of an upgrade: the reason goes to standard error."""
    from supervisor.handover import trial_start

    try:
        trial_start.run(config, document)
    except trial_start.TrialError as error:
        print(f"etcd-gateway: {error}", file=sys.stderr)
        return EXIT_FAILURE
    print(f"etcd-gateway: {preflight.PASSED}", file=sys.stderr)
    return 0


class Master:
    """Owns the parts and connects them; one instance per process."""

    def __init__(self, config: Config, reread: Callable[[], Config]) -> None:
        self._reread = reread
        self._parts = Parts(config)
        self._handover = MasterHandover(self._parts)
        self._upkeep = Upkeep(self._parts, self._handover.write_record)
        self._failed_with = 0
        self._failure = ""

    async def main(self) -> int:
        """The whole life; the exit code."""
        self._done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._connect(asyncio.get_running_loop())
        self._parts.tasks.start(self._begin(), "begin")
        try:
            return await self._done
        finally:
            await self._close()

    # -- the parts ----------------------------------------------------------------------------

    def _connect(self, loop: asyncio.AbstractEventLoop) -> None:
        """Make the parts that need the loop, or each other, in the order of that need."""
        parts = self._parts
        parts.loop = loop
        parts.log.attach(loop)
        loop.set_exception_handler(self._on_exception)
        parts.admin = self._make_admin()
        parts.notify = Notify(os.environ.get("NOTIFY_SOCKET"))
        if parts.notify.failure:
            parts.log.warn("cannot reach the service manager", error=parts.notify.failure)
        parts.shared = SharedListeners(parts.notify, self._tell_left)
        parts.service_notifier = ServiceNotifier(
            parts.notify,
            summary=lambda: summarize(parts),
            healthy=self._is_healthy,
            reloading=parts.left.goes_back and parts.left.state.reload.under_way,
        )
        parts.tasks = Tasks(loop, self._on_task_failed)
        parts.shutdown = Shutdown(
            parts.log, parts.notify, parts.tasks, end=self._end, state=self._handover.state
        )
        parts.endpoints = self._make_endpoints()
        parts.discovery_loop = self._make_discovery_loop()
        parts.reloader = self._make_reloader()
        actions = SignalActions(
            parts, self._handover, is_looking=lambda: self._startup.search.is_on
        )
        parts.signals = SignalWatch(loop, actions.act)
        # Workers of the image before serve. Until they are ours to drain, a stop would only end us.
        parts.signals.start(waiting=STOP if parts.left.goes_back else ())
        if parts.signals.deaf:
            parts.log.warn("SIGTTIN and SIGTTOU are ignored", error=parts.signals.deaf)
        parts.upgrade = upgrade.Upgrade(
            parts.log,
            obstacle=self._handover.find_obstacle,
            hand_over=self._handover.state,
            pause=self._handover.pause,
            resume=self._handover.resume,
            resume_signals=parts.signals.resume,
        )
        self._startup = Startup(parts, self._handover, self._make_handlers())

    def _make_admin(self) -> AdminLifecycle:
        parts = self._parts
        return AdminLifecycle(
            lambda: make_view(parts),
            parts.log,
            unready=lambda: find_unreadiness(parts),
            names=lambda: parts.config.admin_host,
            sessions=SessionLister(lambda: parts.pool, lambda: parts.listen).answer,
            before_serving=parts.interim_admin.end,
        )

    def _make_endpoints(self) -> EndpointTracker:
        parts = self._parts
        return EndpointTracker(
            parts.loop,
            parts.config,
            parts.log,
            roster=parts.roster,
            totals=parts.totals,
            send=self._send,
            record=self._handover.write_record,
            shared_tls=parts.tls,
        )

    def _make_discovery_loop(self) -> DiscoveryLoop:
        parts = self._parts
        return DiscoveryLoop(
            parts.config,
            parts.log,
            parts.endpoints.on_found,
            active_names=parts.endpoints.active_names,
            on_list=self._handover.write_record,
            shared_tls=parts.tls,
        )

    def _make_reloader(self) -> Reloader:
        parts = self._parts
        return Reloader(
            Steps(
                running=lambda: parts.config,
                reread=self._reread,
                fixed=lambda: FIXED_FROM_THE_BEGINNING if self._startup.search.is_on else FIXED,
                resolve=self._resolve,
                apply=lambda config: apply_configuration(parts, config),
                on_begin=self._on_reload,
                on_end=self._on_reloaded,
            ),
            parts.log,
            view=parts.left.state.reload,
        )

    async def _resolve(self, config: Config, on_taken: Callable[[], None]) -> None:
        """Resolve the targets of a new configuration; a start that is not so far yet takes it.

        It is over when the workers use it: who was told that may rely on it.
        """
        if self._startup.search.is_on:
            await self._startup.search.go_on_with(config, on_taken)
        else:
            await self._parts.discovery_loop.reload(config, on_taken)
            await self._await_workers()

    async def _await_workers(self) -> None:
        """Wait until the workers use what is new; those that hang will when they go on."""
        parts = self._parts
        until = parts.loop.time() + USED_S
        await asyncio.sleep(0)  # it is published before the loop goes on
        version = parts.roster.version
        while parts.pool is not None and not parts.pool.uses(version):
            if parts.loop.time() >= until:
                return
            await asyncio.sleep(LOOK_AGAIN_S)

    def _make_handlers(self) -> Handlers:
        return Handlers(
            on_message=self._on_message,
            on_ready=self._on_ready,
            on_upgrade_failed=self._on_upgrade_failed,
            on_worker_gone=self._parts.totals.gone,
            on_workers=self._handover.write_record,
            on_change=self._parts.service_notifier.show_status,
            on_end=self._end,
        )

    # -- the beginning ------------------------------------------------------------------------

    async def _begin(self) -> None:
        """Resolve, then open the listen address; the rest follows when the workers are ready."""
        parts, startup = self._parts, self._startup
        if parts.left.goes_back:
            parts.service_notifier.feed_watchdog(watchdog_interval_s(os.environ))
        log_configuration(parts.config, parts.log)
        if parts.left.state.failure:
            parts.log.error(upgrade.FAILED, error=parts.left.state.failure)
        try:
            startup.check_host()
            startup.bind_admin()
            self._upkeep.start()
            await startup.run()
        except NoEndpointsError as error:
            self._fail(str(error), EXIT_NO_ENDPOINT)
        except BadTargetError as error:
            self._fail(str(error), EXIT_USAGE)
        except (StartError, AdminError) as error:
            self._fail(str(error), EXIT_FAILURE)
        except OSError as error:
            self._fail(f"cannot start: {limits.describe_shortage(error)}", EXIT_FAILURE)

    def _on_ready(self) -> None:
        parts = self._parts
        parts.ready = True
        parts.shared.drop_former()
        parts.log.info(
            "ready to proxy client requests",
            endpoints=[member.found.name for member in parts.roster.members],
            listen=[str(address) for address in parts.listen],
            workers=parts.pool.wanted if parts.pool else 0,
        )
        self._handover.write_record()
        parts.tasks.start(self._after_ready(), "after ready")

    async def _after_ready(self) -> None:
        parts = self._parts
        await try_until_done(
            parts.service_notifier.tell_ready,
            parts.log,
            msg="cannot tell the service manager, trying again",
        )
        parts.service_notifier.feed_watchdog(watchdog_interval_s(os.environ))
        parts.reloader.resume()
        parts.tasks.start(parts.upgrade.catch_up(), "upgrade")
        await parts.admin.open()

    def _on_upgrade_failed(self, why: str = "the new workers end before they are ready") -> None:
        self._parts.tasks.start(self._go_back(why), "go back")

    async def _go_back(self, why: str) -> None:
        parts = self._parts
        await parts.upgrade.go_back(parts.left, why)
        if not parts.shutdown.draining:
            parts.log.error(upgrade.OLD_WORKERS_GO_ON, error=why)
        await parts.upgrade.catch_up()

    # -- what happens while it runs -----------------------------------------------------------

    def _send(self, snapshot: messages.Snapshot) -> None:
        parts = self._parts
        if parts.pool is None:
            return
        self._handover.write_record()
        parts.pool.push(snapshot)
        parts.service_notifier.show_status()
        parts.discovery_loop.set_any_active(parts.endpoints.any_active)

    def _on_message(self, who: WorkerId, message: messages.Up) -> None:
        health = self._parts.endpoints.health
        match message:
            case messages.Report():
                self._parts.totals.report(who, message)
            case messages.DialFailed(endpoint, address, result, error):
                health.dial_failed(endpoint, address, error.lower(), result)
            case messages.DialSucceeded(endpoint, address):
                health.dial_succeeded(endpoint, address)
            case messages.Drained(cut):
                self._parts.shutdown.on_drained(cut)
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

    def _is_healthy(self) -> bool:
        """That this is asked proves that the loop turns; the rest is the workers' part.

        Before there is a pool, those of a former image serve, and nobody here knows more of them.
        """
        pool = self._parts.pool
        if pool is None:
            return self._parts.left.took_over
        return self._parts.shutdown.draining or pool.any_live

    def _on_reload(self) -> None:
        self._parts.admin.forget_view()
        self._parts.service_notifier.tell_reloading()

    def _on_reloaded(self, error: str | None) -> None:
        self._parts.admin.forget_view()
        self._handover.write_record()
        self._parts.service_notifier.tell_reloaded(error)

    # -- the end ------------------------------------------------------------------------------

    def _tell_left(self, path: str, why: str) -> None:
        self._parts.log.warn(CANNOT_REMOVE, path=path, error=why)

    def _on_task_failed(self, name: str, error: BaseException) -> None:
        if name in FATAL_TASKS:
            self._fail(f"internal error in {name}: {error!r}", EXIT_FAILURE)
        else:
            self._parts.log.error("internal error", task=name, error=repr(error))

    def _on_exception(self, _loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        """A bug must cost one event, not the gateway."""
        error, log = context.get("exception"), self._parts.log
        if isinstance(error, OSError) and context.get("message") == ACCEPT_FAILED:
            # Only the admin address accepts on this loop. asyncio tries again a second later.
            log.warn("cannot accept at the admin address", error=error.strerror)
            return
        text = repr(error or context.get("message"))
        if isinstance(error, OSError) and error.errno in EXHAUSTED:
            text = limits.describe_shortage(error)
        log.error("internal error", error=text)

    def _fail(self, text: str, code: int) -> None:
        """End with this code; the log says ``text`` when everything else has been said."""
        parts = self._parts
        if parts.pool is not None and parts.left.took_over and not parts.shutdown.draining:
            # Workers of a former master serve: that is worth more than an exit code.
            self._on_upgrade_failed(text)
            self._startup.follow_later()
            return
        self._failed_with = code
        self._failure = text
        if parts.pool is None:
            self._end(code)
        else:
            parts.log.error(text)
            parts.pool.stop_now()

    def _end(self, code: int) -> None:
        pool = self._parts.pool
        if code and pool is not None:
            self._failure = self._failure or pool.failure
        if not self._done.done():
            self._done.set_result(code or self._failed_with)

    async def _close(self) -> None:
        parts = self._parts
        self._upkeep.close()
        self._startup.close()
        await parts.tasks.cancel()
        parts.reloader.cancel()
        if parts.left.goes_back and self._failed_with:
            parts.admin.leave_open()
            parts.shared.leave_open()
        await parts.admin.close()
        await asyncio.gather(parts.discovery_loop.close(), parts.endpoints.close())
        if parts.pool is None:
            if parts.left.has_sockets:
                parts.shared.close()
            else:  # nobody is to find them at the next start either
                parts.shared.shut()
        parts.service_notifier.close()
        if parts.record is not None:
            parts.record.close()
        parts.shutdown.close()
        if self._failure:  # the last line says why: people look there first
            parts.log.error(self._failure)
        parts.log.close()
        parts.signals.close()
