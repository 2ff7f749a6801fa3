"""The whole protocol between master and worker, as types.

Down the pipe (master to worker): :class:`Snapshot`, :class:`Loads`, :class:`GiveUp`,
:class:`ListSessions`, :class:`DescribeSessions`, :class:`Drain`.
Down the control socket: :class:`Adopt` and :class:`Peer` (with descriptors), :class:`Release`.
Up the control socket (worker to master): :class:`Bound` (with descriptors), :class:`Ready`,
:class:`Failed`, :class:`Missed`, :class:`DialFailed`, :class:`DialSucceeded`, :class:`Report`,
:class:`SessionSlice`, :class:`SessionDetails`, :class:`Drained`.

One message is one line of JSON, ``{"type": "Snapshot", ...}``; see ``wire``.
"""

from __future__ import annotations

from dataclasses import field

from gateway.core.endpoint import RETIRED, Endpoint
from gateway.core.records import dataclass
from gateway.core.session_state import SessionState

MAX_SLOTS = 256
"""The most workers a gateway may have."""

MAX_LISTEN = 253
"""The most listen addresses: a worker's listeners travel in one message (unix(7), SCM_MAX_FD)."""


LISTED_ROWS = 250
"""Rows of a SessionSlice."""

DESCRIBED_ROWS = 50
"""Rows of a SessionDetails."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What of the configuration a worker acts on; all of it may change with a snapshot.

    Durations are seconds; 0 means off where the flag says so.
    """

    dial_timeout_s: float = 2.0
    dial_hedge_s: float = 0.25
    idle_timeout_s: float = 0.0
    keepalive_time_s: float = 15.0
    keepalive_interval_s: float = 15.0
    keepalive_probes: int = 4
    tcp_user_timeout_s: float = 30.0
    drain_timeout_s: float = 30.0
    """How long an orphaned worker (its master died) lets sessions go on."""
    allow: tuple[str, ...] = ()
    """Networks of the clients that are served; none are all."""
    proxy_in: tuple[str, ...] = ()
    """Networks of the peers that send a PROXY protocol header; ``unix``: peers on UNIX sockets."""
    proxy_out: str = "off"
    source_addr: tuple[str, ...] = ()
    """The addresses to dial from, one for each family at most."""
    max_sessions: int = 0
    """Of the whole gateway; 0 is no limit of ours."""
    max_session_rate: int = 0
    """Clients per second of the whole gateway; 0 is no limit."""
    balance: str = "round-robin"
    host_seed: int = 0
    """What makes this host's order of endpoints differ from other hosts'; 0: the given order."""
    on_inactive: str = "keep"
    close_spread_s: float = 1.0
    """Over how long sessions are closed that have to go together."""
    max_session_age_s: float = 0.0
    access_log: bool = False
    log_level: str = "info"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The complete endpoint list with health at one version; newest wins, no deltas.

    A worker applies it if ``version`` is greater than the one it holds.
    Sessions of an endpoint that is not in the list are closed with ``end=removed``.
    """

    version: int
    endpoints: tuple[Endpoint, ...]
    settings: Settings = field(default_factory=Settings)

    def without_health(self) -> tuple[Settings, tuple[tuple[str, tuple[int, int]], ...]]:
        """What a reload may change: the settings, and which endpoints may be used in which rank."""
        used = ((each.name, each.rank) for each in self.endpoints if each.state not in RETIRED)
        return self.settings, tuple(used)


@dataclass(frozen=True, slots=True)
class Loads:
    """Sessions by endpoint name over all workers, about once a second; lost ones do no harm.

    Sent for ``least-sessions`` only. ``addresses``: by endpoint and address, of endpoints with
    several addresses.
    """

    endpoints: dict[str, int]
    addresses: dict[str, dict[str, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Close the oldest idle session of each of these endpoints, in this order (``--rebalance``).

    An endpoint is named as often as it has sessions to give up. ``older_than_s``: younger sessions
    are spared; it is the same wherever the same endpoint is named. ``towards``: where the next
    clients go, one to each, because these endpoints have less than their share; a client whose
    session was closed connects again at any worker. Lost ones do no harm.
    """

    endpoints: tuple[str, ...] = ()
    older_than_s: tuple[float, ...] = ()
    towards: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ListSessions:
    """Say in one SessionSlice which sessions there are, from row ``first`` on.

    ``listing``: the rows of one listing keep their numbers; a greater number begins a new listing
    and forgets the one before. ``endpoint``: only sessions of this one; "" is all.
    """

    listing: int
    first: int
    endpoint: str = ""


@dataclass(frozen=True, slots=True)
class DescribeSessions:
    """Say in one SessionDetails everything about these rows, DESCRIBED_ROWS at most."""

    listing: int
    rows: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Drain:
    """Stop accepting, let sessions end, cut what is left after ``deadline_s`` seconds.

    ``close_listeners``: False when the sockets live on in another worker (TTOU, recycle, upgrade):
    just close our duplicates. True at a stop: accept what is queued, shut down, close.
    """

    deadline_s: float
    close_listeners: bool = False


