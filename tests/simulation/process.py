"""A model of one worker's process: a thin shell around the parts of ``gateway``, as they are."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from gateway.core import messages, wire
from gateway.core.address_memory import AddressMemory
from gateway.core.counters import End, EndpointCounters, PauseReason, WorkerCounters
from gateway.core.descriptor_budget import DescriptorBudget
from gateway.core.reports import report_of
from gateway.core.table import Table
from gateway.ingress.quota import Quota
from supervisor.core.workers.worker_id import WorkerId
from tests.simulation.clock import Violation
from tests.simulation.kernel import Client, Listener
from tests.simulation.sessions import Sessions

if TYPE_CHECKING:
    from tests.simulation.simulation import World

BEAT_S = 0.1
HAND_OVER = 0.2
"""How often a client is handed to another worker; the product decides by load."""


class Channel:
    """What lies between a worker and whoever is its master; both may be late to read."""

    __slots__ = ("control", "down", "open", "reading", "stalled_until", "up")

    def __init__(self) -> None:
        self.down: dict[type, bytes] = {}
        """The pipe: of each kind the newest that was not read."""
        self.control: list[tuple[bytes, Listener | None]] = []
        self.up: list[tuple[bytes, Listener | None]] = []
        self.open = True
        """Whether a master holds the other end."""
        self.stalled_until = 0.0
        self.reading = False


class Process:
    """One worker, from its fork on. ``lives`` is false once it has exited or was killed."""

    def __init__(
        self, world: World, who: WorkerId, row: int, listener: Listener | None, slots: int
    ) -> None:
        self.world = world
        self.who = who
        self.row = row
        self.lives = True
        self.booted = self.ready = self.leaving = self.finished = False
        self.late_until = 0.0
        self.channel = Channel()
        self.own = listener
        self.shared = world.shared
        self.adopted: dict[int, Listener] = {}
        self.paused: PauseReason | None = None
        self.drain: messages.Drain | None = None
        self.has_few_descriptors = False
        self.reached = self.told = 0
        """How many sessions reached an endpoint, and how many the master has heard of."""
        self.truths: deque[int] = deque()
        """The same as of each report that was not read yet."""
        self._beats = 0
        self._looking = False
        self.inbox_full = False
        self.counters = counters = WorkerCounters()
        self.table = Table(who.slot, slots)
        self.addresses = AddressMemory(self.table.first_turn)
        self.budget = DescriptorBudget(counters)
        self.sessions = Sessions(self)
        self.quota = Quota(
            world.scoreboard,
            row=row,
            counters=counters,
            budget=self.budget,
            serve=lambda number, _: self._serve(number),
            in_flight=world.clients_in_flight,
            close_client=lambda number: world.lost(world.kernel.clients[number], "held back"),
        )
        for born_with in (listener, self.shared):
            if born_with is not None:
                born_with.holders.add(self)

    # -- being a process ----------------------------------------------------------------------

    def soon(self, wait_s: float, call: Callable[..., None], *args: object) -> None:
        """Call it when ``wait_s`` is over and the process runs; never if it is gone by then."""
        self.world.clock.after(wait_s, self._turn, call, args)

    def _turn(self, call: Callable[..., None], args: tuple[object, ...]) -> None:
        if not self.lives:
            return
        if self.world.clock.now < self.late_until:
            self.world.clock.at(self.late_until, self._turn, call, args)
        else:
            call(*args)

    def boot(self, *, fails_at_start: bool, descriptors: int) -> None:
        """The child's first steps: a row, the listeners, and the first sign of life."""
        world = self.world
        if fails_at_start:
            self.exit()
            return
        self.booted = True
        world.scoreboard.enter(self.row, self.row + 2)
        if descriptors:
            self.has_few_descriptors = True
            self.budget.limit(descriptors, 0)
        if self.own is None:
            self.own = world.kernel.listen(self.who.slot, self)
            self.send(messages.Bound(1), self.own)
        self._beat()
        self._read_down()

    def exit(self) -> None:
        """The process is gone, in order or by SIGKILL; the kernel closes what it had."""
        if not self.lives:
            return
        self.lives = False
        world = self.world
        for client in self.sessions.clients():
            world.lost(client, "its worker ended")
        self.quota.close()
        for listener in self.listeners():
            world.kernel.release(listener, self, killed=True)
        world.kernel.inboxes[self.who.slot].readers.pop(self, None)
        self._drop(self.channel.control)
        world.exited(self)

    def cut_off(self) -> None:
        """No master has the other end any more: what is on its way is lost, and the end is read."""
        self.channel.open = False
        self._drop(self.channel.up)
        self.truths.clear()
        self.wake()

    def _drop(self, lines: list[tuple[bytes, Listener | None]]) -> None:
        for _, sent in lines:
            if sent is not None:
                self.world.kernel.release(sent, self.channel)
        lines.clear()

    def send(self, message: messages.Up, listener: Listener | None = None) -> None:
        if not self.channel.open:
            return
        if listener is not None:
            listener.holders.add(self.channel)
        self.channel.up.append((wire.encode(message), listener))
        self.world.wake_master(self)

    # -- what the master says -----------------------------------------------------------------

    def wake(self) -> None:
        """Something came down; it is read a moment later, or when the pipe is read again."""
        if self.booted and not self._looking:
            self._looking = True
            self.soon(0.0005 + self.world.draw() * 0.002, self._read_down)

    def _read_down(self) -> None:
        channel, now = self.channel, self.world.clock.now
        self._looking = False
        control, channel.control = channel.control, []
        for line, listener in control:
            self._on_message(wire.decode(line), listener)
        if now < channel.stalled_until:
            self._looking = True
            self.soon(channel.stalled_until - now, self._read_down)
            return
        lines, channel.down = channel.down, {}
        for line in lines.values():
            if self.lives:
                self._on_message(wire.decode(line), None)
        if not channel.open and self.drain is None and self.lives:
            settings = self.table.snapshot.settings if self.table.snapshot else None
            deadline_s = settings.drain_timeout_s if settings else 0.0
            self._begin_drain(messages.Drain(deadline_s), accept_rest=True)

    def _on_message(self, message: object, listener: Listener | None) -> None:
        match message:
            case messages.Snapshot():
                self._apply(message)
            case messages.Loads():
                self.table.take_loads(message)
            case messages.GiveUp(endpoints, _, towards):
                self.table.direct(towards)
                for name in endpoints:
                    self.sessions.give_up_one(name)
            case messages.Drain():
                self._begin_drain(message)
            case messages.Adopt(slot):
                assert listener is not None
                self._release(slot)
                if not self.leaving:
                    listener.holders.add(self)
                    self.adopted[slot] = listener
                    self.budget.spend()
                    self._accept_from(listener)
                self.world.kernel.release(listener, self.channel)
            case messages.Release(slot):
                self._release(slot)
            case _:
                raise Violation("protocol", f"{message} came down")

    def _release(self, slot: int) -> None:
        listener = self.adopted.pop(slot, None)
        if listener is not None:
            self.budget.give_back()
            self.world.kernel.release(listener, self)

    def _apply(self, snapshot: messages.Snapshot) -> None:
        before = self.table.version
        if not self.table.apply(snapshot):
            if snapshot.version > before:
                raise Violation("newest snapshot wins", f"{snapshot.version} after {before}")
            return
        if snapshot.version <= before or snapshot.version > self.world.newest_version:
            raise Violation("newest snapshot wins", f"{snapshot.version} after {before}")
        self.world.oracle.applied(self, snapshot)
        self.sessions.apply(snapshot)
        self.quota.max_sessions = snapshot.settings.max_sessions
        self.quota.serve_held_back()
        self.recheck()
        if not before and self.drain is None:
            self.ready = True
            for listener in (self.own, self.shared):
                if listener is not None:
                    self._accept_from(listener)
            self._update_taking()
            self.send(messages.Ready(snapshot.version))
            self.report()

    # -- clients ------------------------------------------------------------------------------

    def _accept_from(self, listener: Listener) -> None:
        listener.acceptors[self] = self._on_queued
        if listener.queue:
            self._on_queued(listener)

    def _on_queued(self, listener: Listener) -> None:
        self.soon(0.0002, self._accept, listener)

    def _accept(self, listener: Listener) -> None:
        if self not in listener.acceptors or self.paused is not None:
            return
        while listener.queue and self.lives:
            if not self.quota.room():
                self._pause(self.quota.shortage)
                return
            self._take(listener.queue.popleft())

    def _take(self, client: Client) -> None:
        world = self.world
        client.since = world.clock.now
        slot = None if self.leaving or world.draw() > HAND_OVER else world.other_taker(self)
        if slot is not None:
            world.kernel.send(client, slot)
            self.counters.handed_over += 1
            self.quota.served()
        elif self.quota.max_sessions:
            client.place = "worker"
            self.quota.admit(client.number)
        else:
            self._serve(client.number)

    def _serve(self, number: int) -> None:
        client = self.world.kernel.clients[number]
        client.place = "worker"
        self.counters.sessions += 1
        self.world.scoreboard.set_sessions(self.row, self.counters.sessions)
        if self.quota.max_sessions:
            self.world.checks.session_began()
        self.sessions.begin(client)

    def session_ended(self) -> None:
        """A place is free: for who waited longest, here or elsewhere."""
        world = self.world
        world.scoreboard.set_sessions(self.row, self.counters.sessions)
        slot = self.quota.next_in_line(int(world.clock.now * 1e9))
        if slot is None or not world.offer_place(slot):
            self.recheck()
            if self.quota.held_back:
                self.quota.serve_held_back()
        if self.leaving and not self.counters.sessions and not self.quota.held_back:
            self.finish()

    def use_places(self) -> None:
        if self.quota.held_back:
            self.quota.serve_held_back()
        self.recheck()

    def recheck(self) -> None:
        if self.paused is None or not self.quota.room():
            return
        self.paused = None
        for listener in self.listeners():
            if listener.queue and self in listener.acceptors:
                self._on_queued(listener)
        self._update_taking()

    def _pause(self, reason: PauseReason) -> None:
        if self.paused is None:
            self.paused = reason
            paused = self.counters.accept_paused
            paused[reason.value] = paused.get(reason.value, 0) + 1
            self._update_taking()

    def _update_taking(self) -> None:
        short = self.paused not in (None, PauseReason.LIMIT)
        taking = self.ready and not self.leaving and not short and not self.inbox_full
        self.world.scoreboard.set_accepting(self.row, taking)
        inbox = self.world.kernel.inboxes[self.who.slot]
        if taking:
            inbox.readers[self] = self._on_inbox_event
            if inbox.queue:
                self._on_inbox_event()
        else:
            inbox.readers.pop(self, None)

    def _on_inbox_event(self) -> None:
        self.soon(0.0003, self._on_inbox)

    def _on_inbox(self) -> None:
        inbox = self.world.kernel.inboxes[self.who.slot]
        room = self.quota.room_by_descriptors()
        for _ in range(room):
            if not inbox.queue:  # one that is served may be over at once, and be the last one
                break
            client = inbox.queue.popleft()
            client.place = "worker"
            self.quota.admit(client.number)
        if not room and inbox.queue:
            self.inbox_full = True
            self._pause(PauseReason.DESCRIPTORS)
            self._update_taking()

    # -- time, and the end --------------------------------------------------------------------

    def _beat(self) -> None:
        if self.finished:
            return
        world = self.world
        world.scoreboard.beat(self.row, int(world.clock.now * 1e9))
        if self.quota.max_sessions:
            self.use_places()
            limited = self.paused is PauseReason.LIMIT
            waiting = limited and any(listener.queue for listener in self.listeners())
            self.quota.note(waiting, int(world.clock.now * 1e9))
        else:
            self.quota.serve_held_back()
            self.recheck()
        if self.inbox_full and self.quota.room_by_descriptors():
            self.inbox_full = False
            self._update_taking()
        self._beats += 1
        if self._beats % 10 == 0:
            self.report()
        self.soon(BEAT_S, self._beat)

    def listeners(self) -> list[Listener]:
        every = (self.own, *self.adopted.values(), self.shared)
        return [each for each in every if each is not None]

    def report(self) -> None:
        self.table.reported()
        self.world.oracle.reported(self)
        if self.channel.open:
            self.truths.append(self.reached)
        self.send(
            report_of(
                self.counters,
                snapshot_version=self.table.version,
                loop_lag_s=0.0,
                rss_bytes=1,
                cpu_s=self._beats * 0.001,
            )
        )
        self.sessions.reported()

    def counters_of(self, name: str) -> EndpointCounters:
        found = self.counters.endpoints.get(name)
        if found is None:
            found = self.sessions.dropped.pop(name, None) or EndpointCounters()
            self.counters.endpoints[name] = found
        return found

    def _begin_drain(self, drain: messages.Drain, *, accept_rest: bool = False) -> None:
        if self.finished:
            return
        self.drain = drain
        kernel = self.world.kernel
        self.leaving = True
        self._update_taking()
        for listener in self.listeners():
            listener.acceptors.pop(self, None)
            if drain.close_listeners and listener is self.shared:
                kernel.shut(listener)  # who is queued there can be accepted all the same
            if accept_rest or drain.close_listeners:
                while listener.queue and self.quota.room_by_descriptors():
                    self._take(listener.queue.popleft())
            if drain.close_listeners:
                kernel.shut(listener)
            kernel.release(listener, self)
        self.own = self.shared = None
        self.adopted.clear()
        self._empty_inbox()
        if not self.counters.sessions and not self.quota.held_back:
            self.finish()
        elif drain.deadline_s <= 0:
            self._cut()
        else:
            self.soon(drain.deadline_s, self._on_deadline, drain)

    def _empty_inbox(self) -> None:
        world = self.world
        if self.ready and not world.scoreboard.has_taker(self.who.slot, beside=self.row):
            self._on_inbox()

    def _on_deadline(self, drain: messages.Drain) -> None:
        if self.drain is drain:
            self._cut()

    def _cut(self) -> None:
        self.sessions.cut_all(End.DRAINED)
        self.finish()

    def finish(self) -> None:
        if self.finished:
            return
        self.finished = True
        self._empty_inbox()
        self.quota.close()
        self.sessions.cut_all(End.DRAINED)
        self.report()
        self.send(messages.Drained(0))
        self.soon(0.0, self.exit)
