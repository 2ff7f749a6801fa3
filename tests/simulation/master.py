"""A model of one image of the master: a thin shell around the fleet, the roster and the totals."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from gateway.core import messages, wire
from gateway.core.endpoint import RETIRED, EndpointState
from supervisor.core import next_master
from supervisor.core.admin.totals import Totals, Traffic
from supervisor.core.admin.views import DiscoveryView
from supervisor.core.config import Config
from supervisor.core.discovery.endpoints import Discovered
from supervisor.core.discovery.targets import describe_targets
from supervisor.core.handover_document import decode, encode
from supervisor.core.handover_state import HandoverState, Image
from supervisor.core.rebalance import Rebalancer
from supervisor.core.reload_rules import keep_fixed, worker_settings
from supervisor.core.roster import Roster
from supervisor.core.roster_member import Member, Policy
from supervisor.core.workers import commands, events
from supervisor.core.workers.descriptor_names import Kind, compose_name, worker_names
from supervisor.core.workers.fleet import Fleet, Phase
from supervisor.core.workers.slot import KILL_MARGIN_S, Limits
from supervisor.core.workers.worker_id import WorkerId
from supervisor.core.workers.worker_state import IllegalTransitionError, WorkerState
from supervisor.workers.inherited import InheritedDescriptors
from tests.simulation.clock import Violation
from tests.simulation.discovery import LISTEN, Discovery
from tests.simulation.health import Prober
from tests.simulation.kernel import Listener

if TYPE_CHECKING:
    from tests.simulation.process import Process
    from tests.simulation.simulation import World

SECOND_S = 1.0


class Handle:
    """What this master holds of one worker."""

    __slots__ = ("beat_ns", "process", "report")

    def __init__(self, process: Process, beat_ns: int) -> None:
        self.process = process
        self.beat_ns = beat_ns
        self.report: messages.Report | None = None


class Master:
    """One image; ``hopeless``: the workers that it forks end before they are ready."""

    def __init__(
        self,
        world: World,
        config: Config,
        *,
        workers: int,
        state: HandoverState,
        inherited: InheritedDescriptors,
        left: HandoverState | None = None,
        crashed: bool = False,
        hopeless: bool = False,
    ) -> None:
        self.world = world
        self.config = config
        self.lives = True
        self.hopeless = hopeless
        self.ready = self.any_ready = False
        self.draining = False
        self.code: int | None = None
        now = world.clock.now
        self._state = state
        self.workers = workers
        """How many its configuration asks for."""
        self.left = left
        """What the record said of which ``state`` is what fits, after a restart."""
        self.inherited = inherited
        self._crashed = crashed
        self.fleet = Fleet(_limits(config), now=now)
        self.handles: dict[WorkerId, Handle] = {}
        self.kept: dict[WorkerId, Process] = {}
        """Whose descriptors the store has for the next master."""
        self.record: bytes = b""
        self._leaving = False
        self._signs: dict[WorkerId, float] = {}
        self._tick_at = 0.0
        self._events: deque[events.Event] = deque()
        self._stepping = False
        self.totals: Totals = state.totals
        self.roster = Roster(state.snapshot_version)
        self.last_members: dict[str, Member] = dict(
            world.master.last_members if world.master else {}
        )
        """As each was known last, to this image or the one before; for the oracles."""
        self._rebalancer = Rebalancer()
        self._snapshot = b""
        self.sent_version = 0
        self._publishing = self._unrecorded = False
        self.started = False
        self.prober = Prober(self, self._on_health)
        self.discovery = Discovery(self, self._on_found)
        self._follow_policy()

    # -- being a process ----------------------------------------------------------------------

    def at(self, when: float, call: Callable[..., None], *args: object) -> None:
        """Call it then, or when this master runs again; never if it is gone."""
        self.world.clock.at(when, self._turn, call, args)

    def soon(self, wait_s: float, call: Callable[..., None], *args: object) -> None:
        self.at(self.world.clock.now + wait_s, call, *args)

    def _turn(self, call: Callable[..., None], args: tuple[object, ...]) -> None:
        if not self.lives:
            return
        if self.world.clock.now < self.world.master_late_until:
            self.world.clock.at(self.world.master_late_until, self._turn, call, args)
        else:
            call(*args)

    def begin(self) -> None:
        """As ``Startup.run``: with what a former master found the pool starts at once."""
        state, now = self._state, self.world.clock.now
        self.roster.remember(state.removed)
        self._watch_members()
        goes_on = bool(state.found) or state.discovery is not None
        if goes_on:
            same = state.member_list_of == describe_targets(self.config)
            adopted = state.member_list if same else None
            self.discovery.remember(state.found, adopted, tls_check=state.tls_check)
        if state.found:
            self._on_found(state.found)
        self.roster.assume_sessions()
        self.prober.remember(state.health)
        for member in self.roster.members:
            self.prober.tell(member.found.name)
        self.roster.resume(state.since, now)
        self.world.oracle.remembered(self, state)
        if goes_on:
            self._start_pool()
        self.discovery.poll()
        self.soon(SECOND_S, self._second)

    def _start_pool(self) -> None:
        self.started = True
        slots = next_master.count_workers(
            self._state, self.workers, restarted=self.left is not None
        )
        self.totals.expect(self.inherited.worker_ids())
        self._publish_first()
        for who, process in self.world.known(self.inherited):
            beat_ns = self.world.scoreboard.beat_ns(process.row)
            self.handles[who] = Handle(process, beat_ns)
            self.kept[who] = process
            process.channel.reading = False
            leaving = who.gen in self.inherited.slots[who.slot].draining
            ends_at = self.inherited.slots[who.slot].ends_at
            if leaving and (who.gen in ends_at or not self.inherited.told_to_drain):
                now = self.world.clock.now
                until = ends_at.get(who.gen, now + self.config.drain_timeout_s)
                drain = messages.Drain(max(until - now, 0.0))
                self._send(process, wire.encode(drain), messages.Drain)
            if process.lives:
                self.wake_to_read(process)
            else:
                self.soon(0.001, self._reap, who)
        for process in self.world.unreaped:
            if process not in self.kept.values():
                self.world.scoreboard.close_row(process.row)
        self.world.unreaped.clear()
        for index in range(slots):
            self.world.kernel.inbox(index)
        self._tell_all(self._snapshot, messages.Snapshot)
        left = self.inherited.left(LISTEN, kept=self.inherited.serving() if self._crashed else ())
        self._feed(events.Start(slots, left, by_upgrade=self.inherited.told_to_drain))
        self._await_tick(self.fleet.due_at)

    # -- events in, commands out --------------------------------------------------------------

    def _feed(self, event: events.Event) -> None:
        self._events.append(event)
        if self._stepping:
            return
        self._stepping = True
        while self._events and self.lives:
            event = self._events.popleft()
            try:
                issued = self.fleet.step(event, self.world.clock.now)
            except IllegalTransitionError as error:
                raise Violation("legal transitions", f"{event}: {error}") from error
            if any(isinstance(each, commands.Spawn | commands.Retire) for each in issued):
                self.write_record()
            for command in issued:
                self._perform(command)
        self._stepping = False
        if self.fleet.due_at < self._tick_at:
            self._await_tick(self.fleet.due_at)

    def _perform(self, command: commands.Command) -> None:
        match command:
            case commands.Spawn(who, _, _):
                self._spawn(who)
            case commands.Kill(who, _):
                if who in self.handles:
                    self.world.clock.after(0.0, self.handles[who].process.exit)
            case commands.Retire(who, deadline_s, close_listeners):
                if handle := self.handles.get(who):
                    line = wire.encode(messages.Drain(deadline_s, close_listeners))
                    self._send(handle.process, line, messages.Drain)
            case commands.AdoptListeners(by, slot):
                self._have_adopted(by, slot)
            case commands.ReleaseListeners(by, slot):
                if handle := self.handles.get(by):
                    self._pass_down(handle.process, messages.Release(slot), None)
            case commands.AnnounceReady():
                self.ready = True
            case commands.ReportUpgradeFailed():
                self.soon(0.01, self.world.go_back)
            case commands.ShutListeners():
                self.world.shut_listeners()
            case commands.Finish(code):
                self.code = code
                self.world.finished(self)

    def _have_adopted(self, by: WorkerId, slot: int) -> None:
        handle = self.handles.get(by)
        if handle is None:
            return
        if self.world.take("no adoption"):
            self.world.disturb_for(0.7)
            self._events.append(events.AdoptionFailed(slot))
            return
        if (listener := self.world.bound.get(slot)) is not None:
            self._pass_down(handle.process, messages.Adopt(slot), listener)

    def _spawn(self, who: WorkerId) -> None:
        world = self.world
        world.kernel.inbox(who.slot)
        if world.take("no fork"):
            self._events.append(events.WorkerExited(who))
            return
        process = world.fork(who, hopeless=self.hopeless, slots=max(self.fleet.wanted, 1))
        self.handles[who] = Handle(process, 0)
        self._send(process, self._snapshot, messages.Snapshot)

    def _await_tick(self, when: float) -> None:
        self._tick_at = when
        self.at(when, self._tick, when)

    def _tick(self, when: float) -> None:
        if when != self._tick_at:  # it was brought forward
            return
        for slot in self.fleet.slots:
            if slot.adopter is not None:
                self.world.rescue(slot.index, slot.adopter.slot)
        scoreboard, signs = self.world.scoreboard, self._signs
        for who, handle in self.handles.items():
            if (beat_ns := scoreboard.beat_ns(handle.process.row)) != handle.beat_ns:
                handle.beat_ns = beat_ns
                signs[who] = max(signs.get(who, 0.0), beat_ns / 1e9)
        self._signs = {}
        self._feed(events.Tick(signs))
        self._await_tick(self.fleet.due_at)

    # -- channels -----------------------------------------------------------------------------

    def _send(self, process: Process, line: bytes, kind: type) -> None:
        process.channel.down.pop(kind, None)
        process.channel.down[kind] = line
        process.wake()

    def _pass_down(
        self, process: Process, message: messages.Down, listener: Listener | None
    ) -> None:
        if not process.lives:
            return
        if listener is not None:
            listener.holders.add(process.channel)
        process.channel.control.append((wire.encode(message), listener))
        process.wake()

    def _tell_all(self, line: bytes, kind: type) -> None:
        for handle in self.handles.values():
            self._send(handle.process, line, kind)

    def wake_to_read(self, process: Process) -> None:
        if not process.channel.reading and process.who in self.handles:
            process.channel.reading = True
            self.soon(0.0005 + self.world.draw() * 0.002, self._read, process)

    def _read(self, process: Process) -> None:
        channel = process.channel
        channel.reading = False
        lines, channel.up = channel.up, []
        for line, listener in lines:
            if self.lives:
                self._hear(process, wire.decode(line), listener)

    def _hear(self, process: Process, message: object, listener: Listener | None) -> None:
        who = process.who
        self._signs[who] = self.world.clock.now
        match message:
            case messages.Bound():
                assert listener is not None
                self.world.bind(who.slot, listener)
                self.world.kernel.release(listener, process.channel)
                self._feed(events.WorkerBound(who))
            case messages.Ready():
                self.kept[who] = process
                # Not one that gets ready while the start is given up.
                self.any_ready = self.any_ready or self.fleet.phase is Phase.RUNNING
                self._feed(events.WorkerReady(who))
            case messages.Report():
                if who in self.handles:
                    self.handles[who].report = message
                process.told = process.truths.popleft()
                self.totals.report(who, message)
                self.world.checks.reported(self, process)
            case messages.DialFailed(endpoint, address, result, _):
                self.prober.dial_failed(endpoint, address, result)
            case messages.DialSucceeded(endpoint, address):
                self.prober.dial_succeeded(endpoint, address)
            case messages.Drained():
                pass
            case _:
                raise Violation("protocol", f"{message} came up")

    def on_exit(self, process: Process) -> None:
        handle = self.handles.get(process.who)
        if handle is not None and handle.process is process:
            self.soon(0.001, self._reap, process.who)
        else:
            self.world.scoreboard.close_row(process.row)

    def _reap(self, who: WorkerId) -> None:
        handle = self.handles.get(who)
        if handle is None or handle.process.lives:
            return
        self._read(handle.process)
        del self.handles[who]
        self.kept.pop(who, None)
        self._signs.pop(who, None)
        self.totals.gone(who, handle.report)
        self.world.scoreboard.close_row(handle.process.row)
        self.world.checks.reported(self, handle.process)
        self._feed(events.WorkerExited(who))

    # -- endpoints ----------------------------------------------------------------------------

    def _on_found(self, found: tuple[Discovered, ...]) -> None:
        self.last_members.update((each.found.name, each) for each in self.roster.members)
        self.world.oracle.found(self, found)
        self.roster.resolve(found, self.world.clock.now, self.config.removal_grace_s)
        self._watch_members()
        if not self.started and not self._state.found and self._state.discovery is None:
            self._start_pool()
        self._unrecorded = True
        self.publish()

    def _on_health(self, name: str, active: bool, inactive: tuple[str, ...]) -> None:
        self.roster.judge(name, active, self.world.clock.now, inactive)
        self.publish()

    def _watch_members(self) -> None:
        members = self.roster.members
        self.prober.set_endpoints(
            [member.found for member in members],
            [member.found.name for member in members if member.state in RETIRED],
        )

    def _follow_policy(self) -> None:
        config = self.config
        policy = Policy(grace_s=config.removal_grace_s, slow_start_s=config.slow_start_s)
        self.roster.follow(policy, self.world.clock.now)
        self._watch_members()

    def _make(self) -> messages.Snapshot:
        self.last_members.update((each.found.name, each) for each in self.roster.members)
        self.world.oracle.dropped(self.roster.advance(self.world.clock.now))
        return self.roster.snapshot(worker_settings(self.config))

    def _publish_first(self) -> None:
        snapshot = self._make()
        self.totals.retain([each.name for each in snapshot.endpoints])
        self._note_sent(snapshot)
        self.write_record()

    def publish(self) -> None:
        """At once, or after a pause, as the publisher does when snapshots follow each other."""
        if not self.started or self._publishing:
            return
        if self.world.draw() < 0.3:
            self._publishing = True
            self.soon(self.world.draw() * 0.1, self._publish)
        else:
            self._publish()

    def _publish(self) -> None:
        self._publishing = False
        unrecorded, self._unrecorded = self._unrecorded, False
        snapshot = self._make()
        if snapshot.version == self.sent_version:
            if unrecorded:
                self.write_record()
            return
        self.totals.retain([each.name for each in snapshot.endpoints])
        self._note_sent(snapshot)
        self.write_record()
        self._tell_all(self._snapshot, messages.Snapshot)
        self.discovery.set_any_active(self._any_active())

    def _note_sent(self, snapshot: messages.Snapshot) -> None:
        if snapshot.version <= self.sent_version:
            raise Violation("newest snapshot wins", f"{snapshot.version} is sent after"
                            f" {self.sent_version}")  # fmt: skip
        self.sent_version = snapshot.version
        self.world.newest_version = max(self.world.newest_version, snapshot.version)
        self._snapshot = wire.encode(snapshot)
        self.world.oracle.published(snapshot)

    def active_names(self) -> list[str]:
        members = self.roster.members
        return [each.found.name for each in members if each.state is EndpointState.ACTIVE]

    def _any_active(self) -> bool:
        for member in self.roster.members:
            if member.state is EndpointState.ACTIVE:
                view = self.prober.view(member.found.name)
                if view is None or not view.kept:
                    return True
        return False

    def _second(self) -> None:
        """As ``EndpointTracker.on_tick`` and ``Master._tick``: about once a second."""
        self.soon(SECOND_S, self._second)
        if not self.started:
            return
        traffic = self.totals.traffic()
        addresses = self.totals.sessions_by_address()
        for member in self.roster.members:
            name = member.found.name
            moved = traffic.get(name) or Traffic()
            self.roster.sessions(name, moved.sessions, at_least=not self.totals.complete)
            here = addresses.get(name, {})
            self.prober.take_traffic(name, moved.sessions, moved.dials, moved.bytes_out, here)
        self.last_members.update((each.found.name, each) for each in self.roster.members)
        self.world.oracle.dropped(self.roster.advance(self.world.clock.now))
        self._watch_members()
        self.publish()
        self.discovery.set_any_active(self._any_active())
        if self.config.balance == "least-sessions":
            loads = messages.Loads({n: moved.sessions for n, moved in traffic.items()}, addresses)
            self._tell_all(wire.encode(loads), messages.Loads)
        self._rebalance()

    def _rebalance(self) -> None:
        if not self.config.rebalance_s:
            return
        orders, directions = self._rebalancer.step(
            self.roster.snapshot(worker_settings(self.config)).endpoints,
            self.totals.sessions_by_worker(),
            over_s=self.config.rebalance_s,
            now=self.world.clock.now,
            draw=self.world.randrange,
        )
        for order in orders:
            give_up = messages.GiveUp((order.endpoint,), (order.older_than_s,))
            self._give_up(order.worker, give_up)
        for direction in directions:
            give_up = messages.GiveUp(towards=(direction.endpoint,))
            self._give_up(direction.worker, give_up)

    def _give_up(self, who: WorkerId, give_up: messages.GiveUp) -> None:
        if handle := self.handles.get(who):
            self._send(handle.process, wire.encode(give_up), messages.GiveUp)

    # -- signals ------------------------------------------------------------------------------

    def reload(self, read: Config) -> None:
        if self.started and not self.draining:
            kept, _ = keep_fixed(self.config, read)
            self.discovery.reload(kept)

    def on_reloaded(self, config: Config | None) -> None:
        if config is not None:
            self.config = config
            self.fleet.limits = _limits(config)
            self.world.oracle.follows(config)
            self._follow_policy()
            self.prober.reconfigure()
            self._publish()

    def resize(self, by: int) -> None:
        if self.started and not self.draining:
            self._feed(events.Resize(by))
            self.write_record()

    def drain(self) -> None:
        self.draining = True
        self._feed(events.DrainAll(self.config.drain_timeout_s))

    def leave(self) -> None:
        """TERM with ``--handover``: as ``Shutdown.on_signal``."""
        self.draining = self._leaving = True
        self.write_record()

    def stop(self) -> None:
        self._feed(events.StopAll())

    # -- the next image -----------------------------------------------------------------------

    def may_upgrade(self) -> bool:
        """Without an endpoint the preflight fails, as any start does."""
        known = any(member.removed_at is None for member in self.roster.members)
        able = self.started and not self.draining and known
        return able and (self.ready or bool(self.inherited.slots))

    def hand_over(self) -> HandoverState:
        """Everything for the next image, through the document that carries it."""
        return decode(json.loads(json.dumps(encode(self._state_now()))))

    def _state_now(self) -> HandoverState:
        present = [m for m in self.roster.members if m.removed_at is None]
        return HandoverState(
            descriptors=dict.fromkeys(self.named(), 0),
            workers=self.fleet.wanted,
            workers_given=self.workers,
            gens={slot.index: slot.gen for slot in self.fleet.slots},
            draining=tuple(
                worker.who
                for worker in self.fleet.workers()
                if worker.state in (WorkerState.DRAINING, WorkerState.DYING)
            ),
            drains_until={
                worker.who: worker.due_at - KILL_MARGIN_S
                for worker in self.fleet.workers()
                if worker.due_at is not None
            },
            totals=self.totals,
            snapshot_version=self.roster.version,
            found=tuple(member.found for member in present),
            removed=self.roster.removed,
            since=self.roster.since,
            discovery=DiscoveryView(),
            tls_check=self.discovery.tls_check,
            listen_given=tuple(map(str, self.config.listen_addr)),
            health=self.prober.export(member.found.name for member in self.roster.members),
            member_list=self.discovery.sync.adopted,
            member_list_of=describe_targets(self.config),
            image=Image(argv=("gateway",)),
        )

    def named(self) -> list[str]:
        """The names of the descriptors that ``execve`` passes on."""
        names = self._sockets()
        for worker in self.fleet.workers():
            if worker.who in self.handles and worker.state is not WorkerState.STARTING:
                names += worker_names(worker.who)
        return names

    def stored(self) -> list[str]:
        """The names of the descriptors that a service manager has after a crash."""
        names = self._sockets()
        for who in self.kept:
            names += worker_names(who)
        return names

    def _sockets(self) -> list[str]:
        names = [compose_name(Kind.LISTENER, slot, 0) for slot in self.world.bound]
        names += [compose_name(Kind.SHARED, 0, 1, 1)] if self.world.shared is not None else []
        inboxes = self.world.kernel.inboxes
        ends = Kind.INBOX_R, Kind.INBOX_W
        return names + [compose_name(end, slot) for slot in inboxes for end in ends]

    def write_record(self) -> None:
        if self.world.keeps_records and self.fleet.slots:
            state = self._state_now()
            kept = (
                next_master.after_restart(state)
                if self._leaving
                else next_master.after_crash(state)
            )
            self.record = json.dumps(encode(kept)).encode()


def _limits(config: Config) -> Limits:
    return Limits(
        worker_timeout_s=config.worker_timeout_s,
        drain_timeout_s=config.drain_timeout_s,
        max_age_s=config.worker_max_age_s,
    )
