"""The master's discovery in virtual time: the real answers, inquiries, admission and schedule."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from gateway.core.address import HostPort
from supervisor.core.config import Config
from supervisor.core.discovery import endpoints as core
from supervisor.core.discovery import joining, targets
from supervisor.core.discovery.address_order import order_families
from supervisor.core.discovery.admission import Admission, Candidate, Passed, Refused, Unreachable
from supervisor.core.discovery.answers import CONFIRM_S, Answers, Refresh
from supervisor.core.discovery.endpoints import Discovered
from supervisor.core.discovery.inquiry import GaveUp, Patience, inquire
from supervisor.core.discovery.loop_guard import without_own
from supervisor.core.discovery.nameservers import Nameservers
from supervisor.core.discovery.outcomes import join_families, srv_outcome
from supervisor.core.discovery.questions import Failure, Negative, Outcome, Question, QuestionKind
from supervisor.core.discovery.replies import Meaning, ReplyKind
from supervisor.core.discovery.resolution import Resolution
from supervisor.core.discovery.schedule import next_due
from tests.simulation.member_sync import MemberSync
from tests.simulation.network import RTT_S, Mode
from tests.simulation.oracles import AnswersOracle

if TYPE_CHECKING:
    from supervisor.core.discovery.adoption import AdoptedList
    from tests.simulation.master import Master

LISTEN = (HostPort("127.0.0.1", 23790),)
PATIENCE = Patience(timeout_s=0.5, attempts=2, lifetime_s=3.0)


class Targets:
    """What is held for one configuration; a candidate begins with copies of what is known."""

    def __init__(self, config: Config, before: Targets | None = None) -> None:
        self.config = config
        self.owners = targets.owners(config)
        self.refresh = Refresh(
            config.discovery_refresh,
            config.discovery_refresh_s,
            confirm_s=config.removal_grace_s or CONFIRM_S,
        )
        self.answers: Answers = before.answers.copy() if before else Answers()
        self.oracle: AnswersOracle = before.oracle.copy() if before else AnswersOracle()
        self.admission: Admission = before.admission.copy() if before else Admission()
        self.in_use: tuple[Question, ...] = ()

    def remember(self, found: tuple[Discovered, ...], now: float, *, same_check: bool) -> None:
        self.answers.remember(found, now)
        self.oracle.remember(self.answers, found)
        if same_check and not self.config.insecure_discovery:
            self.admission.remember(found, now)

    def next_at(self) -> float:
        return min(self.answers.next_at(self.in_use), self.admission.next_at())


class Discovery:
    """One resolution at a time; ``on_found`` gets the endpoints when they change."""

    def __init__(self, master: Master, on_found: Callable[[tuple[Discovered, ...]], None]) -> None:
        self._master = master
        self._world = master.world
        self._on_found = on_found
        self.targets = Targets(master.config)
        self._nameservers = Nameservers(len(self._world.network.servers))
        self._candidate: Config | None = None
        self._force = False
        self._busy = False
        self._poll_at = math.inf
        self._asked_all_at = -math.inf
        self._any_active = True
        self.found: tuple[Discovered, ...] = ()
        self.resolution = Resolution()
        """The last one that was made known."""
        self.joined: AdoptedList | None = None
        """The member list that the last published endpoints follow."""
        self.started = self._list_changed = False
        self._former_check: str | None = None
        self.sync = MemberSync(master, self, self._rejoin)

    @property
    def tls_check(self) -> str:
        """The TLS check that the endpoints in use have passed."""
        check = targets.describe_tls_check(self.targets.config)
        return check if self.started or self._former_check is None else self._former_check

    def remember(
        self,
        found: tuple[Discovered, ...],
        adopted: AdoptedList | None,
        *,
        tls_check: str | None,
    ) -> None:
        """As ``DiscoveryLoop.remember``: what a former master had in use."""
        check = targets.describe_tls_check(self.targets.config)
        self._former_check = tls_check
        same_check = tls_check in (None, check)
        self.targets.remember(found, self._world.clock.now, same_check=same_check)
        self.sync.remember(adopted)

    def refresh(self) -> None:
        self._force = True
        self.poll()

    def reload(self, config: Config) -> None:
        self._candidate = config
        self.refresh()

    def set_any_active(self, any_active: bool) -> None:
        if self._any_active != any_active:
            self._any_active = any_active
            self.sync.set_any_active(any_active)
            self.poll()

    def _rejoin(self) -> None:
        """The member list changed: endpoints follow it; DNS is asked only what is due."""
        self._list_changed = True
        self.poll()

    def poll(self) -> None:
        """Begin a resolution if one is due, else look again when one is."""
        if self._busy:
            return
        now = self._world.clock.now
        urgent = not self._any_active and self.targets.config.discovery_refresh != "off"
        due = next_due(
            self.targets.next_at() if self.started else min(self.targets.next_at(), math.inf),
            asked_all_at=self._asked_all_at,
            urgent=urgent and self.started,
        )
        asked_for = self._force or self._list_changed
        if asked_for or due.at <= now or self._asked_all_at == -math.inf:
            everything = self._force or (due.everything and due.at <= now)
            self._begin(force=everything, recheck=self._force)
        elif due.at < self._poll_at or self._poll_at <= now:
            self._poll_at = due.at
            self._master.at(due.at, self.poll)

    def _begin(self, *, force: bool, recheck: bool) -> None:
        self._busy = True
        self._force = self._list_changed = False
        adopted = self.sync.adopted
        candidate, self._candidate = self._candidate, None
        targets = self.targets if candidate is None else Targets(candidate, self.targets)
        now = self._world.clock.now
        if force or self._asked_all_at == -math.inf:
            self._asked_all_at = now
        owners = [owner.question for owner in targets.owners]

        def hosts(asked_owners: bool) -> None:
            questions = [
                *core.hosts_to_look_up(targets.owners, targets.answers.lookup),
                *joining.member_questions(adopted),
            ]
            targets.in_use = (*owners, *questions)
            self._ask(targets, questions, force, lambda _: check(asked_owners, questions))

        def check(renewed: bool, questions: list[Question]) -> None:
            targets.answers.keep({*owners, *questions})
            targets.oracle.keep({*owners, *questions})
            lookup = targets.answers.lookup
            joined = joining.join(core.find_srv(targets.owners, lookup), adopted, lookup, srv=True)
            found = self._without_own(joined.endpoints)
            joined = dataclasses.replace(joined, endpoints=found)
            if targets.config.insecure_discovery:
                self._finish(targets, found, joined, candidate, adopted, force=force)
                return
            now = self._world.clock.now
            single = joining.without_doubles(Resolution(found, found=found), adopted).endpoints
            candidates = targets.admission.to_check(
                single, now, everything=recheck, renewed=renewed
            )
            self._check_tls(targets, candidates, lambda: admitted(joined, single))

        def admitted(joined: core.Findings, single: tuple[Discovered, ...]) -> None:
            used = targets.admission.admitted(single)
            self._world.oracle.admitted(used)
            self._finish(targets, used, joined, candidate, adopted, force=force)

        self._ask(targets, owners, force, hosts)

    def _finish(
        self,
        targets: Targets,
        usable: tuple[Discovered, ...],
        joined: core.Findings,
        candidate: Config | None,
        adopted: AdoptedList | None,
        *,
        force: bool,
    ) -> None:
        self._busy = False
        if force:
            self._asked_all_at = self._world.clock.now
        if targets.config.endpoints_given and not any(not each.listed for each in usable):
            lookup = targets.answers.lookup
            static = core.find_static(targets.config, lookup)
            joined = joining.join(static, adopted, lookup, srv=False)
            usable = self._without_own(joined.endpoints)
            joined = dataclasses.replace(joined, endpoints=usable)
        result = Resolution(usable, found=joined.endpoints, absent=joined.absent)
        result = joining.follow(result, adopted)
        found = result.endpoints
        if candidate is not None:
            if not found:
                self._master.on_reloaded(None)
                self.poll()
                return
            self.targets = targets
            self._master.on_reloaded(candidate)
            self.sync.reload()
        if found or self.started:
            self._world.oracle.resolved(targets, found, adopted)
            self._world.members_oracle.resolved(usable, found, adopted, result.found)
            self.resolution = result
            relisted, self.joined = self.joined != adopted, adopted
            if found:
                self._former_check = None
            if found != self.found:
                self.found = found
                self._on_found(found)
            elif relisted:
                self._master.write_record()
            if found and not self.started:
                self.started = True
                self.sync.start()
        self.poll()

    def _without_own(self, found: Iterable[Discovered]) -> tuple[Discovered, ...]:
        kept = []
        for each in found:
            left, _ = without_own(each, LISTEN, lambda _: False, lambda *_: False)
            if left is not None:
                addresses = order_families(left.addresses, lambda _: True)
                kept.append(dataclasses.replace(left, addresses=addresses))
        return tuple(kept)

    # -- questions ----------------------------------------------------------------------------

    def _ask(
        self,
        targets: Targets,
        questions: Iterable[Question],
        force: bool,
        then: Callable[[bool], None],
    ) -> None:
        """Ask those that are due, or all, beside each other; ``then`` hears whether any was."""
        now = self._world.clock.now
        asked = list(questions) if force else list(targets.answers.due(questions, now))
        left = len(asked)
        if not left:
            then(False)
            return

        def take(question: Question, outcome: Outcome) -> None:
            nonlocal left
            now = self._world.clock.now
            refresh = targets.refresh
            targets.answers.take(
                question, outcome, now=now, refresh=refresh, draw=self._world.randrange
            )
            targets.oracle.took(targets.answers, question, outcome, now, refresh)
            left -= 1
            if not left:
                then(True)

        for question in asked:
            self.look_up(question, take)

    def look_up(self, question: Question, take: Callable[[Question, Outcome], None]) -> None:
        if question.kind is QuestionKind.SRV:
            self._inquire(question.name, "SRV", lambda end: take(question, _srv(end)))
            return
        heard: dict[int, Meaning | Negative | Failure] = {}

        def one(version: int, end: Meaning | GaveUp) -> None:
            heard[version] = _outcome(end)
            if len(heard) == 2:
                take(question, join_families(heard))

        self._inquire(question.name, "A", lambda end: one(4, end))
        self._inquire(question.name, "AAAA", lambda end: one(6, end))

    def _inquire(self, name: str, kind: str, then: Callable[[Meaning | GaveUp], None]) -> None:
        """One inquiry, each query of which takes its time."""
        course = inquire(self._nameservers, PATIENCE, self._world.clock.now)
        network = self._world.network

        def query(attempt: object) -> None:
            heard, at = network.reply(name, kind, attempt, self._world.clock.now)  # type: ignore[arg-type]
            self._master.at(at, go_on, heard)

        def go_on(heard: object) -> None:
            try:
                attempt = course.send(heard)  # type: ignore[arg-type]
            except StopIteration as end:
                then(end.value)
            else:
                query(attempt)

        query(next(course))

    # -- the TLS gate -------------------------------------------------------------------------

    def _check_tls(
        self, targets: Targets, candidates: Iterable[Candidate], then: Callable[[], None]
    ) -> None:
        todo = list(candidates)
        left = len(todo)
        if not left:
            then()
            return

        def judge(candidate: Candidate, verdict: Passed | Refused | Unreachable) -> None:
            nonlocal left
            targets.admission.take(candidate, verdict, self._world.clock.now)
            if isinstance(verdict, Passed):
                self._world.oracle.certified(candidate)
            elif isinstance(verdict, Refused) and not verdict.hung_up and targets is self.targets:
                self._world.oracle.refuted(candidate)  # a reload that fails changes nothing
            left -= 1
            if not left:
                then()

        for candidate in todo:
            mode = self._world.network.modes[candidate.address]
            verdict: Passed | Refused | Unreachable
            wait_s = RTT_S * 3
            if mode is Mode.REFUSING:
                verdict = Unreachable("refused")
            elif mode is Mode.SILENT:
                verdict, wait_s = Unreachable("timeout"), 0.5
            elif self._world.is_certified(candidate.address):
                verdict = Passed()
            else:
                verdict = Refused("expired", hung_up=self._world.draw() < 0.2)
            self._master.at(self._world.clock.now + wait_s, judge, candidate, verdict)


def _srv(end: Meaning | GaveUp) -> Outcome:
    outcome = _outcome(end)
    return srv_outcome(outcome) if isinstance(outcome, Meaning) else outcome


def _outcome(end: Meaning | GaveUp) -> Meaning | Negative | Failure:
    if isinstance(end, GaveUp):
        return Failure("; ".join(end.errors.values()), silent=end.silent)
    if end.kind is ReplyKind.RECORDS:
        return end
    return Negative(end.text, end.ttl_s)
