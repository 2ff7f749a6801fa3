"""The invariants: what must hold after every step, and what must hold once all is quiet."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from supervisor.core.workers.adopters import ADOPT_RETRY_S
from supervisor.core.workers.fleet import Phase
from supervisor.core.workers.slot import Slot, Worker
from supervisor.core.workers.worker_state import WorkerState
from tests.simulation.clock import Violation
from tests.simulation.kernel import UNIX
from tests.simulation.network import CLUSTER

if TYPE_CHECKING:
    from tests.simulation.kernel import Inbox, Listener
    from tests.simulation.master import Master
    from tests.simulation.process import Process
    from tests.simulation.simulation import World

SERVED_WITHIN_S = 0.5
"""``docs/life-of-a-worker.md``: a slot without a live worker is served by another one by then."""
ONE_ACCEPTOR_WITHIN_S = 1.0
STILL_S = 0.2
READ_WITHIN_S = 2.0
"""A client in flight between workers is taken by then."""
ADOPTED_WITHIN_S = 0.2
"""What the fleet itself may take to find an adopter, retries of a failed adoption apart."""


class Checks:
    """Looks at the whole world after every step, and counts what it looked at."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._at = world.clock.now
        self._unadopted_s: dict[int, float] = {}
        self._delivered: dict[Process, int] = {}
        self._most: dict[str, float] = {}
        self.lost: Counter[str] = Counter()

    # -- after every step ---------------------------------------------------------------------

    def step(self) -> None:
        world = self._world
        now = world.clock.now
        passed_s, self._at = now - self._at, now
        if not passed_s:
            return
        master = world.master
        if master is None or not master.lives or master.fleet.phase is not Phase.RUNNING:
            return
        runs = now - passed_s >= world.master_late_until + 0.1
        if passed_s > STILL_S:  # nothing happens for so long only while everything stands still
            passed_s = 0.0
        for listener in world.kernel.listeners:
            count = 0
            for process in listener.acceptors:
                if process.late_until <= now:
                    count += 1
            if count == 1 or (count and listener.slot == UNIX):
                listener.unserved_s = listener.two_s = 0.0
            else:
                self._check_listener(listener, count, passed_s if runs else 0.0)
            if listener.slot == UNIX:
                self._check_queue(listener, passed_s if runs else 0.0)
        for inbox in world.kernel.inboxes.values():
            if inbox.queue:
                self._check_inbox(inbox, passed_s if runs else 0.0)
            else:
                inbox.unread_s = 0.0
        if runs:
            for slot in master.fleet.slots:
                if slot.adopter is not None or (slot.bound and not slot.serving):
                    self._check_slot(master, slot, passed_s)
                else:
                    self._unadopted_s.pop(slot.index, None)

    def _check_listener(self, listener: Listener, count: int, passed_s: float) -> None:
        """Each configured socket has exactly one acceptor that runs, or soon."""
        world = self._world
        now = world.clock.now
        wanted = listener.slot in world.bound or listener is world.shared
        if not wanted or not world.able(now):
            listener.unserved_s = listener.two_s = 0.0
        elif not count and (self._adopter_hangs(listener.slot) or _is_unheard_of(listener, now)):
            listener.unserved_s = 0.0  # it is noticed as any worker is, and then another one adopts
        elif count:
            listener.unserved_s = 0.0
            listener.two_s += passed_s
            if listener.two_s > ONE_ACCEPTOR_WITHIN_S and not world.uneven(now):
                raise Violation("one acceptor", f"{count} accept for slot {listener.slot}")
        else:
            where = f"slot {listener.slot}" if listener.slot != UNIX else "the UNIX socket"
            listener.unserved_s += passed_s
            if listener.unserved_s > SERVED_WITHIN_S and not world.uneven(now):
                raise Violation("one acceptor", f"nobody accepts for {where}")

    def _adopter_hangs(self, slot: int) -> bool:
        master, now = self._world.master, self._world.clock.now
        if slot == UNIX:
            return False
        adopter = master.fleet.slots[slot].adopter if master is not None else None
        handle = master.handles.get(adopter) if master is not None and adopter else None
        return handle is not None and handle.process.late_until > now

    def _check_queue(self, listener: Listener, passed_s: float) -> None:
        """Who waits at the UNIX socket is taken by whichever worker runs, if there is room."""
        world, now = self._world, self._world.clock.now
        held = world.short() or any(p.quota.max_sessions for p in world.processes)
        first = listener.queue[0].number if listener.queue else 0
        if first != listener.first or held or world.uneven(now) or not world.able(now):
            listener.first, listener.waited_s = first, 0.0
        elif first:
            listener.waited_s += passed_s
            if listener.waited_s > READ_WITHIN_S:
                raise Violation("no client is held by nobody", f"{first} at the UNIX socket")

    def _check_inbox(self, inbox: Inbox, passed_s: float) -> None:
        """No client is held by nobody: who is in flight arrives."""
        world = self._world
        if not world.able(world.clock.now):
            return
        if world.short():  # how long that lasts is not judged; what follows it begins anew
            inbox.unread_s = 0.0
            return
        inbox.unread_s += passed_s
        if inbox.unread_s > READ_WITHIN_S and not world.uneven(world.clock.now):
            client = inbox.queue[0]
            if world.clock.now - client.since > READ_WITHIN_S:
                raise Violation("no client is held by nobody", f"in the inbox of {inbox.slot}")

    def _check_slot(self, master: Master, slot: Slot, passed_s: float) -> None:
        """What the fleet itself believes: one accepts, or there is a reason."""
        if slot.serving and slot.adopter is not None:
            raise Violation("one acceptor", f"slot {slot.index} has an adopter beside its worker")
        if slot.adopter is not None:
            adopter = master.fleet.slots[slot.adopter.slot].occupant
            if (
                adopter is None
                or adopter.who != slot.adopter
                or adopter.state is not WorkerState.READY
            ):
                raise Violation("one acceptor", f"{slot.adopter} adopted and does not accept")
            self._unadopted_s[slot.index] = 0.0
            return
        retries_s = slot.adopt_at - self._at
        if 0.0 < retries_s <= ADOPT_RETRY_S:
            self._unadopted_s[slot.index] = 0.0
            return
        others = any(each.serving for each in master.fleet.slots)
        waited_s = self._unadopted_s.get(slot.index, 0.0) + passed_s if others else 0.0
        self._unadopted_s[slot.index] = waited_s
        if waited_s > ADOPTED_WITHIN_S + 0.25:
            raise Violation("one acceptor", f"slot {slot.index} has none and no reason")

    # -- after some steps ---------------------------------------------------------------------

    def reported(self, master: Master, process: Process) -> None:
        """Counters never go back, and the total is what was reported, to the session."""
        self._delivered[process] = process.told
        living = master.totals.sessions_by_worker().keys()
        if ghosts := living - master.handles.keys():
            raise Violation("only workers that live hold sessions", f"{sorted(ghosts)}")
        overall = master.totals.sums()
        whole = overall.overall
        figures = {
            "sessions": whole.sessions_total,
            "bytes in": whole.bytes_in,
            "bytes out": whole.bytes_out,
            "ended": sum(overall.ended.values()),
            "refused": sum(overall.refused.values()),
            "paused": sum(overall.accept_paused.values()),
            "cpu": round(sum(overall.cpu_s.values()), 6),
        }
        for name, value in figures.items():
            if value < self._most.get(name, 0):
                raise Violation("counters never go back", f"{name}: {value} < {self._most[name]}")
        self._most = figures
        if self._world.crashes == 0:
            truth = sum(self._delivered.values())
            if whole.sessions_total != truth:
                raise Violation("totals are exact", f"{whole.sessions_total}, counted {truth}")

    def session_began(self) -> None:
        """At most --max-sessions, in all workers together; a lower limit ends no session."""
        world = self._world
        most = world.session_limit()
        count = sum(process.counters.sessions for process in world.processes)
        if most and count > most:
            raise Violation("at most --max-sessions", f"{count} sessions, {most} allowed")

    def counts_begin_anew(self) -> None:
        """After a crash or a restart another process counts."""
        self._most.clear()

    # -- once all is quiet --------------------------------------------------------------------

    def find_unsettled(self) -> str:
        """What is not as it has to be once nothing disturbs any more; "" if all is."""
        world, master = self._world, self._world.master
        if master is None or not master.lives or not master.ready:
            return "the gateway is not ready"
        if master.draining:
            return "the master leaves"
        for slot in master.fleet.slots:
            if slot.wanted and not slot.serving:
                return f"slot {slot.index} has no live worker"
            if slot.occupant is not None and _has_just_begun(slot.occupant, world.clock.now):
                return f"slot {slot.index} has clients that waited for its worker"
            by_age = master.config.worker_max_age_s > 0  # one leaves or comes at each moment then
            if not by_age and (slot.draining or slot.successor is not None):
                return f"slot {slot.index} has a worker that leaves or comes"
        newest = master.roster.version
        for process in world.processes:
            if process.table.version != newest:
                return f"{process.who} has snapshot {process.table.version}, newest is {newest}"
        for listener in world.kernel.listeners:
            wanted = master.fleet.wanted if listener.slot == UNIX else 1
            if len(listener.acceptors) != wanted:
                return f"{len(listener.acceptors)} accept for slot {listener.slot}"
        if len(world.kernel.listeners) < len(world.bound) + (world.shared is not None):
            return "a listener is gone"
        return self._find_unsettled_endpoint(master)

    def _find_unsettled_endpoint(self, master: Master) -> str:
        there = {m.found.name for m in master.roster.members}
        if self._world.setup.synced:
            if _votes_are_even(master):
                return ""
            if missing := self._find_unsettled_list(master):
                return missing
        elif there != (names := {m.name for m in self._world.network.members if m.listed}):
            return f"endpoints are {sorted(there)}, DNS names {sorted(names)}"
        for member in master.roster.members:
            if not member.active or member.inactive:
                return f"{member.found.name} works and is inactive"
            if member.removed_at is not None:
                return f"{member.found.name} is in DNS and counts as removed"
            zone = next(
                (m for m in self._world.network.members if m.name == member.found.name), None
            )
            if zone is None or not zone.listed:
                continue  # the member list has it, and DNS says nothing of its weight
            if (member.found.priority, member.found.weight) != (zone.priority, zone.weight):
                return f"{member.found.name} has another weight than in DNS"
        return ""

    def _find_unsettled_list(self, master: Master) -> str:
        """Endpoints are the members of the cluster, whatever DNS names."""
        adopted = master.discovery.sync.adopted
        if adopted is None or not adopted.confirmed or adopted.cluster_id != CLUSTER:
            return f"the member list is {adopted}"
        used = {a for m in master.roster.members for a in m.found.addresses}
        enrolled = {a for m in self._world.network.members if m.enrolled for a in m.addresses}
        if used != enrolled:
            return f"endpoints are at {sorted(used)}, the cluster is at {sorted(enrolled)}"
        return ""

    def check_rest(self) -> None:
        """Nobody waits for anything, and the counts agree with each other."""
        world = self._world
        now = world.clock.now
        held = sum(process.counters.sessions for process in world.processes)
        limited = world.session_limit() > 0 or world.short()
        for client in world.kernel.clients.values():
            waits = client.place != "worker" and now - client.since > READ_WITHIN_S
            if waits and not limited:  # else it waits for a place, as documented
                raise Violation("no client is held by nobody", f"in the {client.place}")
        shown = world.scoreboard.total_sessions()
        if shown != held:
            raise Violation("the scoreboard is right", f"{shown} sessions on it, {held} there are")


def _votes_are_even(master: Master) -> bool:
    """Whether nothing is adopted because seeds that left the cluster are half of those that voted.

    A seed keeps the vote that it gave as long as it is silent.
    """
    sync = master.discovery.sync
    others = sum(each != CLUSTER for each in sync.votes.values())
    return sync.adopted is None and others > 0 and 2 * others >= len(sync.votes)


def _has_just_begun(worker: Worker, now: float) -> bool:
    """Whether it may not have taken yet who came while its slot had no worker that ran."""
    return worker.ready_at is None or now - worker.ready_at < SERVED_WITHIN_S


def _is_unheard_of(listener: Listener, now: float) -> bool:
    """Whether its worker hung before any master heard of it: it drains once it runs again."""
    if listener.had or listener.slot == UNIX:
        return False
    return bool(listener.acceptors) and all(w.late_until > now for w in listener.acceptors)
