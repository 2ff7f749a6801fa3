"""Totals: the counters of all workers added up, dead workers included, so that no sum decreases.

A worker's report holds everything that it counted since its start; the newest report replaces the
one before. When the worker exits, its last report is added to the sum of the dead workers. What a
worker counted between its last report and a SIGKILL is lost: about one second. The sessions that it
had by its last report have ended with it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from gateway.core.counters import End
from gateway.core.messages import EndpointReport, Report
from gateway.core.records import dataclass
from supervisor.core.admin.sums import Sums, add_counts, known_fields, restore_sums
from supervisor.core.json_values import facts_of
from supervisor.core.workers.worker_id import WorkerId

NO_SESSIONS: Mapping[WorkerId, int] = {}

LATE_REPORTS = 256
"""How many dead workers are remembered, so that a late report of one is not counted twice."""


@dataclass(slots=True)
class Traffic:
    """One endpoint over the living workers: sessions now, dials that connected, bytes it sent.

    The counts go back when a worker ends.
    """

    sessions: int = 0
    dials: int = 0
    bytes_out: int = 0


@dataclass(slots=True)
class _Living:
    """A live worker: its newest report, and its sessions of endpoints that it no longer lists."""

    report: Report
    shed: int = 0


class Totals:
    """What the master adds up."""

    def __init__(self) -> None:
        self._dead = Sums()
        self._living: dict[WorkerId, _Living] = {}
        self._gone: dict[WorkerId, None] = {}
        """The last workers that are dead, the oldest first."""
        self._expected: dict[WorkerId, int] = {}
        """The sessions of the workers of a former master that have not reported yet."""
        self._known: frozenset[str] | None = None
        self._own_dropped = 0
        self.last_turned_away: dict[str, str] = {}
        """The last client that was turned away, by reason."""

    def report(self, who: WorkerId, report: Report) -> None:
        """Take the newest report of a live worker; a report that comes after gone() is ignored."""
        if who in self._gone:
            return
        self._expected.pop(who, None)
        worker = self._living.get(who)
        for reason, client in report.last_turned_away.items():
            if worker is None or worker.report.last_turned_away.get(reason) != client:
                self.last_turned_away[reason] = client
        if worker is None:
            self._living[who] = _Living(report)
            return
        for name, before in worker.report.endpoints.items():
            now = report.endpoints.get(name)
            if now is None or _went_back(before, now):
                self._dead.of(name).add(before)
                worker.shed += before.sessions_total
        worker.report = report

    def gone(self, who: WorkerId, last: Report | None = None) -> None:
        """The worker exited: add its last report to the dead workers (``last``: a final one)."""
        if last is not None:
            self.report(who, last)
        self._gone[who] = None
        if len(self._gone) > LATE_REPORTS:
            del self._gone[next(iter(self._gone))]
        self._expected.pop(who, None)
        if (worker := self._living.pop(who, None)) is not None:
            self._dead.add(worker.report)
            self._dead.add_cpu(who.slot, worker.report.cpu_s)
            add_counts(self._dead.ended, _ended_with(worker.report.sessions))
            for name, part in worker.report.endpoints.items():
                self._dead.of(name).add(part)
                add_counts(self._dead.of(name).ended, _ended_with(part.sessions))

    def count_dropped(self, lines: int) -> None:
        """The master's own process has lost so many lines of the log since it began."""
        self._dead.log_dropped += lines - self._own_dropped
        self._own_dropped = lines

    def expect(
        self, workers: Collection[WorkerId], sessions: Mapping[WorkerId, int] = NO_SESSIONS
    ) -> None:
        """These workers of a former master live, and may have sessions.

        ``sessions``: how many, as far as that is known before they report.
        """
        self._expected = {who: sessions.get(who, 0) for who in workers if who not in self._living}

    @property
    def complete(self) -> bool:
        """Whether every worker of a former master has said by now what it has, or is gone."""
        return not self._expected

    def retain(self, endpoints: Collection[str]) -> None:
        """Only these endpoints exist; keep no counters under the names of others.

        Live workers list one that left for about a second more. Until they drop it nothing of it
        is forgotten: if it comes back meanwhile, a part of its figures would be a counter that
        went back.
        """
        self._known = frozenset(endpoints)
        reports = [worker.report.endpoints for worker in self._living.values()]
        for name in [name for name in self._dead.endpoints if name not in self._known]:
            if not any(name in listed for listed in reports):
                self._dead.forget(name)

    def sums(self) -> Sums:
        """The sums over live and dead workers, as a new value."""
        total = Sums()
        total.add(self._dead)
        total.forgotten.add(self._dead.forgotten)
        total.cpu_s = dict(self._dead.cpu_s)
        total.sessions = sum(self._expected.values())
        for name, part in self._dead.endpoints.items():
            total.of(name).add(part)
        for who, worker in self._living.items():
            total.sessions += worker.report.sessions
            total.add(worker.report)
            total.add_cpu(who.slot, worker.report.cpu_s)
            for name, counted in worker.report.endpoints.items():
                total.of(name).add_living(counted)
        if self._known is not None:
            for name in [name for name in total.endpoints if name not in self._known]:
                total.forget(name)
        return total

    def turned_away(self) -> dict[str, int]:
        """Clients that were turned away, by reason, over live and dead workers."""
        total = dict(self._dead.turned_away)
        for worker in self._living.values():
            add_counts(total, worker.report.turned_away)
        return total

    def worker_sessions(self, who: WorkerId) -> int:
        """Sessions of this worker now, including those that are still dialing."""
        if (worker := self._living.get(who)) is None:
            return self._expected.get(who, 0)
        return worker.report.sessions

    def worker_sessions_total(self, who: WorkerId) -> int:
        """Sessions of this worker that reached an endpoint, since its start."""
        if (worker := self._living.get(who)) is None:
            return 0
        return worker.shed + sum(each.sessions_total for each in worker.report.endpoints.values())

    def traffic(self) -> dict[str, Traffic]:
        """What of each endpoint moves, over the living workers that list it.

        The master asks every second, and sums() would take 20 ms (3,000 endpoints, 8 workers).
        """
        total: dict[str, Traffic] = {}
        for worker in self._living.values():
            for name, counted in worker.report.endpoints.items():
                if (entry := total.get(name)) is None:
                    entry = total[name] = Traffic()
                entry.sessions += counted.sessions
                entry.dials += counted.dials.get("connected", 0)
                entry.bytes_out += counted.bytes_out
        return total

    def sessions_by_worker(self) -> dict[WorkerId, dict[str, int]]:
        """Sessions by endpoint of each living worker."""
        return {
            who: {name: each.sessions for name, each in worker.report.endpoints.items()}
            for who, worker in self._living.items()
        }

    def sessions_by_address(self) -> dict[str, dict[str, int]]:
        """The same by endpoint and address, for the endpoints with several addresses."""
        total: dict[str, dict[str, int]] = {}
        for worker in self._living.values():
            for name, counted in worker.report.endpoints.items():
                if counted.addresses:
                    add_counts(total.setdefault(name, {}), counted.addresses)
        return total

    @property
    def live_sessions(self) -> int:
        """Sessions over all workers, including those that are still dialing."""
        reported = sum(worker.report.sessions for worker in self._living.values())
        return reported + sum(self._expected.values())

    def export(self) -> dict[str, Any]:
        """Everything as values that JSON can carry, for the next image of the master."""
        return {
            "dead": facts_of(self._dead, "forgotten") | _endpoint_facts(self._dead.endpoints),
            "living": [
                {
                    "slot": who.slot,
                    "gen": who.gen,
                    "shed": worker.shed,
                    "report": facts_of(worker.report) | _endpoint_facts(worker.report.endpoints),
                }
                for who, worker in self._living.items()
            ],
        }

    @classmethod
    def restore(cls, document: Mapping[str, Any]) -> Totals:
        """The reverse of export(). It skips unknown keys: the images' releases may differ."""
        totals = cls()
        totals._dead = restore_sums(document["dead"])
        for each in document["living"]:
            who = WorkerId(each["slot"], each["gen"])
            totals._living[who] = _Living(_report(each["report"]), each["shed"])
        return totals


def _endpoint_facts(endpoints: Mapping[str, Any]) -> dict[str, Any]:
    return {"endpoints": {name: facts_of(each) for name, each in endpoints.items()}}


def _ended_with(sessions: int) -> dict[str, int]:
    """What ends with a worker that had this many sessions, which is none if it ended in order."""
    return {End.ERROR.value: sessions} if sessions else {}


def _went_back(before: EndpointReport, now: EndpointReport) -> bool:
    """Whether the worker forgot the endpoint and counted from zero again between two reports."""
    return (
        now.sessions_total < before.sessions_total
        or now.bytes_in < before.bytes_in
        or now.bytes_out < before.bytes_out
        or any(now.dials.get(result, 0) < count for result, count in before.dials.items())
    )


def _report(document: Mapping[str, Any]) -> Report:
    endpoints = {
        name: EndpointReport(**known_fields(EndpointReport, each))
        for name, each in document["endpoints"].items()
    }
    return Report(**known_fields(Report, document) | {"endpoints": endpoints})
