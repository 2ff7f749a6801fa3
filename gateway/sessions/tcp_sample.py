"""What the kernel knows of the connections to the endpoints, asked for a few of them at a time.

One question takes 2 us. So about once a second some of the sessions that moved bytes are asked
after, never more than MOST: a fixed cost, whatever the number of sessions.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import islice
from typing import Protocol

from gateway.core.counters import EndpointCounters
from gateway.core.round_trips import RoundTrips
from gateway.tcp import read_path

MOST = 64
"""Connections asked after in one go: 0.15 ms."""


MOST_WAITING = MOST // 2
"""Of these, connections that moved nothing and were asked after the last time, too."""


class Sampled(Protocol):
    """A session, as far as it matters here."""

    counters: EndpointCounters | None

    @property
    def over(self) -> bool:
        """Whether it has ended."""

    @property
    def endpoint_fd(self) -> int:
        """The descriptor of its connection to the endpoint; -1: there is none."""


class TcpSample:
    """Adds round trips and retransmissions to the counters of endpoints."""

    def __init__(self) -> None:
        self._turn = 0
        self._fading: list[RoundTrips] = []
        self._counted: dict[Sampled, int] = {}
        """Retransmissions that were counted already, of sessions that had any."""
        self._kept = MOST
        self._waiting: dict[Sampled, None] = {}
        """Whose bytes were not acknowledged yet: what is lost is sent again without new bytes."""

    def take(self, moved: Collection[Sampled]) -> None:
        """Sample some of the sessions that moved bytes since the last call, others each time."""
        for each in self._fading:
            each.fade()
        self._fading = [each for each in self._fading if each.fades]
        waiting, self._waiting = self._waiting, {}
        for session in waiting:
            self._ask(session)
        self._turn += 1
        step = max(-(-len(moved) // (MOST - len(waiting))), 1)
        for session in islice(moved, self._turn % step, None, step):
            if session not in waiting:
                self._ask(session)
        if len(self._counted) > 2 * self._kept:
            self._forget_ended()

    def _ask(self, session: Sampled) -> None:
        fd, counters = session.endpoint_fd, session.counters
        if fd < 0 or counters is None:
            return
        try:
            rtt_s, retransmits, waits = read_path(fd)
        except OSError:  # not a TCP connection
            return
        if waits and len(self._waiting) < MOST_WAITING:
            self._waiting[session] = None
        if rtt_s:
            trips = counters.round_trips
            if not trips.fades:
                self._fading.append(trips)
            trips.add(rtt_s)
        if retransmits:
            counters.retransmits += retransmits - self._counted.get(session, 0)
            self._counted[session] = retransmits

    def _forget_ended(self) -> None:
        self._counted = {each: n for each, n in self._counted.items() if not each.over}
        self._kept = max(len(self._counted), MOST)
