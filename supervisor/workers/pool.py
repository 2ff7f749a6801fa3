"""The worker pool: carries out what the fleet decides, with real processes, sockets and pipes.

It owns the scoreboard, the slots' sockets (``slot_sockets``) and the live workers (``handles``).
Everything that happens becomes an event for the fleet at :meth:`WorkerPool._feed`; every command
of the fleet is carried out at :meth:`WorkerPool._perform`.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections import Counter, deque
from collections.abc import Callable, Sequence

from gateway.core import messages, wire
from gateway.core.address import Address
from gateway.core.log import Log
from gateway.core.records import dataclass
from gateway.scoreboard import Scoreboard
from gateway.worker import WorkerStart, run
from supervisor.core.admin.views import WorkerStatus, WorkerView
from supervisor.core.config import Config
from supervisor.core.exit_codes import EXIT_CRASH_LOOP
from supervisor.core.workers import commands, events
from supervisor.core.workers.descriptor_names import Kind, compose_name
from supervisor.core.workers.fleet import FAILED_STARTS_MOST, TICK_S, Fleet, Phase
from supervisor.core.workers.slot import Limits
from supervisor.core.workers.worker_id import WorkerId
from supervisor.core.workers.worker_state import IllegalTransitionError
from supervisor.system.limits import describe_shortage
from supervisor.workers.descriptor_store import NO_DESCRIPTOR_STORE, DescriptorStore
from supervisor.workers.handles import WorkerHandle, WorkerHandles
from supervisor.workers.handover import PoolHandover, hand_over, take_over
from supervisor.workers.inherited import InheritedDescriptors
from supervisor.workers.scoreboard_rows import ScoreboardRows
from supervisor.workers.session_survey import SessionSurvey
from supervisor.workers.shared_listeners import SharedListeners
from supervisor.workers.slot_sockets import Sockets
from supervisor.workers.spawner import Spawner
from supervisor.workers.worker_commands import WorkerCommand, WorkerCommands
from supervisor.workers.worker_messages import WorkerMessages

HANG_TOLD_AFTER_S = 1.0
"""Other workers accept in its place much earlier. A shorter hang is not logged, because on a busy
host all workers have them."""


_PoolCommand = commands.AnnounceReady | commands.ReportUpgradeFailed | commands.Finish


@dataclass(frozen=True, slots=True, kw_only=True)
class Handlers:
    """What the pool calls; all of it is called on the loop and must not block.

    ``on_message`` gets every message of every worker, after the pool has seen to it.
    ``on_workers``: workers are about to be forked or told to drain, and count as such already.
    ``on_change``: the state of a worker may be another one.
    ``on_upgrade_failed``: none of our workers gets ready, the former master's serve.
    ``on_end`` is the last call: no worker is left (or the next master has them).
    """

    on_message: Callable[[WorkerId, messages.Up], None]
    on_ready: Callable[[], None]
    on_upgrade_failed: Callable[[], None]
    on_worker_gone: Callable[[WorkerId, messages.Report | None], None]
    on_workers: Callable[[], None]
    on_change: Callable[[], None]
    on_end: Callable[[int], None]


class WorkerPool:
    """All workers of one gateway. Methods never block; ``entry`` is what a child runs."""

    def __init__(
        self,
        config: Config,
        listen: tuple[Address, ...],
        log: Log,
        handlers: Handlers,
        *,
        slots: int,
        inherited: InheritedDescriptors | None = None,
        shared: SharedListeners | None = None,
        kept: frozenset[WorkerId] = frozenset(),
        store: DescriptorStore = NO_DESCRIPTOR_STORE,
        entry: Callable[[WorkerStart], int] = run,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._config = config
        self._listen = listen
        self._log = log
        self._handlers = handlers
        self._wanted = slots
        self._kept = kept
        self._descriptor_store = store
        self._inherited = inherited if inherited is not None else InheritedDescriptors()
        self._inherited.drop_useless()
        for name in self._inherited.dropped:
            store.remove(name)
        for name, fd in self._inherited.renamed.items():
            store.keep(name, fd)
        self._rows = ScoreboardRows(Scoreboard(self._inherited.scoreboard))
        self._fleet = Fleet(_limits(config), now=self._loop.time())
        shared = shared if shared is not None else SharedListeners()
        self._sockets = Sockets(store, shared, handover=config.handover)
        self._leaving_workers = False
        self._handles = WorkerHandles(
            log,
            self._rows,
            store if config.handover else NO_DESCRIPTOR_STORE,
            on_message=self._on_message,
            on_exit=self._on_exit,
        )
        self.survey = SessionSurvey(workers=self._handles.with_clients, tell=self._handles.tell)
        self._events: deque[events.Event] = deque()
        self._stepping = False
        self._snapshot = b""
        self._ticker: asyncio.TimerHandle | None = None
        self.failure = ""
        """Why the last worker that did not come up failed, for the last line of the log."""
        self._spawner = Spawner(
            listen=listen,
            rows=self._rows,
            sockets=self._sockets,
            handles=self._handles,
            log=log,
            entry=entry,
            restarts=Counter(),
        )
        self._commands = WorkerCommands(self._handles, self._sockets, log)
        self._messages = WorkerMessages(
            listen=listen,
            handles=self._handles,
            sockets=self._sockets,
            survey=self.survey,
            log=log,
            feed=self._feed,
            on_failure=self._note_failure,
            pass_on=handlers.on_message,
        )

    # What the master asks for

    def start(self, snapshot: messages.Snapshot) -> None:
        """Fork the workers; ``on_ready`` follows once every slot is filled."""
        self._snapshot = wire.encode(snapshot)
        wire.prepare()
        # What exists now is for good. Else each full collection would write to all of it, and the
        # workers' shared copy of it would be a second one.
        gc.freeze()
        self._descriptor_store.keep(compose_name(Kind.SCOREBOARD), self._rows.scoreboard.fd)
        if not self._config.handover:  # the master before us may have been told otherwise
            for name in self._inherited.kept_by_handover():
                self._descriptor_store.remove(name)
        take_over(
            self._inherited,
            self._handles,
            self._sockets,
            self._rows,
            drain_timeout_s=self._config.drain_timeout_s,
            now=self._loop.time(),
        )
        for index in range(self._wanted):
            with contextlib.suppress(OSError):  # without descriptors: tried again before the fork
                self._spawner.open_slot(index)
        self._handles.tell_all(self._snapshot, messages.Snapshot)
        left = self._inherited.left(self._listen, kept=self._kept)
        self._feed(events.Start(self._wanted, left, by_upgrade=self._inherited.told_to_drain))
        if self._fleet.phase is not Phase.OVER:
            self._await_tick()

    def push(self, snapshot: messages.Snapshot) -> None:
        """Send a newer snapshot to every worker, and to those that are forked later."""
        self._snapshot = wire.encode(snapshot)
        self._handles.tell_all(self._snapshot, messages.Snapshot)

    def push_loads(self, loads: messages.Loads) -> None:
        """Send Loads to every worker; a slow one gets the newest only."""
        self._handles.tell_all(wire.encode(loads), messages.Loads)

    def give_up(self, who: WorkerId, order: messages.GiveUp) -> None:
        """Have one worker close sessions; no harm is done if it is gone."""
        self._handles.tell(who, wire.encode(order), messages.GiveUp)

    def resize(self, by: int) -> int:
        """Change the number of workers by ``by``; the number that there will be."""
        self._feed(events.Resize(by))
        return self._fleet.wanted

    def reconfigure(self, config: Config) -> None:
        """Take over what a reload may change: timeouts and ages (not the number of workers)."""
        self._config = config
        self._fleet.limits = _limits(config)

    def drain(self, deadline_s: float) -> None:
        """Stop for good; ``on_end`` follows when the last worker left."""
        self._sockets.shared.remove_files()
        self._feed(events.DrainAll(deadline_s))

    def stop_now(self) -> None:
        """Stop for good; sessions are cut, not waited for."""
        self._sockets.shared.remove_files()
        self._feed(events.StopAll())

    def leave(self) -> None:
        """End the pool and leave the workers running; the store has what the next master needs."""
        self._leaving_workers = True
        self._feed(events.LeaveWorkers())

    # What the master may look at

    @property
    def restarts(self) -> Counter[str]:
        """Workers that were replaced, by reason, since the first image's start."""
        return self._spawner.restarts

    @property
    def wanted(self) -> int:
        """How many workers there are to be."""
        return self._fleet.wanted or self._wanted

    @property
    def any_live(self) -> bool:
        """Whether at least one worker is alive and not late."""
        return any(slot.serving for slot in self._fleet.slots)

    def uses(self, version: int) -> bool:
        """Whether every live worker that accepts said that it has this snapshot or a newer one."""
        ready = [view for view in self.view() if view.state is WorkerStatus.READY]
        return all(view.snapshot_version >= version for view in ready)

    def pids(self) -> set[int]:
        """The processes of all live workers."""
        return self._handles.pids()

    def listener_inodes(self) -> set[int]:
        """The inodes of all listening sockets of this gateway."""
        return self._sockets.listener_inodes()

    def sessions_by_worker(self) -> dict[WorkerId, int]:
        """How many sessions each worker has, also of a former master, as the scoreboard says."""
        return self._rows.sessions()

    def view(self) -> tuple[WorkerView, ...]:
        """All workers, and the slots that wait for one, by slot and generation.

        What a worker served in all is in the books of the master, not here.
        """
        views = [self._handles.view(worker) for worker in self._fleet.workers()]
        views += [
            WorkerView(slot=slot.index, gen=slot.gen, pid=None, state=WorkerStatus.BACKOFF)
            for slot in self._fleet.slots
            if slot.wanted and slot.occupant is None and self._fleet.phase is Phase.RUNNING
        ]
        return tuple(sorted(views, key=lambda view: (view.slot, view.gen)))

    # Events in, commands out

    def _feed(self, event: events.Event) -> None:
        """Step the fleet, one event at a time; events that commands bring about are queued."""
        self._events.append(event)
        if self._stepping:
            return
        self._stepping = True
        try:
            while self._events:
                event = self._events.popleft()
                try:
                    issued = self._fleet.step(event, self._loop.time())
                except IllegalTransitionError as error:
                    self._on_protocol_error(event, str(error))
                    continue
                if any(isinstance(each, commands.Spawn | commands.Retire) for each in issued):
                    self._handlers.on_workers()
                self._perform(issued)
                if issued or not isinstance(event, events.Tick):
                    self._handlers.on_change()
        finally:
            self._stepping = False
            if self._ticker is not None and self._fleet.due_at < self._ticker.when():
                self._await_tick()

    def _perform(self, issued: Sequence[commands.Command]) -> None:
        """Carry out the commands in their order; consecutive spawns are forked in one go."""
        spawns: list[commands.Spawn] = []
        for command in issued:
            if isinstance(command, commands.Spawn):
                spawns.append(command)
                continue
            if spawns:
                self._spawn(spawns)
                spawns = []
            self._attempt(command)
        if spawns:
            self._spawn(spawns)

    def _attempt(self, command: WorkerCommand | _PoolCommand) -> None:
        """Carry out a command; one that fails costs none of those that follow it."""
        try:
            match command:
                case commands.AnnounceReady():
                    self._handlers.on_ready()
                case commands.ReportUpgradeFailed():
                    self._handlers.on_upgrade_failed()
                case commands.Finish(code):
                    self._finish(code)
                case _:
                    self._commands.carry_out(command)
        except OSError as error:
            name = type(command).__name__
            self._log.error("command to a worker failed", command=name, error=str(error))
            if isinstance(command, commands.AdoptListeners):
                self._feed(events.AdoptionFailed(command.slot))

    def _await_tick(self) -> None:
        if self._ticker is not None:
            self._ticker.cancel()
        self._ticker = self._loop.call_at(self._fleet.due_at, self._tick)

    def _tick(self) -> None:
        """Tell the fleet who lives, and do again what found no room."""
        now = self._loop.time()
        self._ticker = self._loop.call_at(now + TICK_S, self._tick)  # also if something fails below
        slots = self._fleet.slots
        self._sockets.put_back()
        for slot in slots:
            if slot.adopter is not None and (
                lost := self._sockets.rescue(slot.index, to=slot.adopter.slot)
            ):
                self._log.error("clients lost", sessions=lost, error="no descriptors left")
        self._handles.watch_again()
        self._handles.go_on_introducing()
        self._feed(events.Tick(self._handles.collect_signs()))
        for slot in slots:
            if slot.occupant is not None:
                hangs = slot.hangs and now - slot.occupant.beat_at > HANG_TOLD_AFTER_S
                self._handles.tell_hang(slot.occupant.who, hangs)
        if self._ticker is not None:
            self._await_tick()

    # Workers

    def _spawn(self, spawns: Sequence[commands.Spawn]) -> None:
        """Fork these workers in one go; of one that cannot be started the fleet hears as gone."""
        failed = self._spawner.spawn(
            spawns,
            slots=self._fleet.wanted,
            pin=self._config.pin_workers,
            snapshot=self._snapshot,
        )
        for who, error in failed:
            self._note_failure(f"cannot start worker: {describe_shortage(error)}")
            self._feed(events.WorkerExited(who))

    def _on_message(self, who: WorkerId, message: messages.Up, fds: list[int]) -> None:
        self._messages.take(who, message, fds)

    def _note_failure(self, text: str) -> None:
        self.failure = text

    def _on_protocol_error(self, event: events.Event, reason: str) -> None:
        if isinstance(event, events.WorkerReady):
            self._handles.on_protocol_error(event.who, reason)

    def _on_exit(self, who: WorkerId, handle: WorkerHandle) -> None:
        self.survey.forget(who)
        if not handle.told_why:
            self._note_failure(f"worker of slot {who.slot} ended: {handle.how}")
        self._handlers.on_worker_gone(who, handle.report)
        self._rows.take_back(who)  # before the end of the last worker closes the scoreboard
        self._feed(events.WorkerExited(who))

    # The beginning and the end

    def _finish(self, code: int) -> None:
        if code == EXIT_CRASH_LOOP:
            self._log.error(
                "giving up, workers keep dying before they are ready",
                attempts=FAILED_STARTS_MOST,
                error=self.failure,
            )
            self.failure = ""  # the log's last line has it
        if not self._leaving_workers:
            self._sockets.shared.remove_files()
            if left := self._sockets.turn_away():
                self._log.warn("clients turned away at the end", clients=left)
        try:
            self.close()
        finally:
            self._handlers.on_end(code)

    def close(self) -> None:
        """Close every descriptor. Live workers read the end of their pipe, or go on if the service
        manager holds a duplicate of it."""
        if self._ticker is not None:
            self._ticker.cancel()
            self._ticker = None
        self._handles.close()
        self._sockets.close()
        self._rows.close()

    def owns(self, pid: int) -> bool:
        """Whether the process is one of our workers."""
        return self._handles.owns(pid)

    def hand_over(self) -> PoolHandover:
        """Everything that the next master needs; the descriptors stay ours. For ``execve``."""
        return hand_over(self._fleet, self._handles, self._sockets, self._rows, workers=self.wanted)


def _limits(config: Config) -> Limits:
    return Limits(
        worker_timeout_s=config.worker_timeout_s,
        drain_timeout_s=config.drain_timeout_s,
        max_age_s=config.worker_max_age_s,
    )
