"""The master: composition root of the control plane.

Everything that happens (signals, child exits, messages, DNS answers, probe results, timers)
arrives here as a call on the one loop; what is to be done about it is decided in ``core`` and done
by the parts: crew (workers), follower (discovery), prober (health), notify (the service manager)
and admin. One thread, the standard asyncio loop, nothing that blocks.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, assert_never

import setproctitle

from gateway.core import messages
from gateway.core.address import HostPort
from gateway.core.endpoint import EndpointState
from supervisor import limits
from supervisor.core.config import Config, ConfigError
from supervisor.core.discovery import Discovered
from supervisor.core.health import HealthView
from supervisor.core.reloading import keep_fixed, worker_settings
from supervisor.core.roster import Roster
from supervisor.core.status import GatewayView, ReloadView, document
from supervisor.core.totals import Totals
from supervisor.crew import Crew, Handlers
from supervisor.follower import Follower, NoEndpointsError, ReloadFailedError, resolve_listen
from supervisor.log import make_log
from supervisor.overview import Events, Overview
from supervisor.prober import Prober
from supervisor.rounds import BadTargetError

if TYPE_CHECKING:
    from supervisor.admin import Admin

TICK_S = 1.0
"""Loads to the workers, the roster's expiries, the status line."""

EXIT_FAILURE, EXIT_USAGE, EXIT_NO_ENDPOINT = 1, 2, 69

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


def run(config: Config, reread: Callable[[], Config]) -> int:
    """Run the gateway until a signal or a failure ends it; returns the exit code.

    ``reread`` makes the configuration anew from the same command line, the environment and the
    file; it raises ConfigError.
    """
    with asyncio.Runner() as runner:
        return runner.run(Master(config, reread).main())


