"""What DNS last said to each question: the last good answer, and when to ask again.

The last good answer stays in use through every failure. A definite no after a good answer is
distrusted, because a zone that was loaded empty looks just like a service that is gone: the answer
stays until the no has been confirmed for ``confirm_s``, again and again: two noes of a moment each
are no confirmation.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterable, Mapping
from typing import assert_never

from gateway.core.records import dataclass
from supervisor.core.backoff import STEPS, Draw, delay_s
from supervisor.core.discovery.endpoints import Discovered
from supervisor.core.discovery.questions import (
    Answer,
    Failure,
    Negative,
    Outcome,
    Question,
    QuestionKind,
    SrvRecord,
)

MIN_TTL_S = 5.0
MAX_TTL_S = 300.0
"""No zone makes us ask more often than MIN_TTL_S, or believe longer than MAX_TTL_S."""

CONFIRM_S = 30.0
"""How long a definite no is distrusted after a good answer, unless the configuration says."""

CONFIRMATIONS = 6
"""How often a distrusted no is heard again until it is believed, no more often than MIN_TTL_S."""

FIRST_RETRY_S = 0.5
MAX_RETRY_S = 30.0
MAX_FIRST_RETRY_S = 5.0
"""The wait before a retry doubles from FIRST_RETRY_S up to MAX_RETRY_S, or up to
MAX_FIRST_RETRY_S while the question has never been answered."""

MAX_JITTER_S = 30.0
"""A TTL is outlived by a tenth at most, and never by more than this.

Hosts behind one cache get what is left of the same TTL, so they would all ask as it ends. Asking
before that would help nobody: the cache still gives the old answer. Where an interval is ours and
no cache's, the one after a start or a reload is drawn as a whole, so that hosts which were started
or reloaded together ask at different times from then on."""


@dataclass(frozen=True, slots=True)
class Refresh:
    """When to ask again: ``mode`` is ``ttl``, ``fixed`` (every ``interval_s``) or ``off``."""

    mode: str = "ttl"
    interval_s: float = 0.0
    confirm_s: float = CONFIRM_S

    def delay_s(self, ttl_s: float) -> float:
        match self.mode:
            case "fixed":
                return self.interval_s
            case "off":
                return math.inf
            case _:
                return min(max(ttl_s, MIN_TTL_S), MAX_TTL_S)

    def is_ours(self, ttl_s: float) -> bool:
        """Whether the delay is ours to choose, and not the end of an answer's life."""
        return self.mode == "fixed" or (self.mode == "ttl" and ttl_s > MAX_TTL_S)


@dataclass(frozen=True, slots=True)
class Entry:
    """What is held of one question. ``error``: how the newest attempt failed, "" if it did not.

    ``negative_since``: when a definite no was first heard that is not believed yet. ``useless``:
    answers in a row of no use to this host.
    """

    held: Outcome
    due_at: float
    error: str = ""
    failures: int = 0
    negative_since: float | None = None
    useless: int = 0


