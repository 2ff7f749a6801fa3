"""The list of the sessions, told to the master in slices that it asks for one by one.

The master asks for the next slice when it has read the one before. So a worker never works on more
than one slice between two turns of its loop, and reports and evidence go between the slices.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from time import monotonic

from gateway.core.messages import (
    DESCRIBED_ROWS,
    LISTED_ROWS,
    DescribeSessions,
    ListSessions,
    SessionDetail,
    SessionDetails,
    SessionSlice,
)
from gateway.core.session_state import Connection, SessionState, idle_s, state_of
from gateway.core.socket_address import address_text, host_of
from gateway.core.unix_address import is_unix
from gateway.sessions.session import Session
from gateway.tcp import own_address_of, peer_of, read_connection
from gateway.timer import Timer

FORGET_S = 10.0
"""For how long the rows of a listing are remembered; nobody waits longer for an answer."""


class HeldBack:
    """A client that was held back when the listing began, since ``began_at``.

    It has no session yet, and ``fd`` may be another client's by the time that the row is described.
    """

    __slots__ = ("began_at", "client", "fd")

    def __init__(self, fd: int, began_at: float) -> None:
        self.fd = fd
        self.client = address_text(peer_of(fd))
        self.began_at = began_at


class SessionListing:
    """Answers for the sessions of one worker.

    ``sessions()``: all of them, the oldest first. ``held_back()``: descriptors of clients that have
    no session yet, and since when they wait; all of it stays its owners'. The rows of the newest
    listing are remembered, with sessions that have ended meanwhile, for FORGET_S at most.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        sessions: Callable[[], Iterable[Session]],
        held_back: Callable[[], Iterable[tuple[int, float]]],
        send: Callable[[SessionSlice | SessionDetails], None],
    ) -> None:
        self._sessions = sessions
        self._held_back = held_back
        self._send = send
        self._listing = 0
        self._rows: list[Session | HeldBack] = []
        self._timer = Timer(loop, self._rows.clear)

    def close(self) -> None:
        self._timer.stop()
        self._rows.clear()

    def tell_rows(self, asked: ListSessions) -> None:
        """Answer with the rows from ``asked.first`` on."""
        if asked.listing != self._listing or not asked.first:
            self._begin(asked)
        first = asked.first
        rows = self._rows[first : first + LISTED_ROWS]
        told = list(map(_summary_of, rows))
        self._send(
            SessionSlice(
                listing=asked.listing,
                first=first,
                last=first + LISTED_ROWS >= len(self._rows),
                started_at=tuple(each[0] for each in told),
                moved=tuple(each[1] for each in told),
                clients=tuple(each[2] for each in told),
            )
        )

    def tell_details(self, asked: DescribeSessions) -> None:
        """Answer with everything about the rows whose sessions have not ended."""
        now, rows = monotonic(), self._rows if asked.listing == self._listing else []
        known = (row for row in asked.rows[:DESCRIBED_ROWS] if 0 <= row < len(rows))
        found = (_detail_of(row, rows[row], now) for row in known)
        self._send(SessionDetails(asked.listing, tuple(each for each in found if each is not None)))

    def _begin(self, asked: ListSessions) -> None:
        """Give every session a row; 0.3 ms for 20,000."""
        self._listing = asked.listing
        self._timer.stop()
        self._timer.start(FORGET_S)
        name = asked.endpoint
        rows = self._rows
        rows.clear()
        if name:
            rows += [each for each in self._sessions() if each.endpoint == name]
        else:
            rows += self._sessions()
            rows += [HeldBack(fd, began_at) for fd, began_at in self._held_back()]


def _summary_of(row: Session | HeldBack) -> tuple[float, int, str]:
    """When it began, bytes moved, the client; "" for one that has ended since."""
    if isinstance(row, HeldBack):
        return row.began_at, 0, row.client
    if row.end is not None:
        return row.started_at, 0, ""
    upstream = row.upstream
    moved = row.client.moved + (upstream.moved if upstream is not None else 0)
    return row.started_at, moved, _names_of(row)[0]


def _names_of(session: Session) -> tuple[str, str | None]:
    """The client, and the peer that spoke for it if there was one.

    The peer's address is not kept in the session: 20,000 of them would be 3 MB.
    """
    peer = session.peer or peer_of(session.client.fd)
    header = session.header
    if header is None or not header.route:
        return address_text(peer), None
    return address_text(header.route.source), address_text(peer)


def _id_of(fd: int, began_at: float) -> str:
    """What tells a session from all others of the worker: a descriptor is one client's at a time.

    Not the address of an object: whoever asks would learn where the process keeps its memory.
    """
    return f"{fd}.{int(began_at * 1e6):x}"


def _detail_of(row: int, session: Session | HeldBack, now: float) -> SessionDetail | None:
    """Everything about one row; None if its session has ended."""
    if isinstance(session, HeldBack):
        return SessionDetail(
            row=row, id=_id_of(session.fd, session.began_at), client=session.client,
            via=None, endpoint=None, address=None, local=None, state=SessionState.HELD_BACK,
            started_at=session.began_at, idle_s=now - session.began_at,
            bytes_in=0, bytes_out=0, client_rtt_s=None, client_retransmits=None,
            endpoint_rtt_s=None, endpoint_retransmits=None,
        )  # fmt: skip
    if session.end is not None:
        return None
    client, upstream = session.client, session.upstream
    name, via = _names_of(session)
    near = _ask(client.fd)
    far = _ask(upstream.fd) if upstream is not None else None
    known = [each for each in (near, far) if each is not None]
    if upstream is None:
        state, address = SessionState.DIALING, None
    else:
        state = state_of(known, half_closed=client.ended or upstream.ended)
        address = _address_of(session.endpoint, upstream.fd)
    return SessionDetail(
        row=row,
        id=_id_of(client.fd, session.started_at),
        client=name,
        via=via,
        endpoint=session.endpoint or None,
        address=address,
        local=None if upstream is None else address_text(own_address_of(upstream.fd)),
        state=state,
        started_at=session.started_at,
        idle_s=idle_s(known, age_s=now - session.started_at, seen_s=session.idle_for(now)),
        bytes_in=client.moved,
        bytes_out=upstream.moved if upstream is not None else 0,
        client_rtt_s=near.rtt_s if near is not None else None,
        client_retransmits=near.retransmits if near is not None else None,
        endpoint_rtt_s=far.rtt_s if far is not None else None,
        endpoint_retransmits=far.retransmits if far is not None else None,
    )


def _address_of(endpoint: str, fd: int) -> str | None:
    """The address dialed; None if the endpoint's connection has just ended."""
    return endpoint if is_unix(endpoint) else host_of(peer_of(fd)) or None


def _ask(fd: int) -> Connection | None:
    try:
        return read_connection(fd)
    except OSError:  # not a TCP connection
        return None
