"""Questions to DNS, and what may become of one.

A *question* is one thing to look up: the SRV records of an owner name, or the addresses of a host.
Its *outcome* is an :class:`Answer`, a :class:`Negative` (DNS said definitely no) or a
:class:`Failure` (nobody knows; ask again).
"""

from __future__ import annotations

import enum
from collections.abc import Callable

from gateway.core.address import HostPort, literal_ip
from gateway.core.records import dataclass


class QuestionKind(enum.StrEnum):
    """What is asked for."""

    SRV = "SRV"
    HOST = "HOST"
    """The addresses of an absolute name: A and AAAA."""
    SEARCH = "SEARCH"
    """The addresses of a name as an operator wrote it: the search list of resolv.conf counts."""


@dataclass(frozen=True, slots=True)
class Question:
    """``name`` is in lower case without a trailing dot."""

    kind: QuestionKind
    name: str

    def __str__(self) -> str:
        return f"SRV {self.name}" if self.kind is QuestionKind.SRV else f"host {self.name}"


@dataclass(frozen=True, slots=True)
class SrvRecord:
    """One SRV record (RFC 2782); ``target`` in lower case, without the trailing dot, "" for "."."""

    priority: int
    weight: int
    port: int
    target: str

    @property
    def address(self) -> HostPort:
        """What it names, which is absolute; of a usable record only."""
        return HostPort(literal_ip(self.target) or self.target, self.port, absolute=True)


@dataclass(frozen=True, slots=True)
class Answer:
    """What was found: ``records`` for SRV, literal ``addresses`` for a host.

    ``ttl_s``: the smallest TTL on the way, aliases included. ``unanswered``: the IP versions
    (4, 6) whose question failed while the other's was answered; ``error`` says how.
    """

    ttl_s: float
    records: tuple[SrvRecord, ...] = ()
    addresses: tuple[str, ...] = ()
    unanswered: frozenset[int] = frozenset()
    error: str = ""


@dataclass(frozen=True, slots=True)
class Negative:
    """A definite no: NXDOMAIN, no records of this type, or the target "." of RFC 2782.

    ``no_name``: NXDOMAIN, which is about the name and so about records of every type (RFC 8020).
    """

    error: str
    ttl_s: float
    no_name: bool = False


@dataclass(frozen=True, slots=True)
class Failure:
    """A transient failure: timeout, SERVFAIL, refusal, garbage, no network.

    ``silent``: no nameserver said anything about it in time.
    """

    error: str
    silent: bool = False


Outcome = Answer | Negative | Failure


Lookup = Callable[[Question], Outcome | None]
"""What is held of a question; None if it was never asked."""
