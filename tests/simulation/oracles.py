"""What the pages promise, told a second time and in another way, to compare the machines with."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING

from gateway.core.endpoint import RETIRED, Endpoint, EndpointState
from gateway.core.messages import Snapshot
from supervisor.core.discovery.admission import Candidate
from supervisor.core.discovery.answers import Answers, Refresh
from supervisor.core.discovery.endpoints import Discovered
from supervisor.core.discovery.questions import (
    Answer,
    Failure,
    Negative,
    Outcome,
    Question,
    QuestionKind,
)
from supervisor.core.health.machine import Health, HealthChange
from tests.simulation.clock import Violation
from tests.simulation.members_oracle import RECORDED_WITHIN_S
from tests.simulation.network import Mode

if TYPE_CHECKING:
    from supervisor.core.config import Config
    from supervisor.core.discovery.adoption import AdoptedList
    from supervisor.core.handover_state import HandoverState
    from tests.simulation.discovery import Targets
    from tests.simulation.master import Master
    from tests.simulation.process import Process
    from tests.simulation.simulation import World

EARLIEST_S, LATEST_S, JITTER = 5.0, 300.0, 1.1
RETRY_S = 30.0
SUSPICION_REPORTS = 4
EPSILON_S = 1e-6
REPORTED_WITHIN_S = 2.5
"""A worker reports once a second, and the master looks at it once a second."""
EXCUSED_S = 6.0
"""A client that is turned away may have dialed an endpoint that works again since then, also long
ago if its worker stood still meanwhile: the kernel asks again more and more rarely."""


class AnswersOracle:
    """``docs/discovery.md``, "Which answers it trusts" and "When it asks again"."""

    def __init__(self) -> None:
        self._held: dict[Question, Outcome] = {}
        self._denied_at: dict[Question, float] = {}

    def copy(self) -> AnswersOracle:
        twin = AnswersOracle()
        twin._held, twin._denied_at = dict(self._held), dict(self._denied_at)
        return twin

    def remember(self, answers: Answers, found: Iterable[Discovered]) -> None:
        """What a former master had in use is held."""
        for each in found:
            for question in (
                Question(QuestionKind.HOST, each.host),
                Question(QuestionKind.SEARCH, each.host),
                *(Question(QuestionKind.SRV, owner) for owner in each.owners),
            ):
                held = answers.lookup(question)
                if held is None:
                    raise Violation("an upgrade forgets nothing", f"{question}")
                self._held[question] = held

    def keep(self, questions: Collection[Question]) -> None:
        """What nobody needs any more is forgotten."""
        self._held = {q: held for q, held in self._held.items() if q in questions}
        self._denied_at = {q: at for q, at in self._denied_at.items() if q in questions}

    def took(
        self, answers: Answers, question: Question, outcome: Outcome, now: float, refresh: Refresh
    ) -> None:
        before = self._held.get(question)
        latest_s = RETRY_S
        earliest_s = 0.0
        match outcome:
            case Answer():
                expected: Outcome = outcome
                self._denied_at.pop(question, None)
                earliest_s, latest_s = _refresh_bounds(refresh, outcome.ttl_s)
            case Negative() if isinstance(before, Answer):
                since = self._denied_at.setdefault(question, now)
                confirmed = now - since >= refresh.confirm_s
                expected = outcome if confirmed else before
                _, latest_s = _refresh_bounds(refresh, outcome.ttl_s)
                if confirmed:
                    del self._denied_at[question]
                else:
                    again_s = min(max(refresh.confirm_s / 6, EARLIEST_S), RETRY_S)
                    left_s = since + refresh.confirm_s - now
                    latest_s = min(latest_s, left_s, again_s * JITTER)
            case Negative():
                expected = outcome
                earliest_s, latest_s = _refresh_bounds(refresh, outcome.ttl_s)
            case Failure():
                known = before is not None and not isinstance(before, Failure)
                expected = before if known and before is not None else outcome
        held = answers.lookup(question)
        if isinstance(outcome, Answer) and isinstance(held, Answer):
            missing = set(outcome.addresses) - set(held.addresses)
            if missing or held.records != outcome.records:
                raise Violation("an answer is used", f"{question}: {outcome}, held {held}")
            expected = held
        if held != expected:
            raise Violation("the last good answer stays", f"{question}: {outcome}, held {held}")
        self._held[question] = expected
        if earliest_s and answers.due((question,), now + earliest_s - EPSILON_S):
            raise Violation("asked again in time", f"{question} before {earliest_s} s")
        if not answers.due((question,), now + latest_s + EPSILON_S):
            raise Violation("asked again in time", f"{question} not within {latest_s} s")


def _refresh_bounds(refresh: Refresh, ttl_s: float) -> tuple[float, float]:
    if refresh.mode == "fixed":
        return 0.0, refresh.interval_s * JITTER
    clamped = min(max(ttl_s, EARLIEST_S), LATEST_S)
    return clamped, clamped * JITTER


def expected_keep(
    states: Mapping[str, bool], retired: Collection[str], watched: str, percent: int
) -> bool:
    """``--health-min-active``: whether a failed probe alone may not take ``watched`` away."""
    endpoints: dict[str, list[str]] = {}
    for place in states:
        name = place.split(" ")[0]
        if name not in retired:
            endpoints.setdefault(name, []).append(place)
    up = [n for n, held in endpoints.items() if any(states[place] for place in held)]
    mine = endpoints.get(watched.split(" ")[0], [])
    if any(states[place] for place in mine if place != watched):
        return False
    return 100 * len(up) < percent * len(endpoints)


class HealthOracle:
    """Counts evidence by itself: so many in a row, and not fewer, change the state."""

    __slots__ = (
        "_active", "_bad", "_failed", "_good", "_good_at", "_health", "_keep", "_passed",
        "_probing", "_since",
    )  # fmt: skip

    def __init__(self, health: Health, since: float = -math.inf) -> None:
        self._health = health
        self._active = health.active
        self._good = self._bad = 0
        self._good_at = -math.inf
        self._keep = self._failed = self._passed = self._probing = False
        self._since = since
        """When it turned inactive; of one that was so under a former master, when this one began:
        what is left of a hold, for a relapse, is no longer than ``--retry-delay`` from there."""

    def probe_started(self) -> None:
        if self._probing:
            raise Violation("one probe at a time", "a second one began")
        self._probing = True

    def probe_undecided(self) -> None:
        self._probing = False

    def probe_passed(self, now: float) -> None:
        self._probing = False
        self._take_good(now)

    def probe_failed(self, now: float, keep: bool) -> None:
        self._probing = False
        self._good, self._bad, self._keep = 0, self._bad + 1, keep
        self._failed = True

    def dial_failed(self, began_at: float, *, was_active: bool) -> None:
        if was_active and began_at >= self._good_at:
            self._good, self._bad, self._keep = 0, self._bad + 1, False
            self._failed = True

    def followed(self) -> None:
        """New rules: without probes, what they found does not count any more."""
        if self._active and not self._health.rules.probe_active:
            self._bad, self._keep = 0, False

    def dial_succeeded(self, now: float) -> None:
        if self._health.rules.dials_prove:
            self._take_good(now)

    def _take_good(self, now: float) -> None:
        self._good, self._bad, self._good_at = self._good + 1, 0, now
        self._passed = True

    def check(self, now: float, change: HealthChange | None) -> None:
        """After each piece of evidence."""
        health = self._health
        rules = health.rules
        if change is HealthChange.DEACTIVATED:
            if self._bad < rules.fall or self._keep or not self._active:
                raise Violation("inactive after --health-fall failures", f"after {self._bad}")
            self._active, self._since = False, now
        elif change is HealthChange.ACTIVATED:
            if self._good < rules.rise or self._active:
                raise Violation("active after --health-rise probes", f"after {self._good}")
            self._active = True
        if health.active is not self._active:
            raise Violation("changes of health are told", f"active is {health.active}")
        failed, self._failed = self._failed, False
        if failed and self._active and self._bad >= rules.fall and not self._keep:
            raise Violation("inactive after --health-fall failures", "still active")
        # A reload that asks for fewer of them counts from the next one on.
        passed, self._passed = self._passed and self._good >= rules.rise, False
        held_s = now - self._since
        if passed and not self._active and held_s > rules.retry_delay_s:
            raise Violation("active after --health-rise probes", f"inactive for {held_s:.1f} s")
        self._check_next_probe(now)

    def _check_next_probe(self, now: float) -> None:
        health, rules = self._health, self._health.rules
        if health.probing is not self._probing:
            raise Violation("one probe at a time", f"probing is {health.probing}")
        if health.probing:
            return
        wait_s = health.next_probe_at - now
        if not health.active and wait_s > rules.retry_delay_s + EPSILON_S:
            raise Violation("inactive ones are probed", f"not for {wait_s} s")
        if health.active and rules.probe_active and wait_s > rules.longest_s * JITTER + EPSILON_S:
            raise Violation("active ones are probed", f"not for {wait_s} s")


class Oracle:
    """What concerns workers' choices, and which endpoints are in use."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._suspects: dict[Process, dict[str, int]] = {}
        self._certified: set[Candidate] = set()
        self._last: Snapshot | None = None
        self._names: set[str] = set()
        self._owners: dict[str, tuple[str, ...]] = {}
        """The SRV names that named each endpoint last."""
        self._named_at = 0.0
        self._left: dict[str, tuple[float, float]] = {}
        """When an endpoint left DNS, and its grace then."""
        self._dropped: set[str] = set()
        """Those whose grace was over; workers may not have been told yet."""
        self._recorded: Config | None = None
        """Whose endpoints are in the record."""
        self._anew = False
        """Whether the next image has other targets, or another TLS check."""

    # -- choices of a worker ------------------------------------------------------------------

    def applied(self, process: Process, snapshot: Snapshot) -> None:
        self._suspects[process] = {}

    def suspected(self, process: Process, name: str) -> None:
        suspects = self._suspects[process]
        if name not in suspects and any(
            each.name == name and each.state is EndpointState.ACTIVE for each in _all(process)
        ):
            suspects[name] = 0

    def trusted(self, process: Process, name: str) -> None:
        self._suspects[process].pop(name, None)

    def reported(self, process: Process) -> None:
        suspects = self._suspects.get(process, {})
        for name in tuple(suspects):
            suspects[name] += 1
            if suspects[name] >= SUSPICION_REPORTS:
                del suspects[name]

    def picked(self, process: Process, tried: Collection[str], picked: Endpoint | None) -> None:
        """``docs/life-of-a-session.md``, "An endpoint is chosen"."""
        suspects = self._suspects.get(process, {})
        groups: tuple[list[Endpoint], ...] = ([], [], [])
        for each in _all(process):
            if each.state not in RETIRED and each.name not in tried:
                inactive = each.state is not EndpointState.ACTIVE
                groups[2 if inactive else each.name in suspects].append(each)
        for group in groups:
            if group:
                rank = min(each.rank for each in group)
                names = [each.name for each in group if each.rank == rank]
                if picked is None or picked.name not in names:
                    raise Violation("the next endpoint", f"expected one of {names}, got {picked}")
                return
        if picked is not None:
            raise Violation("the next endpoint", f"expected none, got {picked}")

    def refused(self, process: Process, tried: Collection[str]) -> None:
        """A client is turned away: no endpoint that the worker knows of may have worked."""
        network, now = self._world.network, self._world.clock.now
        for each in _all(process):
            if each.state in RETIRED:
                continue
            for address in each.addresses:
                works = network.modes[address] in (Mode.WELL, Mode.SICK)
                moved_at = max(network.moved_at.get(address, -math.inf), process.late_until)
                if works and now - moved_at > EXCUSED_S and each.name in tried:
                    raise Violation("no client is refused", f"{each.name} works at {address}")

    # -- endpoints in use ---------------------------------------------------------------------

    def certified(self, candidate: Candidate) -> None:
        self._certified.add(candidate)

    def refuted(self, candidate: Candidate) -> None:
        self._certified.discard(candidate)

    def admitted(self, used: Iterable[Discovered]) -> None:
        """``docs/discovery.md``, "The TLS gate": nothing is used that did not pass.

        It may have passed under another name: it is the same check.
        """
        passed = {(each.address, each.port) for each in self._certified}
        for each in used:
            for address in each.addresses:
                if (address, each.port) not in passed:
                    raise Violation("only what passed the TLS check", f"{each.name} at {address}")

    def resolved(
        self, targets: Targets, found: tuple[Discovered, ...], adopted: AdoptedList | None
    ) -> None:
        """What the answers held name is what is used, without the TLS check and a member list."""
        if adopted is not None or not targets.config.insecure_discovery:
            return
        named = set()
        for owner in targets.owners:
            outcome = targets.answers.lookup(owner.question)
            for record in outcome.records if isinstance(outcome, Answer) else ():
                host = targets.answers.lookup(Question(QuestionKind.HOST, record.target))
                if isinstance(host, Answer):
                    named.add(f"{record.target}:{record.port}")
        used = {each.name for each in found}
        if named and used != named:
            raise Violation("endpoints are what DNS names", f"expected {named}, got {used}")

    def found(self, master: Master, found: Iterable[Discovered]) -> None:
        """Discovery names these from now on; what vanishes must have been denied by DNS."""
        now, grace_s = self._world.clock.now, master.config.removal_grace_s
        owners = {each.name: each.owners for each in found}
        names = set(owners)
        for name in self._names - names:
            self._left[name] = (now, grace_s)
            self._dropped.discard(name)
            if not self._may_vanish(master.discovery.targets, name):
                raise Violation("the last good answer stays", f"{name} vanished, now {names}")
        for name in names:
            self._left.pop(name, None)
        if names != self._names:
            self._named_at = now
        self._names = names
        self._owners |= owners

    def follows(self, config: Config) -> None:
        """A reload, or another image, that changes the grace: it counts for those in theirs."""
        self._left |= {
            name: (at, config.removal_grace_s)
            for name, (at, _) in self._left.items()
            if name not in self._dropped
        }

    def dropped(self, names: Iterable[str]) -> None:
        """The grace of these is over; it is judged when it is made known."""
        self._dropped.update(names)

    def recorded(self, state: HandoverState) -> None:
        """What was found a moment before may not be written down yet: then it is not known."""
        now, master = self._world.clock.now, self._world.master
        self._recorded = master.config if master is not None else None
        if now - self._named_at >= RECORDED_WITHIN_S and not self._world.uneven(now):
            return
        unrecorded = self._names - {each.name for each in state.found}
        self._names -= unrecorded
        for each in state.removed:
            if each.found.name in unrecorded:
                self._left[each.found.name] = (each.at, each.grace_s)

    def restarts(self, state: HandoverState, fitting: HandoverState, config: Config) -> None:
        """What belongs to other targets, or did not pass the check that is asked for, is not used.

        It counts as what left DNS: its sessions go on.
        """
        now, before = self._world.clock.now, self._recorded
        assert before is not None
        # What passed under a master before the last one may be used, or checked again.
        checks_again = before.insecure_discovery and not config.insecure_discovery
        unchecked = any(
            Candidate(each.name, address, each.port) not in self._certified
            for each in state.found
            if each.srv
            for address in each.addresses
        )
        other_targets = before.discovery_srv_name != config.discovery_srv_name
        self._anew = other_targets or (checks_again and unchecked)
        if self._anew or (checks_again and not fitting.found):
            self._left |= dict.fromkeys(self._names, (now, config.removal_grace_s))
            self._dropped -= self._names
            self._names = set()
            self._world.members_oracle.begins_anew()

    def _may_vanish(self, targets: Targets, name: str) -> bool:
        """Whether DNS named other endpoints, or said a believed no, or the certificate is bad."""
        if not any(name == member.name for member in self._world.network.members):
            return True  # of the static list, or of the member list by its address
        if self._world.members_oracle.explains(name):
            return True
        checked = not targets.config.insecure_discovery
        if checked and not any(each.name == name for each in self._certified):
            return True  # refused since; also where DNS says nothing
        lookup = targets.answers.lookup
        host = name.partition(":")[0]
        kinds = (QuestionKind.HOST, QuestionKind.SEARCH)  # named by a record, and by the list
        if any(isinstance(lookup(Question(kind, host)), Negative) for kind in kinds):
            return True
        # What the other name's servers say does not matter: after a restart it may be nothing yet.
        named_by = [Question(QuestionKind.SRV, owner) for owner in self._owners.get(name, ())]
        if named_by and all(isinstance(lookup(each), Negative) for each in named_by):
            return True
        outcomes = [lookup(owner.question) for owner in targets.owners]
        named = {
            record.target
            for outcome in outcomes
            if isinstance(outcome, Answer)
            for record in outcome.records
        }
        if name.partition(":")[0] in named:
            return not targets.config.insecure_discovery
        return any(isinstance(outcome, Answer) for outcome in outcomes) or all(
            isinstance(outcome, Negative) for outcome in outcomes
        )

    def remembered(self, master: Master, state: HandoverState) -> None:
        """What the image before knew of endpoints is what this one begins with.

        What it had in use counts as passed, also if the check refused the last endpoint there was:
        with nothing else to go on with, it stays. What left, and the record still has, is in its
        grace again: the image before ended before it wrote down that this was over.
        """
        self._dropped.difference_update(each.found.name for each in state.removed)
        self.follows(master.config)
        anew, self._anew = self._anew, False
        if anew and (state.found or state.member_list):
            raise Violation("other targets begin anew", f"{state.found} {state.member_list}")
        for each in state.found:
            addresses = each.addresses if each.srv and each.tls else ()
            self._certified |= {Candidate(each.name, a, each.port) for a in addresses}
        for name, view in state.health.items():
            mine = master.prober.watched_view(name)
            if mine is not None and mine.active is not view.active:
                raise Violation("an upgrade forgets nothing", f"{name} was active: {view.active}")

    def published(self, snapshot: Snapshot) -> None:
        """``--removal-grace``: one that left DNS stays for so long, and no longer."""
        now = self._world.clock.now
        names = {each.name for each in snapshot.endpoints}
        for each in self._last.endpoints if self._last is not None else ():
            if each.name in names:
                continue
            since, grace_s = self._left.get(each.name, (now, math.inf))
            if not grace_s and (self._has_sessions(each) or self._is_used(each)):
                raise Violation("--removal-grace", f"{each.name} left with its sessions")
            kept = self._was_active(each) or self._is_used(each)
            if now - since < grace_s - EPSILON_S and kept:
                raise Violation("--removal-grace", f"{each.name} left after {now - since:.1f} s")
        self._last = snapshot

    def _has_sessions(self, endpoint: Endpoint) -> bool:
        master = self._world.master
        member = master.last_members.get(endpoint.name) if master is not None else None
        return member is not None and member.sessions > 0

    def _is_used(self, endpoint: Endpoint) -> bool:
        """Whether a worker has a session of it that it must have reported by now."""
        world, at = self._world, self._world.clock.now - REPORTED_WITHIN_S
        late_until = max(world.master_late_until, world.uneven_until)
        return late_until < at and any(
            process.channel.open
            and process.late_until < at
            and process.sessions.has_before(endpoint.name, at)
            for process in world.processes
        )

    def _was_active(self, endpoint: Endpoint) -> bool:
        """An inactive one without sessions goes at once, also during its grace."""
        master = self._world.master
        member = master.last_members.get(endpoint.name) if master is not None else None
        return member is None or member.active or member.sessions > 0


def _all(process: Process) -> tuple[Endpoint, ...]:
    snapshot = process.table.snapshot
    return snapshot.endpoints if snapshot is not None else ()