class Master:
    """Owns the parts and wires them; one instance per process."""

    def __init__(self, config: Config, reread: Callable[[], Config]) -> None:
        self._config = config
        self._reread = reread
        self._events = Events()
        self._log = make_log(config.log_level, config.log_format, tap=self._events.take)
        self._overview = Overview()
        self._roster = Roster()
        self._totals = Totals()
        self._listen: tuple[HostPort, ...] = ()
        self._reload = ReloadView()
        self._reloads: Counter[str] = Counter()
        self._reload_wanted = False
        self._reload_task: asyncio.Task[None] | None = None
        self._ready = False
        self._draining = False
        self._crew: Crew | None = None
        self._admin: Admin | None = None

    async def main(self) -> int:
        """The whole life; the exit code."""
        self._loop = asyncio.get_running_loop()
        self._done: asyncio.Future[int] = self._loop.create_future()
        self._log.attach(self._loop)
        self._loop.set_exception_handler(self._on_exception)
        self._watch_signals()
        self._follower = Follower(self._config, self._log, self._on_found)
        self._prober = Prober(self._config, self._log, self._on_health)
        begin = asyncio.create_task(self._begin(), name="begin")
        begin.add_done_callback(self._on_begun)
        try:
            return await self._done
        finally:
            begin.cancel()
            await self._close()

    # -- the beginning ----------------------------------------------------------------------

    async def _begin(self) -> None:
        """Resolve, then open the listen address, then be ready."""
        self._listen = await resolve_listen(self._config.listen_addr)
        title = ",".join(str(address) for address in self._listen)
        setproctitle.setproctitle(f"etcd-gateway: master [{title}]")
        slots = self._config.workers or limits.usable_cpus()
        open_files = limits.raise_open_files()
        self._log.info(
            "starting",
            listen=[str(address) for address in self._listen],
            workers=slots,
            open_files=open_files,
            max_sessions=self._config.max_sessions,
        )
        await self._follower.start()
        self._crew = Crew(
            self._config,
            self._listen,
            self._log,
            Handlers(
                on_message=self._on_message,
                on_ready=self._on_ready,
                on_worker_gone=self._totals.gone,
                on_change=self._on_crew_change,
                on_end=self._end,
            ),
            slots=slots,
        )
        self._crew.start(self._roster.snapshot(worker_settings(self._config)))
        self._tick()

    def _on_begun(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            return
        match task.exception():
            case None:
                pass
            case NoEndpointsError() as error:
                self._fail(str(error), EXIT_NO_ENDPOINT)
            case BadTargetError() | ConfigError() as error:
                self._fail(str(error), EXIT_USAGE)
            case OSError() as error:
                self._fail(str(error), EXIT_FAILURE)
            case error:
                self._log.error("internal error", error=repr(error))
                self._end(EXIT_FAILURE)

    def _on_ready(self) -> None:
        self._ready = True
        self._log.info(
            "ready to proxy client requests",
            endpoints=[member.found.name for member in self._roster.members],
            listen=[str(address) for address in self._listen],
            workers=self._crew.wanted if self._crew else 0,
        )
        self._loop.create_task(self._open_admin(), name="open admin")

    async def _open_admin(self) -> None:
        """Only now: its libraries are imported by nobody else, and the workers are up."""
        if not self._config.admin_addr:
            return
        from supervisor.admin import Admin
        from supervisor.admin_socket import AdminError

        admin = Admin(self._config.admin_addr, self.view, self._log)
        try:
            await admin.start()
        except AdminError as error:
            self._fail(str(error), EXIT_FAILURE)
            return
        self._admin = admin
        self._log.info("admin address is open", admin=list(admin.served))

    # -- endpoints --------------------------------------------------------------------------

    def _on_found(self, found: tuple[Discovered, ...]) -> None:
        self._roster.resolve(found, self._loop.time(), self._config.removal_grace_s)
        self._prober.set_endpoints(found)
        self._push()

    def _on_health(self, name: str, view: HealthView) -> None:
        active = view.state is EndpointState.ACTIVE
        if self._roster.judge(name, active, self._loop.time()):
            self._push()
        if not any(m.state is EndpointState.ACTIVE for m in self._roster.members):
            self._follower.refresh("all-inactive")

    def _push(self) -> None:
        """Send the workers what they do not have yet; nothing if nothing changed."""
        before = self._roster.version
        snapshot = self._roster.snapshot(worker_settings(self._config))
        if self._crew is not None and snapshot.version != before:
            self._totals.retain([each.name for each in snapshot.endpoints])
            self._crew.push(snapshot)

    def _on_message(self, slot: int, gen: int, message: messages.Up) -> None:
        match message:
            case messages.Report():
                self._totals.report(slot, gen, message)
            case messages.DialFailed(endpoint, address, result, error):
                self._prober.dial_failed(endpoint, f"{address}: {error}", result)
            case messages.DialSucceeded(endpoint):
                self._prober.dial_succeeded(endpoint)
            case messages.Bound() | messages.Ready() | messages.Failed() | messages.Drained():
                pass  # the crew's business
            case _:
                assert_never(message)

    def _tick(self) -> None:
        """What is due about once a second."""
        self._ticker = self._loop.call_later(TICK_S, self._tick)
        sums = self._totals.sums()
        for member in self._roster.members:
            entry = sums.endpoints.get(member.found.name)
            self._roster.sessions(member.found.name, entry.sessions if entry else 0)
        self._roster.expire(self._loop.time())
        self._push()
        if self._config.balance == "least-sessions" and self._crew is not None:
            sessions = {name: entry.sessions for name, entry in sums.endpoints.items()}
            self._crew.push_loads(messages.Loads(sessions))

    # -- signals ----------------------------------------------------------------------------

    def _watch_signals(self) -> None:
        for number in STOP_SIGNALS:
            self._loop.add_signal_handler(number, self._stop, number)
        self._loop.add_signal_handler(signal.SIGHUP, self._want_reload)
        self._loop.add_signal_handler(signal.SIGUSR1, self._log_status)
        self._loop.add_signal_handler(signal.SIGTTIN, self._resize, +1)
        self._loop.add_signal_handler(signal.SIGTTOU, self._resize, -1)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)

    def _stop(self, number: signal.Signals) -> None:
        """The first one drains, the second one stops at once."""
        if self._crew is None:
            self._end(0)
        elif self._draining:
            self._log.info("stopping at once", signal=number.name)
            self._crew.stop_now()
        else:
            self._draining = True
            self._log.info(
                "draining", signal=number.name, drain_timeout_s=self._config.drain_timeout_s
            )
            self._crew.drain(self._config.drain_timeout_s)

    def _resize(self, by: int) -> None:
        if self._crew is not None and not self._draining:
            self._log.info("number of workers changed", workers=self._crew.resize(by))

    def _log_status(self) -> None:
        self._log.info("status", **document(self.view()))

    # -- reload -----------------------------------------------------------------------------

    def _want_reload(self) -> None:
        """Signals that come while a reload is at work ask for one more, and only one."""
        self._reload_wanted = True
        if self._reload_task is None and self._crew is not None and not self._draining:
            self._reload_task = self._loop.create_task(self._reload_all(), name="reload")

    async def _reload_all(self) -> None:
        try:
            while self._reload_wanted:
                self._reload_wanted = False
                await self._reload_once()
        finally:
            self._reload_task = None

    async def _reload_once(self) -> None:
        try:
            config, in_vain = keep_fixed(self._config, self._reread())
            await self._follower.reload(config)
        except (ConfigError, ReloadFailedError) as error:
            self._log.error("reload failed", error=str(error))
            self._reloaded("failed", str(error))
            return
        self._config = config
        self._log.set_level(config.log_level)
        self._prober.reconfigure(config)
        if self._crew is not None:
            self._crew.reconfigure(config)
        self._push()
        self._log.info("reload complete", **({"needs_restart": list(in_vain)} if in_vain else {}))
        self._reloaded("complete", None)

    def _reloaded(self, result: str, error: str | None) -> None:
        self._reloads[result] += 1
        self._reload = ReloadView(
            last_at=time.time(),
            last_result=result,
            last_error=error,
            results=dict(self._reloads),
        )

    # -- what others see --------------------------------------------------------------------

    def view(self) -> GatewayView:
        """All of it at this moment."""
        crew = self._crew
        return self._overview.view(
            config=self._config,
            listen=self._listen,
            started=self._ready,
            draining=self._draining,
            slots=crew.wanted if crew else 0,
            snapshot_version=self._roster.version,
            discovery=self._follower.view,
            reload=self._reload,
            members=self._roster.members,
            health=self._prober.view,
            workers=crew.view() if crew else (),
            sums=self._totals.sums(),
            worker_restarts=crew.restarts if crew else {},
            events=self._events.all(),
        )

    def _on_crew_change(self) -> None:
        pass

    # -- the end ----------------------------------------------------------------------------

    def _fail(self, text: str, code: int) -> None:
        self._log.error(text)
        if self._crew is None:
            self._end(code)
        else:
            self._code = code
            self._crew.stop_now()

    def _end(self, code: int) -> None:
        if not self._done.done():
            self._done.set_result(code)

    async def _close(self) -> None:
        with contextlib.suppress(AttributeError):
            self._ticker.cancel()
        if self._reload_task is not None:
            self._reload_task.cancel()
        if self._admin is not None:
            await self._admin.close()
        await self._follower.close()
        await self._prober.close()
        self._log.info("drained") if self._draining else None
        self._log.close()

    def _on_exception(self, _loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        """A bug must cost one event, not the gateway."""
        error = context.get("exception")
        self._log.error("internal error", error=repr(error or context.get("message")))
