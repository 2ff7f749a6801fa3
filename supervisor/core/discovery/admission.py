"""Which addresses of the discovered endpoints passed the TLS check, and which to check again.

An address is used from when it passes until it is refused. An address that passed and cannot be
reached now stays in use, because health judges that. An address that never passed is not used, and
is checked again.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import assert_never

from gateway.core.records import dataclass
from supervisor.core.backoff import doubled_s
from supervisor.core.discovery.endpoints import Discovered

FIRST_RETRY_S = 1.0
MAX_RETRY_S = 30.0
"""The wait before an address that was refused or not reached is checked again doubles from
FIRST_RETRY_S up to MAX_RETRY_S."""


RECHECK_S = 300.0
"""How old the check of an endpoint in use may be when DNS is asked for it again."""


@dataclass(frozen=True, slots=True)
class Passed:
    """The server's certificate verified."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The server speaks no TLS, or its certificate did not verify.

    ``hung_up``: the server closed or reset the connection without a word. Plaintext servers do
    that, and so do servers that are just going down: a server that passed before stays in use.
    """

    reason: str
    hung_up: bool = False


@dataclass(frozen=True, slots=True)
class Unreachable:
    """The server could not be dialed, or did not answer: nothing is known of its certificate.

    ``cut_off``: this host has no way to the address at all.
    """

    error: str
    cut_off: bool = False


Verdict = Passed | Refused | Unreachable


@dataclass(frozen=True, slots=True)
class Candidate:
    """One address of an endpoint to be checked."""

    name: str
    address: str
    port: int


@dataclass(frozen=True, slots=True)
class _Standing:
    """What is known of one candidate. ``failures``: checks in a row that did not pass."""

    passed: bool
    verdict: Verdict
    failures: int
    due_at: float
    checked_at: float


class Admission:
    """Remembers the newest verdict on each candidate; ``now`` is of the monotonic clock."""

    def __init__(self) -> None:
        self._standings: dict[Candidate, _Standing] = {}

    def copy(self) -> Admission:
        """The same memory, to try a new configuration on."""
        twin = Admission()
        twin._standings = dict(self._standings)
        return twin

    def learn_from(self, other: Admission) -> None:
        """Take over what a copy of this memory has learned since of the candidates known here."""
        self._standings = {c: other._standings.get(c, s) for c, s in self._standings.items()}

    def remember(self, found: Iterable[Discovered], now: float) -> None:
        """Begin with what a former master admitted; all of it is checked again at once."""
        for each in found:
            for candidate in _candidates(each) if each.srv and each.tls else ():
                self._standings[candidate] = _Standing(True, Passed(), 0, now, now)

    def to_check(
        self,
        endpoints: Iterable[Discovered],
        now: float,
        *,
        everything: bool = False,
        renewed: bool = False,
    ) -> tuple[Candidate, ...]:
        """Candidates to check now: the new and the due, or all if ``everything`` is true.

        ``renewed``: DNS was asked for the records; so are those whose check is RECHECK_S old. A
        thousand hosts would otherwise shake hands with every member once per TTL.
        Candidates that are not among the endpoints any more are forgotten. One that passed and is
        found under another name now has passed, and is checked at once: it is the same check.
        """
        candidates = dict.fromkeys(c for each in endpoints for c in _candidates(each))
        passed = {(c.address, c.port): s for c, s in self._standings.items() if s.passed}
        self._standings = {c: s for c, s in self._standings.items() if c in candidates}
        for new in candidates.keys() - self._standings.keys():
            if before := passed.get((new.address, new.port)):
                self._standings[new] = dataclasses.replace(before, due_at=now)
        return tuple(c for c in candidates if everything or self._is_due(c, now, renewed=renewed))

    def _is_due(self, candidate: Candidate, now: float, *, renewed: bool) -> bool:
        standing = self._standings.get(candidate)
        if standing is None or standing.due_at <= now:
            return True
        return renewed and standing.checked_at + RECHECK_S <= now

    def take(self, candidate: Candidate, verdict: Verdict, now: float) -> None:
        """Remember a verdict."""
        old = self._standings.get(candidate)
        failures = old.failures + 1 if old else 1
        due_at = now + doubled_s(failures, first_s=FIRST_RETRY_S, most_s=MAX_RETRY_S)
        match verdict:
            case Passed():
                standing = _Standing(True, verdict, 0, math.inf, now)
            case Refused(reason, hung_up=True) if old is not None and old.passed:
                standing = _Standing(True, Unreachable(reason), failures, due_at, now)
            case Refused():
                standing = _Standing(False, verdict, failures, due_at, now)
            case Unreachable():
                passed = old is not None and old.passed
                standing = _Standing(passed, verdict, failures, due_at, now)
            case _:
                assert_never(verdict)
        self._standings[candidate] = standing

    def hurry(self, now: float) -> None:
        """Check now whatever did not pass when it was checked last."""
        self._standings = {
            c: s if s.due_at == math.inf else dataclasses.replace(s, due_at=now)
            for c, s in self._standings.items()
        }

    def admitted(self, endpoints: Iterable[Discovered]) -> tuple[Discovered, ...]:
        """The endpoints that may be used, with those of their addresses that may be.

        They are marked as TLS endpoints, whatever SRV name named them: the check proved it.
        """
        kept = []
        for each in endpoints:
            addresses = tuple(c.address for c in _candidates(each) if self._may_be_used(c))
            if addresses:
                kept.append(dataclasses.replace(each, addresses=addresses, tls=True))
        return tuple(kept)

    def refused(self) -> dict[str, str]:
        """The endpoints with a refused address, by name, with the reason."""
        used = self._used()
        return {
            c.name: _about(c, s.verdict.reason, used)
            for c, s in self._standings.items()
            if isinstance(s.verdict, Refused)
        }

    def waiting(self) -> dict[str, str]:
        """The endpoints with an address that was never reached, by name, with the error.

        One that this host has no way to is not missed where another address of the endpoint is
        used: names have AAAA records, and many hosts no IPv6.
        """
        used = self._used()
        return {
            c.name: _about(c, s.verdict.error, used)
            for c, s in self._standings.items()
            if isinstance(s.verdict, Unreachable)
            and not s.passed
            and not (s.verdict.cut_off and c.name in used)
        }

    def _used(self) -> set[str]:
        """The names of the endpoints with an address that may be used."""
        return {c.name for c, s in self._standings.items() if s.passed}

    def next_at(self) -> float:
        """When the next check is due; infinity if none is before the next refresh."""
        return min((s.due_at for s in self._standings.values()), default=math.inf)

    def _may_be_used(self, candidate: Candidate) -> bool:
        standing = self._standings.get(candidate)
        return standing is not None and standing.passed


def _about(candidate: Candidate, text: str, used: set[str]) -> str:
    """The text with the address that it is about, where another one of the endpoint is used."""
    return f"{candidate.address}: {text}" if candidate.name in used else text


def _candidates(endpoint: Discovered) -> tuple[Candidate, ...]:
    return tuple(Candidate(endpoint.name, a, endpoint.port) for a in endpoint.addresses)
