"""The value of one resolution: which endpoints may be used, which may not, and why."""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import field

from gateway.core.records import dataclass
from supervisor.core.config import Config
from supervisor.core.discovery.endpoints import Discovered, Problem
from supervisor.core.discovery.loop_guard import describe_own
from supervisor.core.discovery.questions import Question
from supervisor.core.discovery.targets import tls_domain

MAX_ERRORS = 5
"""So many errors are spelled out in one line; the others are counted."""


class DnsResult(enum.StrEnum):
    """How DNS did in one resolution; the words are those of ``etcd_gateway_discovery_total``."""

    SUCCESS = "success"
    FAILURE = "failure"
    NOT_ASKED = "not-asked"
    """No question was due, or some were not answered yet."""
    NO_NAMES = "no-names"
    """There is no name to ask for."""


def judge_dns(
    in_use: Collection[Question], trusted: Callable[[Question], bool], *, asked: bool
) -> DnsResult:
    """Rate what is held of the questions in use; ``trusted``: the newest outcome is believed.

    ``asked``: one of them was asked in this resolution. The others count too: a question that
    fails is asked less often than those that are answered.
    """
    if not in_use:
        return DnsResult.NO_NAMES
    if not asked:
        return DnsResult.NOT_ASKED
    return DnsResult.SUCCESS if all(map(trusted, in_use)) else DnsResult.FAILURE


@dataclass(frozen=True, slots=True)
class Resolution:
    """What one resolution found. ``endpoints`` may be used, with those addresses that they have.

    ``refused``: the TLS check of an address failed, by endpoint name with the reason.
    ``waiting``: the TLS check could not reach an address yet, by endpoint name with the error.
    ``loops``: endpoints with an address that is our own listen address, which is the value.
    ``member_loops``: the same of endpoints that only the cluster's member list names.
    ``stale``: failures behind answers that stay in use.
    ``srv``: the endpoints were found by SRV, not by the static list.
    ``known``: the endpoints, and targets that are not used because a member list is followed.
    ``found``: what the targets and the member list name, whether it passed the TLS check or not.
    ``absent``: names of endpoints that the targets name and DNS gives no address for.
    """

    endpoints: tuple[Discovered, ...] = ()
    problems: tuple[Problem, ...] = ()
    refused: dict[str, str] = field(default_factory=dict)
    waiting: dict[str, str] = field(default_factory=dict)
    loops: dict[str, str] = field(default_factory=dict)
    member_loops: dict[str, str] = field(default_factory=dict)
    stale: tuple[str, ...] = ()
    srv: bool = False
    dns: DnsResult = DnsResult.NOT_ASKED
    known: tuple[Discovered, ...] = ()
    found: tuple[Discovered, ...] = ()
    absent: tuple[str, ...] = ()

    @property
    def seeds(self) -> tuple[Discovered, ...]:
        """The endpoints that operators named, not the member list alone."""
        return tuple(each for each in self.endpoints if not each.listed)

    @property
    def definite(self) -> bool:
        """Whether trying again is pointless."""
        return not self.waiting and all(problem.definite for problem in self.problems)

    @property
    def left_out(self) -> dict[str, str]:
        """Endpoints that are not used although DNS names them, with the reason."""
        used = {each.name for each in self.endpoints}
        return {name: why for name, why in self._objections.items() if name not in used}

    @property
    def partly_used(self) -> dict[str, str]:
        """Endpoints of which an address is not used while others are, with the reason."""
        used = {each.name for each in self.endpoints}
        return {name: why for name, why in self._objections.items() if name in used}

    @property
    def _objections(self) -> dict[str, str]:
        """What there is against an address of an endpoint, by the endpoint's name."""
        loops = {name: describe_own(hit) for name, hit in (self.loops | self.member_loops).items()}
        waiting = {name: f"TLS check: {error}" for name, error in self.waiting.items()}
        return self.refused | waiting | loops

    @property
    def names_itself(self) -> str:
        """Why the static list can never be used: it names our own listen address; "" if not."""
        if self.srv or not self.loops:
            return ""
        name, hit = next(iter(self.loops.items()))
        return f"--endpoints {name} {describe_own(hit)}, expected the address of another program"

    @property
    def error(self) -> str:
        """What went wrong, in one line; "" if nothing did."""
        left_out = [f"{name}: {reason}" for name, reason in self._objections.items()]
        return in_one_line([*self._dns_errors, *left_out])

    def why_nothing(self, config: Config) -> str:
        """Why there is no endpoint; if the TLS check failed, what it expected."""
        text = f"no endpoint found: {self.error}"
        if self.refused:
            text += f"; expected TLS with a certificate for {tls_domain(config)}"
            text += " from the CAs of --trusted-ca-file, unless --insecure-discovery is given"
        return text

    @property
    def incomplete(self) -> str:
        """The part of ``error`` that is about DNS; "" if DNS answered everything."""
        return in_one_line(self._dns_errors)

    @property
    def _dns_errors(self) -> list[str]:
        return [*self.stale, *in_order(self.problems)]


def in_order(problems: Iterable[Problem]) -> list[str]:
    """Their texts, failures first: of the last ones in_one_line tells the number alone."""
    return [each.error for each in sorted(problems, key=lambda problem: problem.definite)]


def in_one_line(texts: Sequence[str]) -> str:
    """The first MAX_ERRORS different ones, and how many more there are."""
    different = list(dict.fromkeys(texts))  # ports of one host share its error
    left = len(different) - MAX_ERRORS
    return "; ".join(different[:MAX_ERRORS]) + (f"; and {left} more" if left > 0 else "")
