"""One run: the world, what disturbs it, and the end to which it has to come."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from gateway.scoreboard import Scoreboard
from supervisor.core import next_master
from supervisor.core.config import Config
from supervisor.core.exit_codes import EXIT_CRASH_LOOP
from supervisor.core.handover_state import HandoverState
from supervisor.core.workers.fleet import UPGRADE_RETRY_S
from supervisor.core.workers.worker_id import WorkerId
from supervisor.workers.inherited import InheritedDescriptors
from tests.simulation.checks import Checks
from tests.simulation.clock import BEGIN_S, Clock, Violation
from tests.simulation.disturbances import disturb
from tests.simulation.kernel import ORPHANED, UNIX, Client, Kernel, Listener
from tests.simulation.master import Master
from tests.simulation.members_oracle import MembersOracle
from tests.simulation.network import CLUSTER, Network
from tests.simulation.oracles import Oracle
from tests.simulation.plan import SPAN_S, Event, Kind, draw_setup
from tests.simulation.process import Process
from tests.simulation.restart import take_stored

SETTLES_WITHIN_S = UPGRADE_RETRY_S + 60.0
ENDS_WITHIN_S = 20.0
UNIX_CLIENTS = 0.4
"""How many of the clients come by the UNIX socket, where there is one."""


class World:
    """Everything there is in one run."""

    def __init__(self, seed: int) -> None:
        self.setup = draw_setup(seed)
        self._random = random.Random(f"draws {seed}")
        self.draw = self._random.random
        self.randrange = self._random.randrange
        self.clock = Clock()
        self.network = Network(
            self._random,
            members=self.setup.members,
            several=self.setup.several,
            literal=self.setup.literal,
            secured=self.setup.secured,
            synced=self.setup.synced,
        )
        self.scoreboard = Scoreboard()
        self.kernel = Kernel(self.clock, self._random, self.lost)
        self.bound: dict[int, Listener] = {}
        """The listeners that the master holds, by slot; they outlive its images."""
        self.shared = self.kernel.listen(UNIX, self) if self.setup.unix else None
        """The UNIX socket: the master makes it before the first worker, which inherits it."""
        self.processes: dict[Process, None] = {}
        self.master: Master | None = None
        self.newest_version = 0
        self.master_late_until = self.no_sockets_until = 0.0
        self.uneven_until = 0.0
        self.crashes = self.steps = 0
        self.happened: Counter[Kind] = Counter()
        self.stopping = False
        self.keeps_records = False
        """Whether a crash or a restart is among what happens: a record costs much to write."""
        self.given_up = False
        """Five workers in a row ended before any was ever ready: exit code 70, as documented."""
        self.wall_s = 1.7e9
        self._supply: Counter[str] = Counter()
        self.slow_start_s = 0.0
        self.limits: list[int] = []
        self._clients_until = math.inf
        self.unreaped: list[Process] = []
        """Exited while no master had a pool: the next one hears by the inherited pidfd."""
        self.checks = Checks(self)
        self.oracle = Oracle(self)
        self.members_oracle = MembersOracle(self)

    # -- the run ------------------------------------------------------------------------------

    def run(self, plan: list[Event]) -> None:
        """Raises Violation if a promise is broken."""
        self.boot(HandoverState(), InheritedDescriptors())
        self._arrive()
        self.keeps_records = any(
            event.kind in (Kind.CRASH, Kind.CRASH_EDITED, Kind.RESTART) for event in plan
        )
        for event in plan:
            self.clock.at(event.at, self._apply, event)
        self._go_on(lambda: self.clock.now >= BEGIN_S + SPAN_S, SPAN_S + 5.0)
        if self.given_up:
            return
        self._calm_down()
        self._confirm_cluster()
        self._go_on(self._is_settled, SETTLES_WITHIN_S)
        if self.given_up:
            return
        if unsettled := self.checks.find_unsettled():
            raise Violation("all comes to rest", unsettled)
        self.checks.check_rest()
        self._stop()

    def _go_on(self, done: Callable[[], bool], at_most_s: float) -> None:
        """Steps until ``done()``, asked about once a second of virtual time."""
        clock, check = self.clock, self.checks.step
        end_at, ask_at = clock.now + at_most_s, clock.now + 1.0
        while clock.now < end_at:
            if self.given_up or not clock.step():
                return
            self.steps += 1
            check()
            if clock.now >= ask_at:
                ask_at = clock.now + 1.0
                if done():
                    return

    def _calm_down(self) -> None:
        """Nothing disturbs from here on; new clients keep coming for a while."""
        now = self.clock.now
        self._supply.clear()
        self.slow_start_s = 0.0
        self.limits.clear()
        self.network.mend(now)
        self.no_sockets_until = 0.0

    def _confirm_cluster(self) -> None:
        """Where another cluster was adopted, an operator has to reload: nobody else may undo it."""
        master = self.master
        if self.stopping:
            return
        if master is not None and master.lives and master.started:
            adopted = master.discovery.sync.adopted
            if adopted is not None and adopted.cluster_id != CLUSTER:
                master.reload(master.config)
        self.clock.after(5.0, self._confirm_cluster)

    def _is_settled(self) -> bool:
        late_until = max(
            (process.late_until for process in self.processes), default=self.master_late_until
        )
        late = self.clock.now < max(late_until, self.master_late_until, self.uneven_until) + 1.0
        return not late and not self.checks.find_unsettled()

    def _stop(self) -> None:
        """TERM: everybody is served to the end or cut at the deadline, and no process is left."""
        master = self.master
        assert master is not None
        self.stopping = True
        self._clients_until = self.clock.now
        master.drain()
        ends_s = master.config.drain_timeout_s + ENDS_WITHIN_S
        self._go_on(lambda: master.code is not None, ends_s)
        if master.code != 0:
            raise Violation("a stop ends", f"exit code {master.code} after {ends_s} s")
        if self.processes or self.kernel.listeners:
            raise Violation("a stop ends", f"left: {len(self.processes)} workers")
        if self.kernel.clients and not self.happened[Kind.FEW_DESCRIPTORS]:
            places = {client.place for client in self.kernel.clients.values()}
            raise Violation("no client is held by nobody", f"at the end: {places}")
        if self.scoreboard.rows:
            raise Violation("the scoreboard is right", "a row of a worker that is gone")

    def close(self) -> None:
        self.scoreboard.close()

    # -- clients ------------------------------------------------------------------------------

    def exponential(self, mean_s: float) -> float:
        return -math.log(1.0 - self.draw()) * mean_s

    def _arrive(self) -> None:
        if self.clock.now < self._clients_until:
            self.connect()
            self.clock.after(self.exponential(1.0 / self.setup.clients_per_s), self._arrive)

    def connect(self) -> None:
        unix = self.shared is not None and self.draw() < UNIX_CLIENTS
        if self.kernel.connect(unix=unix) is None and self.bound and not self.stopping:
            raise Violation("no client is refused", "nobody listens")

    def lost(self, client: Client, why: str) -> None:
        """The client is cut; only a worker's end and a stop may do that."""
        self.checks.lost[why] += 1
        self.kernel.end(client)
        allowed = why in ("its worker ended", "held back", ORPHANED) or self.stopping
        if not allowed and (self.master is None or self.master.any_ready):
            raise Violation("no client is refused", why)

    def clients_in_flight(self) -> int:
        return sum(len(inbox.queue) for inbox in self.kernel.inboxes.values())

    def other_taker(self, process: Process) -> int | None:
        """A slot to which a client may be handed; the product chooses the least loaded."""
        scoreboard, now_ns = self.scoreboard, self.clock.now * 1e9
        slots = [
            scoreboard.slot(row)
            for row in range(scoreboard.rows)
            if scoreboard.accepting(row)
            and now_ns - scoreboard.beat_ns(row) < 3.5e8
            and scoreboard.slot(row) != process.who.slot
        ]  # fmt: skip
        return slots[self.randrange(len(slots))] if slots else None

    def offer_place(self, slot: int) -> bool:
        inbox = self.kernel.inboxes.get(slot)
        for process in inbox.readers if inbox is not None else ():
            process.soon(0.0003, process.use_places)
            return True
        return False

    def rescue(self, slot: int, to: int) -> None:
        inbox = self.kernel.inboxes[slot]
        if slot != to:
            while inbox.queue:
                self.kernel.send(inbox.queue.popleft(), to)

    def session_limit(self) -> int:
        """The highest limit that any worker works by; 0 if one has none."""
        limits = [p.quota.max_sessions for p in self.processes if p.table.version]
        return 0 if 0 in limits else max(limits, default=0)

    # -- processes ----------------------------------------------------------------------------

    def fork(self, who: WorkerId, *, hopeless: bool, slots: int) -> Process:
        row = self.scoreboard.open_row(who.slot, who.gen)
        process = Process(self, who, row, self.bound.get(who.slot), slots)
        self.processes[process] = None
        wait_s = 0.02 + self.draw() * 0.03 + self.slow_start_s
        self.slow_start_s = 0.0
        fails_at_start = self.take("fails_at_start") or hopeless
        descriptors = self.limits.pop() if self.limits else 0
        process.soon(wait_s, _boot, process, fails_at_start, descriptors)
        return process

    def bind(self, slot: int, listener: Listener) -> None:
        if slot in self.bound:
            raise Violation("one listener for each slot", f"slot {slot} is bound already")
        listener.holders.add(self)
        listener.had = True
        self.bound[slot] = listener

    def exited(self, process: Process) -> None:
        del self.processes[process]
        if self.master is not None and self.master.lives and self.master.started:
            self.master.on_exit(process)
        else:
            self.unreaped.append(process)

    def wake_master(self, process: Process) -> None:
        if self.master is not None and self.master.lives:
            self.master.wake_to_read(process)

    def known(self, inherited: InheritedDescriptors) -> Iterator[tuple[WorkerId, Process]]:
        """The processes whose descriptors a new master inherits, dead ones included."""
        for process in (*self.processes, *self.unreaped):
            slot = inherited.slots.get(process.who.slot)
            if slot is not None and process.who.gen in slot.workers:
                yield process.who, process

    def lay_up(self, what: str, count: int) -> None:
        self._supply[what] += count

    def take(self, what: str) -> bool:
        """Whether a disturbance was laid up for this moment; it is used up."""
        if self._supply[what] <= 0:
            return False
        self._supply[what] -= 1
        return True

    def able(self, now: float) -> bool:
        """Whether a worker is there that could accept for others."""
        master = self.master
        return master is not None and any(
            slot.serving
            and slot.occupant is not None
            and slot.occupant.who in master.handles
            and master.handles[slot.occupant.who].process.late_until <= now
            for slot in master.fleet.slots
        )

    def uneven(self, now: float) -> bool:
        """Whether something holds messages up just now, or did a moment ago."""
        return now < self.uneven_until

    def short(self) -> bool:
        """Whether a worker has too few descriptors, so that clients have to wait."""
        return any(p.has_few_descriptors for p in self.processes)

    def is_certified(self, address: str) -> bool:
        return any(m.certified for m in self.network.members if address in m.addresses)

    def shutting(self) -> bool:
        """Whether the gateway is being stopped, or has ended."""
        return self.stopping or self.given_up

    def wall(self) -> float:
        return self.wall_s + self.clock.now

    # -- images -------------------------------------------------------------------------------

    def boot(
        self,
        state: HandoverState,
        inherited: InheritedDescriptors,
        *,
        config: Config | None = None,
        workers: int = 0,
        left: HandoverState | None = None,
        crashed: bool = False,
        hopeless: bool = False,
    ) -> None:
        """Begin the next image; ``left`` is what the record said, of which ``state`` fits.

        Without a configuration and a number of workers it has those of the image before.
        """
        before = self.master
        self.master = Master(
            self,
            config or (before.config if before is not None else self.setup.config),
            workers=workers or (before.workers if before is not None else self.setup.workers),
            state=state,
            inherited=inherited,
            left=left,
            crashed=crashed,
            hopeless=hopeless,
        )
        self._orphan_unknown(inherited)
        if self.shared is not None and inherited.slots and not inherited.shared:
            self._replace_shared(self.shared)
        self.master.begin()

    def _orphan_unknown(self, inherited: InheritedDescriptors) -> None:
        """Workers that the image before did not hand over read the end of their pipe."""
        known = {process for _, process in self.known(inherited)}
        for process in tuple(self.processes):
            if process not in known:
                process.cut_off()
        for process in self.unreaped:
            if process not in known:
                process.cut_off()
                self.scoreboard.close_row(process.row)

    def _replace_shared(self, lost: Listener) -> None:
        """A master that has not inherited the UNIX socket makes another one under its path."""
        self.shared = self.kernel.listen(UNIX, self)
        lost.shut = True
        self.kernel.release(lost, self)

    def shut_listeners(self) -> None:
        """Nobody connects any more, and the master holds none of them."""
        shared, self.shared = self.shared, None
        for listener in (*self.bound.values(), *([shared] if shared else [])):
            self.kernel.shut(listener)
            self.kernel.release(listener, self)
        self.bound.clear()

    def finished(self, master: Master) -> None:
        """The pool is over; unless at a stop, the gateway ended with an error."""
        master.lives = False
        if self.shared is not None:
            self.kernel.release(self.shared, self)
            self.shared = None
        for slot, listener in tuple(self.bound.items()):
            del self.bound[slot]
            self.kernel.release(listener, self)
        if master.code == EXIT_CRASH_LOOP and not master.any_ready:
            self.given_up = True
        elif not self.stopping:
            raise Violation("the gateway goes on", f"it ended with exit code {master.code}")

    def upgrade(self, which: int, gap_s: float) -> None:
        """USR2, which may fail at each of its steps."""
        master = self.master
        if master is None or not master.lives or not master.may_upgrade():
            return
        match which % 6:
            case 0:  # the preflight fails
                return
            case 1:  # execve fails, after the state was written
                master.hand_over()
                return
            case 2:  # the new image fails at once, and the old one is executed again
                self._replace_image(master, 2 * gap_s, hopeless=False)
            case 3:  # the new image's workers end before they are ready
                self._replace_image(master, gap_s, hopeless=True)
            case _:
                self._replace_image(master, gap_s, hopeless=False)

    def go_back(self) -> None:
        """The workers of this image do not get ready: the image before is executed again."""
        master = self.master
        if master is not None and master.lives and master.hopeless:
            self._replace_image(master, 0.3, hopeless=False)

    def _replace_image(self, master: Master, gap_s: float, *, hopeless: bool) -> None:
        state = master.hand_over()
        self.members_oracle.left(state)
        inherited = InheritedDescriptors.from_names(
            ((name, 0) for name in master.named()),
            gens=state.gens,
            draining=state.draining,
            drains_until=state.drains_until,
        )
        self.end_image(master, gap_s)
        self.clock.after(gap_s, self._boot_next, state, inherited, False, hopeless)

    def crash(self, gap_s: float) -> None:
        """SIGKILL of the master under a service manager that keeps descriptors."""
        master = self.master
        if master is None or not self.may_crash(master):
            return
        state, inherited = take_stored(self, master)
        self.end_image(master, gap_s)
        self.clock.after(gap_s, self._boot_next, state, inherited, True, False)

    def may_crash(self, master: Master) -> bool:
        """Whether its record is that of a master that serves, and not of one that leaves."""
        return master.lives and bool(master.record) and master.ready and not master.draining

    def end_image(self, master: Master, gap_s: float) -> None:
        """The master is gone; the next one begins in ``gap_s``."""
        master.lives = False
        self.disturb_for(gap_s + 1.0)
        for process in self.processes:
            process.channel.reading = False
        self._orphan_unstored(master)

    def _orphan_unstored(self, master: Master) -> None:
        """execve and a crash close the pipes of workers that are not ready."""
        for who, handle in master.handles.items():
            if not handle.process.lives:
                self.unreaped.append(handle.process)
            elif who not in master.kept:
                handle.process.cut_off()

    def _boot_next(
        self, state: HandoverState, inherited: InheritedDescriptors, crashed: bool, hopeless: bool
    ) -> None:
        if self.clock.now < self.master_late_until:
            self.clock.at(
                self.master_late_until, self._boot_next, state, inherited, crashed, hopeless
            )
            return
        if crashed and self.master is not None:
            state = next_master.fit(state, self.master.config, self.clock.now)
        self.boot(state, inherited, crashed=crashed, hopeless=hopeless)

    # -- disturbances -------------------------------------------------------------------------

    def disturb_for(self, seconds: float) -> None:
        self.uneven_until = max(self.uneven_until, self.clock.now + seconds)

    def _apply(self, event: Event) -> None:
        self.happened[event.kind] += 1
        disturb(self, event)


def _boot(process: Process, fails_at_start: bool, descriptors: int) -> None:
    process.boot(fails_at_start=fails_at_start, descriptors=descriptors)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one run."""

    violation: Violation | None
    steps: int
    happened: Counter[Kind]


def try_seed(seed: int, plan: list[Event]) -> Outcome:
    """Make one run from its beginning to its end."""
    world = World(seed)
    violation = None
    try:
        world.run(plan)
    except Violation as broken:
        violation = broken
    except Exception as error:  # noqa: BLE001 (what it says is for whoever repeats the run)
        violation = Violation("nothing raises", f"{type(error).__name__}: {error}")
    finally:
        world.close()
    return Outcome(violation, world.steps, world.happened)
