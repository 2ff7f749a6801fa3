"""Sums of counters, over workers: of one endpoint, and of the whole gateway."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Any

from gateway.core.messages import EndpointReport, Report
from gateway.core.records import dataclass
from supervisor.core.exact_seconds import COARSE, exact


@dataclass(slots=True)
class EndpointSum:
    """One endpoint over all workers; its counters only grow.

    ``sessions`` counts live workers only, and so does ``addresses``: the same by address, of an
    endpoint with several.
    """

    sessions: int = 0
    addresses: dict[str, int] = field(default_factory=dict)
    sessions_total: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    dials: dict[str, int] = field(default_factory=dict)
    dial_buckets: list[int] = field(default_factory=list)
    """Per bucket, not cumulative; bounds are ``counters.DIAL_BOUNDS_S``."""
    dial_seconds: float = 0.0
    ended: dict[str, int] = field(default_factory=dict)
    rtt_weight: float = 0.0
    rtt_weighted_s: float = 0.0
    retransmits: int = 0

    @property
    def rtt_s(self) -> float | None:
        """The round-trip time as the live workers sampled it; None if none of them did."""
        return self.rtt_weighted_s / self.rtt_weight if self.rtt_weight else None

    def add_living(self, part: EndpointReport) -> None:
        """Add what a live worker reports, its gauges too."""
        self.sessions += part.sessions
        add_counts(self.addresses, part.addresses)
        self.rtt_weight += part.rtt_weight
        self.rtt_weighted_s += part.rtt_weighted_s
        self.add(part)

    def add(self, part: EndpointReport | EndpointSum) -> None:
        """Add the counters of ``part``; its gauges are left out."""
        self.sessions_total += part.sessions_total
        self.bytes_in += part.bytes_in
        self.bytes_out += part.bytes_out
        add_counts(self.dials, part.dials)
        _add_buckets(self.dial_buckets, part.dial_buckets)
        self.dial_seconds += exact(part.dial_seconds)
        add_counts(self.ended, part.ended)
        self.retransmits += part.retransmits


@dataclass(slots=True)
class Sums:
    """All counters over all workers. ``sessions`` counts live workers only.

    ``endpoints`` has the endpoints that any worker used and that still exist; ``forgotten`` is the
    sum of those that are gone, so that the overall figures do not decrease when an endpoint goes.
    """

    sessions: int = 0
    ended: dict[str, int] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)
    session_buckets: list[int] = field(default_factory=list)
    session_seconds: float = 0.0
    accept_paused: dict[str, int] = field(default_factory=dict)
    turned_away: dict[str, int] = field(default_factory=dict)
    log_dropped: int = 0
    handed_over: int = 0
    cpu_s: dict[str, float] = field(default_factory=dict)
    """CPU seconds of workers by slot; the slot as text, because JSON has no other keys."""
    endpoints: dict[str, EndpointSum] = field(default_factory=dict)
    forgotten: EndpointSum = field(default_factory=EndpointSum)

    def add(self, part: Report | Sums) -> None:
        """Add those counters of ``part`` that belong to no endpoint; its gauges are left out."""
        add_counts(self.ended, part.ended)
        add_counts(self.refused, part.refused)
        _add_buckets(self.session_buckets, part.session_buckets)
        self.session_seconds += exact(part.session_seconds, COARSE)
        add_counts(self.accept_paused, part.accept_paused)
        add_counts(self.turned_away, part.turned_away)
        self.log_dropped += part.log_dropped
        self.handed_over += part.handed_over

    def add_cpu(self, slot: int, cpu_s: float) -> None:
        """Add CPU seconds of a worker of this slot."""
        self.cpu_s[str(slot)] = exact(self.cpu_s.get(str(slot), 0.0)) + exact(cpu_s)

    def of(self, name: str) -> EndpointSum:
        """The sum of endpoint ``name``, made on first use."""
        if (found := self.endpoints.get(name)) is None:
            found = self.endpoints[name] = EndpointSum()
        return found

    def forget(self, name: str) -> None:
        """Endpoint ``name`` is gone: keep its counters in the overall figures only."""
        self.forgotten.add(self.endpoints.pop(name))

    @property
    def ended_without_endpoint(self) -> dict[str, int]:
        """Sessions that ended and had reached no endpoint, by reason."""
        reached = dict(self.forgotten.ended)
        for each in self.endpoints.values():
            add_counts(reached, each.ended)
        return {reason: count - reached.get(reason, 0) for reason, count in self.ended.items()}

    @property
    def overall(self) -> EndpointSum:
        """All endpoints together, the forgotten ones included."""
        whole = EndpointSum(sessions=self.sessions)
        whole.add(self.forgotten)
        for each in self.endpoints.values():
            whole.add(each)
        return whole


def restore_sums(document: Mapping[str, Any]) -> Sums:
    """The reverse of ``facts_of``. It skips keys that another release may have."""
    sums = Sums(**known_fields(Sums, document))
    sums.forgotten = EndpointSum(**known_fields(EndpointSum, document["forgotten"]))
    sums.endpoints = {
        name: EndpointSum(**known_fields(EndpointSum, each))
        for name, each in document["endpoints"].items()
    }
    return sums


def known_fields(kind: type, document: Mapping[str, Any]) -> dict[str, Any]:
    """Those entries of ``document`` that the dataclass ``kind`` has: another release wrote it."""
    names = {each.name for each in dataclasses.fields(kind)}
    known = {key: value for key, value in document.items() if key in names}
    if not isinstance(known.get("accept_paused", {}), Mapping):
        del known["accept_paused"]  # once it was one number, without reasons
    return known


def add_counts(to: dict[str, int], more: Mapping[str, int]) -> None:
    """Add each count of ``more`` to the one of the same key in ``to``."""
    for key, count in more.items():
        to[key] = to.get(key, 0) + count


def _add_buckets(to: list[int], more: Sequence[int]) -> None:
    if len(to) < len(more):
        to.extend([0] * (len(more) - len(to)))
    for index, count in enumerate(more):
        if count:  # most buckets are empty
            to[index] += count