class Answers:
    """``now`` is of the monotonic clock; ``draw`` spreads the questions of many gateways."""

    def __init__(self) -> None:
        self._entries: dict[Question, Entry] = {}

    def copy(self) -> Answers:
        """The same memory, to try a new configuration on."""
        twin = Answers()
        twin._entries = dict(self._entries)
        return twin

    def remember(
        self,
        found: Iterable[Discovered],
        now: float,
        *,
        hosts: Mapping[str, Iterable[str]] | None = None,
    ) -> None:
        """Begin with what a former master had in use; all of it is asked for at once.

        Without this, DNS that fails just after an upgrade would take endpoints away.
        ``hosts``: addresses of further names.
        """
        records: dict[str, list[SrvRecord]] = {}
        addresses: dict[str, dict[str, None]] = {}
        for host, known in (hosts or {}).items():
            self._hold(host, Answer(0.0, addresses=tuple(known)), now)
        for each in found:
            # Another port of the host may have been left without some of them.
            of_host = addresses.setdefault(each.host, {})
            of_host |= dict.fromkeys(each.addresses)
            self._hold(each.host, Answer(0.0, addresses=tuple(of_host)), now)
            record = SrvRecord(each.priority, each.weight, each.port, each.host)
            for owner in each.owners:
                records.setdefault(owner, []).append(record)
        for owner, named in records.items():
            answer = Answer(0.0, records=tuple(named))
            self._entries[Question(QuestionKind.SRV, owner)] = Entry(answer, now)

    def _hold(self, host: str, answer: Answer, now: float) -> None:
        for kind in (QuestionKind.HOST, QuestionKind.SEARCH):
            self._entries[Question(kind, host)] = Entry(answer, now)

    def lookup(self, question: Question) -> Outcome | None:
        """The last good answer, else the newest outcome; None if the question was never asked."""
        entry = self._entries.get(question)
        return entry.held if entry else None

    def take(
        self,
        question: Question,
        outcome: Outcome,
        *,
        now: float,
        refresh: Refresh,
        draw: Draw,
        useless: bool = False,
    ) -> None:
        """Remember an outcome and decide when to ask again.

        ``useless``: an answer that lacks a family, of addresses that this host has no way to.
        """
        old = self._entries.get(question)
        match outcome:
            case Answer():
                entry = self._answered(old, outcome, now, refresh, draw)
                if useless:
                    entry = _hurried(entry, old, now, draw)
            case Negative():
                entry = self._denied(old, outcome, now, refresh, draw)
            case Failure():
                entry = self._failed(old, outcome, now, refresh, draw)
            case _:
                assert_never(outcome)
        self._entries[question] = entry

    def due(self, questions: Iterable[Question], now: float) -> tuple[Question, ...]:
        """Those of the questions that are to be asked now."""
        return tuple(q for q in questions if (e := self._entries.get(q)) is None or e.due_at <= now)

    def next_at(self, questions: Iterable[Question]) -> float:
        """When the first of these is due again; infinity if none ever is."""
        entries = (self._entries.get(question) for question in questions)
        return min((entry.due_at for entry in entries if entry is not None), default=math.inf)

    def entries(self, questions: Iterable[Question]) -> dict[Question, Entry]:
        """What is held of these, for :meth:`go_back`."""
        return {q: self._entries[q] for q in questions if q in self._entries}

    def go_back(
        self,
        question: Question,
        before: Entry,
        outcome: Negative | Failure,
        *,
        now: float,
        refresh: Refresh,
        draw: Draw,
    ) -> None:
        """The newest answer is no better than ``outcome``, which is taken in its place."""
        self._entries[question] = before
        self.take(question, outcome, now=now, refresh=refresh, draw=draw)

    def keep(self, questions: Collection[Question]) -> None:
        """Forget all other questions."""
        self._entries = {q: e for q, e in self._entries.items() if q in questions}

    @property
    def searched(self) -> frozenset[str]:
        """The hosts that are held and for which the search list counts."""
        return frozenset(q.name for q in self._entries if q.kind is QuestionKind.SEARCH)

    def trusted(self, question: Question) -> bool:
        """Whether the newest outcome is what is held: an answer, or a no that is believed.

        An answer of one address family is one, whatever became of the other.
        """
        entry = self._entries.get(question)
        if entry is None or isinstance(entry.held, Failure):
            return False
        return not entry.failures and entry.negative_since is None

    def errors(self, in_use: Collection[Question]) -> tuple[str, ...]:
        """The newest failures behind the answers to these questions that are still in use.

        Their order stays, whatever that of the questions: servers rotate records.
        """
        wanted = frozenset(in_use)
        return tuple(
            f"{question}: {entry.error}"
            for question, entry in self._entries.items()
            if entry.error and isinstance(entry.held, Answer) and question in wanted
        )

    def _answered(
        self, old: Entry | None, answer: Answer, now: float, refresh: Refresh, draw: Draw
    ) -> Entry:
        if answer.unanswered and old and isinstance(old.held, Answer):
            kept = (a for a in old.held.addresses if _version(a) in answer.unanswered)
            answer = dataclasses.replace(answer, addresses=(*answer.addresses, *kept))
        wait_s = _jittered(refresh.delay_s(answer.ttl_s), draw)
        asked_early = old is None or now < old.due_at
        if asked_early and refresh.is_ours(answer.ttl_s):
            wait_s *= 1 - draw(STEPS) / STEPS
        return Entry(answer, now + wait_s, error=answer.error)

    def _denied(
        self, old: Entry | None, negative: Negative, now: float, refresh: Refresh, draw: Draw
    ) -> Entry:
        wait_s = _jittered(refresh.delay_s(negative.ttl_s), draw)
        if old is None or not isinstance(old.held, Answer):
            return Entry(negative, now + wait_s)
        since = now if old.negative_since is None else old.negative_since
        left_s = since + refresh.confirm_s - now
        if left_s <= 0:
            return Entry(negative, now + wait_s)
        again_s = min(max(refresh.confirm_s / CONFIRMATIONS, MIN_TTL_S), MAX_RETRY_S)
        due_at = now + min(wait_s, left_s, _jittered(again_s, draw))
        return Entry(
            old.held, due_at, error=f"{negative.error} (not yet trusted)", negative_since=since
        )

    def _failed(
        self, old: Entry | None, failure: Failure, now: float, refresh: Refresh, draw: Draw
    ) -> Entry:
        failures = old.failures + 1 if old else 1
        known = old is not None and not isinstance(old.held, Failure)
        most_s = MAX_RETRY_S if known else MAX_FIRST_RETRY_S
        if refresh.mode == "fixed":
            most_s = min(most_s, max(refresh.interval_s, FIRST_RETRY_S))
        due_at = now + delay_s(failures, first_s=FIRST_RETRY_S, most_s=most_s, draw=draw)
        if old is None or not known:
            return Entry(failure, due_at, failures=failures)
        return dataclasses.replace(old, due_at=due_at, error=failure.error, failures=failures)


def _hurried(entry: Entry, old: Entry | None, now: float, draw: Draw) -> Entry:
    """An answer of no use, asked for again as after a failure: the other half may be of use."""
    useless = old.useless + 1 if old else 1
    wait_s = delay_s(useless, first_s=FIRST_RETRY_S, most_s=MAX_RETRY_S, draw=draw)
    due_at = min(entry.due_at, now + wait_s)
    return dataclasses.replace(entry, due_at=due_at, useless=useless)


def _jittered(wait_s: float, draw: Draw) -> float:
    """A little longer than ``wait_s``; never shorter, because within a TTL nothing is new."""
    if wait_s == math.inf:
        return wait_s
    return wait_s + min(wait_s * 0.1, MAX_JITTER_S) * draw(STEPS) / STEPS


def _version(address: str) -> int:
    return 6 if ":" in address else 4
