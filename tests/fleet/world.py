"""What a fleet stands in front of: the members of a cluster, and DNS with its caches."""

from __future__ import annotations

from dataclasses import dataclass

from supervisor.core.discovery.endpoints import Answer, Question, QuestionKind, SrvRecord
from tests.fleet.clock import Clock, PerSecond

DOMAIN = "example.com"


class Member:
    """One member of the cluster, as all hosts together load it."""

    def __init__(self, clock: Clock, number: int, all_probes: PerSecond) -> None:
        self.host = f"infra{number}.{DOMAIN}"
        self.name = f"{self.host}:2379"
        self.address = f"10.0.0.{number + 1}"
        self.alive = True
        self.silent = False
        """Dead without a word: packets vanish, as when the whole machine is gone."""
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

    def answer(self, question: Question, ttl_s: float) -> Answer:
        if question.kind is QuestionKind.SRV:
            records = tuple(SrvRecord(0, 0, 2379, member.host) for member in self.members)
            return Answer(ttl_s, records=records)
        addresses = {member.host: member.address for member in self.members}
        return Answer(ttl_s, addresses=(addresses[question.name],))


class Cache:
    """A caching resolver that many hosts share: its answers carry what is left of the TTL."""

    def __init__(self, clock: Clock, zone: Zone, queries: PerSecond) -> None:
        self._clock = clock
        self._zone = zone
        self._queries = queries
        self._expires_at: dict[Question, float] = {}

    def ask(self, question: Question) -> Answer:
        self._queries.note()
        now = self._clock.now
        if self._expires_at.get(question, 0.0) <= now:
            self._expires_at[question] = now + self._zone.ttl_s
        return self._zone.answer(question, self._expires_at[question] - now)
