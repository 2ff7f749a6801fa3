"""The master's member sync in virtual time: the real rules, and a model of the shell."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from gateway.core.address import literal_ip
from supervisor.core.backoff import around_s
from supervisor.core.discovery import adoption, joining
from supervisor.core.discovery.adoption import (
    AdoptedList,
    Heard,
    Hearing,
    Proposal,
    Refusal,
    Unchanged,
)
from supervisor.core.discovery.endpoints import Discovered
from supervisor.core.discovery.member_list import MemberTarget, parse_list
from supervisor.core.discovery.questions import Answer, Outcome, Question
from supervisor.core.discovery.schedule import URGENT_S
from supervisor.core.discovery.seed_votes import SeedVotes
from supervisor.core.discovery.targets import host_question
from supervisor.discovery.member_questions import MOST_AT_ONCE
from supervisor.discovery.member_sync import MOST_ASKED
from tests.simulation.network import RTT_S, Mode

if TYPE_CHECKING:
    from tests.simulation.discovery import Discovery
    from tests.simulation.master import Master

TIMEOUT_S = 0.5


class MemberSync:
    """One question at a time; ``rejoin`` is called when the endpoints may have to change."""

    def __init__(self, master: Master, discovery: Discovery, rejoin: Callable[[], None]) -> None:
        self._master = master
        self._world = master.world
        self._discovery = discovery
        self._rejoin = rejoin
        self.adopted: AdoptedList | None = None
        self._votes = SeedVotes()
        self._outsiders: set[str] = set()
        self._world.members_oracle.begins(None)
        self._started = self._busy = self._again = False
        self._by_operator = False
        self._any_active = True
        self._asked_everybody = False
        self._last_asked = ""
        self._due_at = 0.0

    def remember(self, adopted: AdoptedList | None) -> None:
        self.adopted = adopted if self._world.setup.synced else None
        if self.adopted is not None:
            self._votes.settle()
            self._outsiders = set(self.adopted.outsiders)
        self._world.members_oracle.begins(self.adopted)

    @property
    def votes(self) -> Mapping[str, int]:
        """The cluster of each seed that has said it."""
        return self._votes.clusters

    def start(self) -> None:
        if self._world.setup.synced and not self._started:
            self._started = True
            self._sync()

    def reload(self) -> None:
        """An operator reloaded: ask at once, and let another cluster be adopted."""
        self._by_operator = True
        self.start()
        self._kick()

    def set_any_active(self, any_active: bool) -> None:
        lost, self._any_active = self._any_active and not any_active, any_active
        if lost:
            self._kick()

    def _kick(self) -> None:
        if self._started and not self._busy:
            self._sync()
        self._again = self._busy

    def _wait(self) -> None:
        """It is over: the next question follows at once if it was asked for meanwhile."""
        self._busy = False
        again, self._again = self._again, False
        wait_s = self._master.config.member_sync_s
        if not self._any_active:
            wait_s = min(wait_s, URGENT_S)
        now = self._world.clock.now
        self._due_at = now if again else now + around_s(wait_s, self._world.randrange)
        self._master.at(self._due_at, self._on_due, self._due_at)

    def _on_due(self, due_at: float) -> None:
        if due_at == self._due_at and not self._busy:
            self._sync()

    # -- one question ----------------------------------------------------------------------------

    def _sync(self) -> None:
        self._busy = True
        by_operator, self._by_operator = self._by_operator, False
        known = {each.name: each for each in self._discovery.resolution.known}
        self._asked_everybody = not self._any_active
        active = [n for n in self._master.active_names() if n in known and self._any_active]
        seeds = joining.find_seeds(self._discovery.resolution, self.adopted)
        followed = self.adopted.cluster_id if self.adopted else None
        self._votes.begin(seeds.names, seeds.members, followed, by_operator=by_operator)
        self._outsiders &= seeds.names
        self._world.members_oracle.asks(seeds.names, by_operator=by_operator)
        hearing = Hearing(self.adopted, self._votes, by_operator=by_operator)
        order = adoption.order_to_ask(
            tuple(known),
            active,
            last=self._last_asked,
            draw=self._world.randrange,
            most=MOST_AT_ONCE if hearing.any_cluster else MOST_ASKED,
        )
        self._ask([known[name] for name in order], hearing, by_operator)

    def _ask(self, order: list[Discovered], hearing: Hearing, by_operator: bool) -> None:
        """Ask one after the other until an answer may be followed; who is silent costs its time."""
        if not order:
            self._conclude(hearing, by_operator)
            return
        heard, wait_s = self._answer_of(order[0])
        self._master.soon(wait_s, self._hear, heard, order[1:], hearing, by_operator)

    def _hear(
        self, heard: Heard | None, others: list[Discovered], hearing: Hearing, by_operator: bool
    ) -> None:
        if heard is not None:
            self._world.members_oracle.heard(heard)
            if hearing.take(heard):
                self._world.members_oracle.heard_enough(hearing)
                others = []
        self._ask(others, hearing, by_operator)

    def _answer_of(self, endpoint: Discovered) -> tuple[Heard | None, float]:
        """The first of its addresses that answers; an answer goes the way of a real one."""
        network, wait_s = self._world.network, 0.0
        for address in endpoint.addresses:
            mode = network.modes[address]
            wait_s += TIMEOUT_S if mode is Mode.SILENT else RTT_S
            told = network.tell_list(address) if mode in (Mode.WELL, Mode.SICK) else None
            if told is not None:
                document, leaderless = told
                heard = Heard(
                    listed=parse_list(document),
                    endpoint=endpoint.name,
                    from_elsewhere=True,
                    leaderless=leaderless,
                )
                return heard, wait_s
        return None, wait_s

    def _conclude(self, hearing: Hearing, by_operator: bool) -> None:
        """What the members said, as far as it is followed."""
        self._outsiders = hearing.outsiders(self._outsiders)
        if hearing.outcome is None:
            self._by_operator |= by_operator and not hearing.is_decided
            self._fail()
            return
        heard, judged = hearing.outcome
        self._last_asked = heard.endpoint
        match judged:
            case Unchanged():
                self._by_operator |= by_operator and not hearing.is_decided
                self._confirm(True)
                self._wait()
            case Proposal():
                self._dial_all(judged, heard, by_operator)

    def _dial_all(self, proposal: Proposal, heard: Heard, by_operator: bool) -> None:
        """Look the names up and dial what they mean, beside each other."""
        failures: dict[MemberTarget, str] = {}
        left = len(proposal.adopted.targets)

        def done(target: MemberTarget, addresses: tuple[str, ...]) -> None:
            nonlocal left
            if not any(self._can_dial(address) for address in addresses):
                failures[target] = "not reached"
            left -= 1
            if not left:
                self._judge(proposal, failures, heard, by_operator)

        def looked_up(target: MemberTarget) -> Callable[[Question, Outcome], None]:
            def take(_: Question, outcome: Outcome) -> None:
                done(target, outcome.addresses if isinstance(outcome, Answer) else ())

            return take

        for target in proposal.adopted.targets:
            if literal := literal_ip(target.address.host):
                self._master.soon(RTT_S, done, target, (literal,))
            else:
                self._discovery.look_up(host_question(target.address), looked_up(target))

    def _can_dial(self, address: str) -> bool:
        world = self._world
        reached = world.network.modes[address] in (Mode.WELL, Mode.SICK)
        return reached and (not world.setup.secured or world.is_certified(address))

    def _judge(
        self,
        proposal: Proposal,
        failures: dict[MemberTarget, str],
        heard: Heard,
        by_operator: bool,
    ) -> None:
        verdict = adoption.judge(proposal, failures)
        if isinstance(verdict, Refusal):
            self._by_operator |= by_operator
            self._fail()
            return
        reached = {each for each in proposal.adopted.targets if each not in failures}
        self._world.members_oracle.adopted(
            self.adopted, verdict, heard, reached, by_operator=by_operator
        )
        if self.adopted is not None and self.adopted.cluster_id != verdict.cluster_id:
            self._outsiders.clear()
        self.adopted = verdict
        self._rejoin()
        self._wait()

    def _fail(self) -> None:
        seeds_used = self.adopted is not None and not self.adopted.confirmed
        if seeds_used or (self._asked_everybody and not self._any_active):
            self._confirm(False)
        self._wait()

    def _confirm(self, confirmed: bool) -> None:
        if (before := self.adopted) is None:
            return
        outsiders = frozenset() if confirmed else frozenset(self._outsiders)
        self.adopted = dataclasses.replace(before, confirmed=confirmed, outsiders=outsiders)
        if self.adopted != before:
            self._rejoin()