@dataclass(frozen=True, slots=True)
class Adopt:
    """Accept from slot ``slot``'s listeners too; their descriptors are attached."""

    slot: int


@dataclass(frozen=True, slots=True)
class Release:
    """Slot ``slot`` is filled again: close our duplicates of its listeners."""

    slot: int


@dataclass(frozen=True, slots=True)
class Peer:
    """Slot ``slot``'s inbox, sending end attached: accepted sockets may be handed over to it."""

    slot: int


@dataclass(frozen=True, slots=True)
class Bound:
    """The worker bound its own listeners; their descriptors are attached.

    One per listen address, in the order of the configuration. Not sent when they were inherited.
    When slot 0 has sent it, the other slots may bind.
    """

    listeners: int


@dataclass(frozen=True, slots=True)
class Ready:
    """Listens, holds its first snapshot and accepts."""

    snapshot_version: int


@dataclass(frozen=True, slots=True)
class Failed:
    """The worker cannot start and says why.

    ``reason``: ``bind``, a listen address is not to be had; ``start``, anything else. The next
    worker may fare better after ``start`` only.
    """

    reason: str
    error: str


@dataclass(frozen=True, slots=True)
class Missed:
    """A message of this type for this slot came without its descriptors: the worker had no room.

    The master sends it again.
    """

    message: str
    slot: int


@dataclass(frozen=True, slots=True)
class DialFailed:
    """A dial failed. ``result``: DialResult.

    Evidence against the endpoint, but for two results: ``abandoned``, it was slow to answer; and
    ``local``, this host could not dial it, told once a second.
    """

    endpoint: str
    address: str
    result: str
    error: str


@dataclass(frozen=True, slots=True)
class DialSucceeded:
    """Evidence for an endpoint, or one of its addresses, that was called inactive or suspect."""

    endpoint: str
    address: str = ""


@dataclass(frozen=True, slots=True)
class EndpointReport:
    """Cumulative counters of one endpoint in one worker; see EndpointCounters."""

    sessions: int = 0
    sessions_total: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    addresses: dict[str, int] = field(default_factory=dict)
    dials: dict[str, int] = field(default_factory=dict)
    dial_buckets: tuple[int, ...] = ()
    dial_seconds: float = 0.0
    ended: dict[str, int] = field(default_factory=dict)
    rtt_weight: float = 0.0
    """Of the samples of the round-trip time, recent ones first; see RoundTrips. Not cumulative."""
    rtt_weighted_s: float = 0.0
    retransmits: int = 0


@dataclass(frozen=True, slots=True)
class Report:
    """Cumulative counters of one worker's life, and its heartbeat; see WorkerCounters.

    The counters of an endpoint that left are in one report after its last session, and in no later
    one.
    """

    snapshot_version: int
    sessions: int
    loop_lag_s: float
    rss_bytes: int
    cpu_s: float = 0.0
    """CPU time of the worker's process, user and system."""
    ended: dict[str, int] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)
    session_buckets: tuple[int, ...] = ()
    session_seconds: float = 0.0
    accept_paused: dict[str, int] = field(default_factory=dict)
    turned_away: dict[str, int] = field(default_factory=dict)
    last_turned_away: dict[str, str] = field(default_factory=dict)
    log_dropped: int = 0
    handed_over: int = 0
    endpoints: dict[str, EndpointReport] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SessionSlice:
    """Some rows of a listing, LISTED_ROWS at most, beginning with number ``first``.

    ``started_at``: on the monotonic clock, which all processes share. ``moved``: bytes both ways.
    ``clients``: as the access log writes them, "" for one that has left. ``last``: no row follows.
    """

    listing: int
    first: int
    last: bool
    started_at: tuple[float, ...]
    moved: tuple[int, ...]
    clients: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SessionDetail:
    """One session; what is not known, or does not exist yet, is None."""

    row: int
    id: str
    """No other session of this worker has it as long as this one lives."""
    client: str
    via: str | None
    endpoint: str | None
    address: str | None
    local: str | None
    state: SessionState
    started_at: float
    idle_s: float
    bytes_in: int
    bytes_out: int
    client_rtt_s: float | None
    client_retransmits: int | None
    endpoint_rtt_s: float | None
    endpoint_retransmits: int | None


@dataclass(frozen=True, slots=True)
class SessionDetails:
    """Those of the rows that were asked for whose sessions have not ended."""

    listing: int
    sessions: tuple[SessionDetail, ...]


@dataclass(frozen=True, slots=True)
class Drained:
    """The last session ended (or was cut: ``cut`` of them); the worker exits next."""

    cut: int = 0


Down = Snapshot | Loads | GiveUp | ListSessions | DescribeSessions | Drain | Adopt | Release | Peer
Up = (
    Ready | Bound | Failed | Missed | DialFailed | DialSucceeded | Report
    | SessionSlice | SessionDetails | Drained
)  # fmt: skip

MAY_BE_LOST: tuple[type, ...] = (
    DialFailed, DialSucceeded, SessionSlice, SessionDetails,
)  # fmt: skip
"""Of those that go up: evidence that comes again, and parts of a list that is incomplete then."""
