"""What a fleet stands in front of: the members of a cluster, and DNS with its caches."""

from __future__ import annotations

from dataclasses import dataclass, field

from supervisor.core.discovery.questions import Answer, Question, QuestionKind, SrvRecord
from tests.fleet.clock import Clock, PerSecond

DOMAIN = "example.com"
OWNER = f"_etcd-client._tcp.{DOMAIN}"
PORT = 2379

RTT_S = 0.0005
"""One round trip inside a data centre."""


class Member:
    """One member of the cluster, as all hosts together load it."""

    def __init__(self, clock: Clock, number: int, all_probes: PerSecond, zone: int) -> None:
        self.host = f"infra{number}.{DOMAIN}"
        self.name = f"{self.host}:{PORT}"
        self.zone = zone
        self.address = f"10.{zone}.0.{number + 1}"
        self.alive = True
        self.silent = False
        """Dead without a word: packets vanish, as when the whole machine is gone."""
        self.latency_s = RTT_S
        """How long it takes to answer."""
        self.sessions = 0
        self.probes = PerSecond(clock)
        self._all_probes = all_probes
        self.dials = PerSecond(clock)

    def note_probe(self) -> None:
        self.probes.note()
        self._all_probes.note()


@dataclass(slots=True)
class Zone:
    """The SRV records of the cluster and the addresses of its members."""

    members: list[Member]
    ttl_s: float
    questions: PerSecond
    """What the caches ask the nameservers of the zone."""
    gone: set[str] = field(default_factory=set)
    """Members that have no SRV record any more."""

    def answer(self, question: Question) -> Answer:
        self.questions.note()
        if question.kind is QuestionKind.SRV:
            there = [member for member in self.members if member.name not in self.gone]
            records = tuple(SrvRecord(0, 0, PORT, member.host) for member in there)
            return Answer(self.ttl_s, records=records)
        addresses = {member.host: member.address for member in self.members}
        return Answer(self.ttl_s, addresses=(addresses[question.name],))


class Cache:
    """A caching resolver that many hosts share: its answers carry what is left of the TTL."""

    def __init__(self, clock: Clock, zone: Zone, queries: PerSecond, *, aged_s: float) -> None:
        """``aged_s``: how old the answers are that it has when time begins."""
        self._clock = clock
        self._zone = zone
        self._queries = queries
        self._aged_s = aged_s
        self._held: dict[Question, tuple[float, Answer]] = {}

    def ask(self, question: Question) -> Answer:
        self._queries.note()
        now = self._clock.now
        expires_at, answer = self._held.get(question) or (-1.0, None)
        if answer is None or expires_at <= now:
            aged_s = 0.0 if answer else self._aged_s
            expires_at, answer = now + self._zone.ttl_s - aged_s, self._zone.answer(question)
            self._held[question] = (expires_at, answer)
        return Answer(expires_at - now, records=answer.records, addresses=answer.addresses)
