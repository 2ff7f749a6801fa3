"""What a worker counts, cumulative over its own life; the master adds workers up.

Mutable on purpose: the relay adds to these integers for every chunk it moves.
"""

from __future__ import annotations

import bisect
import enum
from dataclasses import field

from gateway.core.records import dataclass
from gateway.core.round_trips import RoundTrips

DIAL_BOUNDS_S: tuple[float, ...] = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
)  # fmt: skip
"""Upper bounds of ``etcd_gateway_dial_duration_seconds``, seconds; +Inf follows."""

SESSION_BOUNDS_S: tuple[float, ...] = (
    0.001, 0.01, 0.1, 1.0, 10.0, 60.0, 600.0, 3600.0, 21600.0, 86400.0,
)  # fmt: skip
"""Upper bounds of ``etcd_gateway_session_duration_seconds``, seconds; +Inf follows."""


class End(enum.StrEnum):
    """Why a session ended; ``end`` of the access log, ``reason`` of ``sessions_ended_total``."""

    CLIENT = "client"
    ENDPOINT = "endpoint"
    RESET = "reset"
    IDLE = "idle"
    INACTIVE = "inactive"
    REMOVED = "removed"
    DRAINED = "drained"
    AGE = "age"
    REBALANCE = "rebalance"
    NO_ENDPOINT = "no-endpoint"
    DIAL_FAILED = "dial-failed"
    DENIED = "denied"
    """Not in ``--allow``: closed without a dial."""
    PROXY_HEADER = "proxy-header"
    """No PROXY protocol header came from a peer in ``--proxy-in``, or none that can be read."""
    ERROR = "error"


NEVER_REACHED = frozenset({End.NO_ENDPOINT, End.DIAL_FAILED, End.DENIED, End.PROXY_HEADER})
"""How only sessions end that reached no endpoint."""


class PauseReason(enum.StrEnum):
    """Why a worker leaves clients in the kernel's queue; ``reason`` of ``accept_paused_total``."""

    LIMIT = "limit"
    """--max-sessions or --max-session-rate is reached."""
    DESCRIPTORS = "descriptors"
    MEMORY = "memory"


class DialResult(enum.StrEnum):
    """How one dial ended; ``result`` of ``dials_total``."""

    CONNECTED = "connected"
    REFUSED = "refused"
    TIMEOUT = "timeout"
    UNREACHABLE = "unreachable"
    RESET = "reset"
    LOCAL = "local"
    """Our own host's fault (EMFILE, EADDRNOTAVAIL, ...): never evidence against the endpoint."""
    ABANDONED = "abandoned"
    """Lost a hedge, or the client left first: no evidence either way."""
    ERROR = "error"


class Histogram:
    """Counts per bucket (not cumulative), one more bucket than ``bounds`` for +Inf, and the sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect.bisect_left(self.bounds, value)] += 1
        self.total += value


@dataclass(slots=True)
class EndpointCounters:
    """One endpoint seen from one worker. ``sessions`` is a gauge, all else only grows."""

    sessions: int = 0
    sessions_total: int = 0
    bytes_in: int = 0
    """From client to endpoint."""
    bytes_out: int = 0
    """From endpoint to client."""
    addresses: dict[str, int] = field(default_factory=dict)
    """Sessions by address, of an endpoint with several."""
    dials: dict[str, int] = field(default_factory=dict)
    """By :class:`DialResult` value."""
    dial_seconds: Histogram = field(default_factory=lambda: Histogram(DIAL_BOUNDS_S))
    """Of dials that connected."""
    ended: dict[str, int] = field(default_factory=dict)
    """Sessions that reached the endpoint and ended, by :class:`End` value."""
    round_trips: RoundTrips = field(default_factory=RoundTrips)
    """Sampled by the connections to the endpoint."""
    retransmits: int = 0
    """Segments that were sent to the endpoint again, as far as they were sampled."""

    def count_dial(self, result: DialResult) -> None:
        """A dial has ended. One that became a session is counted where the session begins."""
        self.dials[result.value] = self.dials.get(result.value, 0) + 1


@dataclass(slots=True)
class WorkerCounters:
    """Everything one worker counts.

    ``sessions`` counts accepted clients that have not ended, dialing ones included.
    ``endpoints`` is keyed by endpoint name; an entry may be dropped once the endpoint left the
    snapshot and its last session ended.
    """

    sessions: int = 0
    ended: dict[str, int] = field(default_factory=dict)
    """All sessions by :class:`End` value, those that reached no endpoint included."""
    refused: dict[str, int] = field(default_factory=dict)
    """Clients closed without an endpoint, by ``no-endpoint`` or ``dial-failed``."""
    turned_away: dict[str, int] = field(default_factory=dict)
    """Clients that the log tells of, by ``denied`` or ``proxy-header``."""
    last_turned_away: dict[str, str] = field(default_factory=dict)
    """The last of them, and what was wrong, by the same."""
    session_seconds: Histogram = field(default_factory=lambda: Histogram(SESSION_BOUNDS_S))
    accept_paused: dict[str, int] = field(default_factory=dict)
    """By :class:`PauseReason` value."""
    log_dropped: int = 0
    handed_over: int = 0
    endpoints: dict[str, EndpointCounters] = field(default_factory=dict)

    def turn_away(self, end: End, client: str) -> None:
        """Count a client that the log tells of."""
        self.turned_away[end.value] = self.turned_away.get(end.value, 0) + 1
        self.last_turned_away[end.value] = client
