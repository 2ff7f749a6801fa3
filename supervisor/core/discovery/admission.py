"""Which of the discovered endpoints passed the TLS check, by address, and whom to check again.

An address is used once it passed, and until it is refused; being unreachable costs neither: that
is for health to judge. One that never passed is not used, and tried again.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import assert_never

from supervisor.core.backoff import doubled_s
from supervisor.core.discovery.endpoints import Discovered

FIRST_RETRY_S = 1.0
MAX_RETRY_S = 30.0
"""An address that could not be checked, or was refused, is tried again with doubling delays."""


@dataclass(frozen=True, slots=True)
class Passed:
    """The server's certificate verified."""


@dataclass(frozen=True, slots=True)
class Refused:
    """It speaks no TLS, or its certificate did not verify.

    ``hung_up``: it closed or reset the connection and said nothing. That is what plaintext servers
    do, and servers that are just going down: of one that has passed before it says nothing.
    """

    reason: str
    hung_up: bool = False


@dataclass(frozen=True, slots=True)
class Unreachable:
    """Nobody knows: it could not be dialed, or did not answer."""

    error: str


Verdict = Passed | Refused | Unreachable


@dataclass(frozen=True, slots=True)
class Candidate:
    """One address of an endpoint, as it is to be checked."""

    name: str
    address: str
    port: int


@dataclass(frozen=True, slots=True)
class _Standing:
    passed: bool
    verdict: Verdict
    failures: int
    due_at: float


class Admission:
    """Pure; ``now`` is monotonic."""

    def __init__(self) -> None:
        self._standings: dict[Candidate, _Standing] = {}

    def copy(self) -> Admission:
        """The same memory, to try a new configuration on."""
        twin = Admission()
        twin._standings = dict(self._standings)
        return twin

    def to_check(
        self, endpoints: Iterable[Discovered], now: float, *, everything: bool
    ) -> tuple[Candidate, ...]:
        """Whom to check now: the new and the due, or everybody. Forgets who is not among them."""
        candidates = dict.fromkeys(c for each in endpoints for c in _candidates(each))
        self._standings = {c: s for c, s in self._standings.items() if c in candidates}
        return tuple(
            c
            for c in candidates
            if everything or (s := self._standings.get(c)) is None or s.due_at <= now
        )

    def take(self, candidate: Candidate, verdict: Verdict, now: float) -> None:
        """Remember a verdict."""
        old = self._standings.get(candidate)
        failures = old.failures + 1 if old else 1
        delay_s = doubled_s(failures, first_s=FIRST_RETRY_S, most_s=MAX_RETRY_S)
        match verdict:
            case Passed():
                standing = _Standing(True, verdict, 0, math.inf)
            case Refused(reason, hung_up=True) if old is not None and old.passed:
                standing = _Standing(True, Unreachable(reason), failures, now + delay_s)
            case Refused():
                standing = _Standing(False, verdict, failures, now + delay_s)
            case Unreachable():
                passed = old is not None and old.passed
                standing = _Standing(passed, verdict, failures, now + delay_s)
            case _:
                assert_never(verdict)
        self._standings[candidate] = standing

    def admitted(self, endpoints: Iterable[Discovered]) -> tuple[Discovered, ...]:
        """The endpoints that may be used, with those of their addresses that may be.

        They speak TLS, under whatever name they were found: they proved it.
        """
        kept = []
        for each in endpoints:
            addresses = tuple(c.address for c in _candidates(each) if self._may_be_used(c))
            if addresses:
                kept.append(dataclasses.replace(each, addresses=addresses, tls=True))
        return tuple(kept)

    def refused(self) -> dict[str, str]:
        """Who was refused, by endpoint name, with the reason."""
        return {
            c.name: s.verdict.reason
            for c, s in self._standings.items()
            if isinstance(s.verdict, Refused)
        }

    def waiting(self) -> dict[str, str]:
        """Who never passed because it could not be reached, by endpoint name, with the error."""
        return {
            c.name: s.verdict.error
            for c, s in self._standings.items()
            if isinstance(s.verdict, Unreachable) and not s.passed
        }

    def next_at(self) -> float:
        """When somebody is to be checked again; infinity: not before the next refresh."""
        return min((s.due_at for s in self._standings.values()), default=math.inf)

    def _may_be_used(self, candidate: Candidate) -> bool:
        standing = self._standings.get(candidate)
        return standing is not None and standing.passed


def _candidates(endpoint: Discovered) -> tuple[Candidate, ...]:
    return tuple(Candidate(endpoint.name, a, endpoint.port) for a in endpoint.addresses)
