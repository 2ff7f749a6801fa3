"""PROXY protocol headers that come in: read before anything is dialed (``--proxy-in``).

A client whose header is awaited is a session already: it has its place under ``--max-sessions``
and its descriptors, and whatever ends a session ends it. It has one small object here, and all of
them share one timer.
"""

from __future__ import annotations

import asyncio
from os import read
from time import monotonic

from gateway.core.client_rules import ClientRules
from gateway.core.counters import End, WorkerCounters
from gateway.core.proxy_protocol import Header, Malformed, read_header
from gateway.core.socket_address import address_text, host_of
from gateway.poller import ERR, HUP, IN, RDHUP
from gateway.sessions.leg import READ_BYTES
from gateway.sessions.session import Session
from gateway.timer import Timer
from gateway.unix import peek

HEADER_S = 3.0
"""How long a header may take to arrive; the specification's least, for one lost packet."""


class HeadersIn:
    """Opens sessions whose peers may have to send a header; borrows them."""

    def __init__(self, loop: asyncio.AbstractEventLoop, counters: WorkerCounters) -> None:
        self.rules = ClientRules()
        self._counters = counters
        self._awaited: dict[AwaitedHeader, None] = {}
        self._timer = Timer(loop, self._look)

    def open(self, session: Session, read_first: bool) -> None:
        """Read the session's header if there has to be one, then dial."""
        peer = session.peer_address()
        if isinstance(peer, tuple) and not host_of(peer):
            # It is gone already. What it sent is still there to read, and nobody has judged it.
            session.on_event(ERR)
            return
        if not self.rules.sends_header(peer):
            session.open(read_first)
            return
        kind = AwaitedHeader if read_first else AwaitedUnixHeader
        awaited = kind(self, session, monotonic() + HEADER_S)
        session.sessions.poller.add(session.client.fd, awaited)
        awaited.read_on()
        if not awaited.over:
            self._awaited[awaited] = None
            self._timer.start(HEADER_S)

    def forget(self, awaited: AwaitedHeader) -> None:
        """Its client is gone: a flood of such would wait here for their time to be over."""
        self._awaited.pop(awaited, None)

    def arrived(self, awaited: AwaitedHeader, header: Header) -> None:
        """Dial, with the bytes after the header, unless its client may not come."""
        session = awaited.session
        session.header = header
        self._awaited.pop(awaited, None)
        if header.route is not None and not self.rules.admits_client(header.route.source):
            self.deny(session)
            return
        session.sessions.poller.replace(session.client.fd, session)
        now = monotonic()
        if session.record is not None:
            session.record.dialing_at = now
        session.call(awaited.data[header.size :] or None, now)
        # Events came to the awaited header alone, and each comes once. After the call: what it
        # could not write of the bytes behind the header comes before those that are still to read.
        seen = awaited.seen | IN
        if session.upstream is not None:
            session.client.on_event(seen)
        elif session.end is None:
            session.pending |= seen

    def deny(self, session: Session) -> None:
        self._counters.turn_away(End.DENIED, address_text(session.client_address()))
        session.cut(End.DENIED)

    def missing(self, awaited: AwaitedHeader, problem: str) -> None:
        """End the session. A peer that leaves without a word is a load balancer's health check."""
        session = awaited.session
        session.problem = problem
        self._awaited.pop(awaited, None)
        if awaited.data or not awaited.seen & RDHUP:
            text = f"{address_text(session.peer_address())}: {problem}"
            self._counters.turn_away(End.PROXY_HEADER, text)
        session.cut(End.PROXY_HEADER)

    def close(self) -> None:
        self._timer.stop()

    def _look(self) -> None:
        """End those whose time is over; they stand in the order of their arrival."""
        now = monotonic()
        for awaited in tuple(self._awaited):
            if awaited.over:
                self.forget(awaited)
            elif awaited.until > now:
                self._timer.start(awaited.until - now)
                return
            else:
                self._expire(awaited)

    def _expire(self, awaited: AwaitedHeader) -> None:
        try:
            awaited.expire()
        except Exception as error:  # noqa: BLE001 - a session's boundary, as in the poller
            awaited.session.crashed(error)


class AwaitedHeader:
    """The watcher of a client while its header comes. ``seen``: what the events said."""

    __slots__ = ("data", "headers", "seen", "session", "until")

    def __init__(self, headers: HeadersIn, session: Session, until: float) -> None:
        self.headers = headers
        self.session = session
        self.until = until
        self.data = b""
        self.seen = 0

    @property
    def over(self) -> bool:
        """The header is there, or the session ended, by whatever cause."""
        return self.session.end is not None or self.session.header is not None

    def on_event(self, mask: int) -> None:
        self.seen |= mask  # kept here: what is still to read comes behind the header's read
        self.session.end_if_reset(mask)
        if self.over:
            self.headers.forget(self)
        else:
            self.read_on()

    def on_crash(self, error: Exception) -> None:
        self.session.crashed(error)

    def read_on(self) -> None:
        """Read until the header is complete, or nothing is left; once only what must be read."""
        while True:
            try:
                data = read(self.session.client.fd, READ_BYTES)
            except BlockingIOError:
                return
            except OSError:
                self.session.on_event(ERR)
                return
            if not data:
                self.seen |= RDHUP
                self.headers.missing(self, "the connection ended before the header did")
                return
            self.data += data
            match read_header(self.data):
                case Header() as header:
                    self.headers.arrived(self, header)
                    return
                case Malformed(problem):
                    self.headers.missing(self, problem)
                    return

    def expire(self) -> None:
        """Give up, unless the rest has come while the loop stood still."""
        self.read_on()
        if not self.over:
            self.headers.missing(self, f"no PROXY protocol header within {HEADER_S:g} s")


class AwaitedUnixHeader(AwaitedHeader):
    """The same for a client on a UNIX socket: nothing behind the header is read.

    Unread bytes are the only way to tell such a client that nobody took them. What there is of an
    incomplete header is read, but for its last byte: each piece that waits counts against the
    client's buffer with much more than its bytes, so a client that sends small pieces would stop.
    """

    __slots__ = ()

    def read_on(self) -> None:
        """Look whether the header is complete, and take it then."""
        fd = self.session.client.fd
        try:
            waiting = peek(fd, READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self.session.on_event(ERR)
            return
        data = self.data + waiting
        match read_header(data):
            case Header() as header:
                self.data += read(fd, header.size - len(self.data))
                self.headers.arrived(self, header)
            case Malformed(problem):
                self.data = data
                self.headers.missing(self, problem)
            case None if not waiting or self.seen & (RDHUP | HUP):
                self.data = data
                self.seen |= RDHUP
                self.headers.missing(self, "the connection ended before the header did")
            case None if len(waiting) > 1:
                self.data += read(fd, len(waiting) - 1)
