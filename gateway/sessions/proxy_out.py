"""PROXY protocol headers that go out: before the first byte to the endpoint (``--proxy-out``).

The header is written as soon as the connection stands, because the endpoint waits for it and may be
the one who speaks first. What the client has said by then goes with it, in the same segment.
Of several attempts of one dial, only the one that wins gets a header.
"""

from __future__ import annotations

import errno
import os
from os import read, write

from gateway.core.counters import DialResult, End
from gateway.core.endpoint import Endpoint
from gateway.core.proxy_protocol import Route, Version, write_header
from gateway.core.socket_address import host_of
from gateway.poller import ERR, IN
from gateway.sessions.dial import Dial
from gateway.sessions.dialer import Dialer
from gateway.sessions.leg import READ_BYTES
from gateway.sessions.session import Session
from gateway.tcp import arm_reset, own_address_of


class HeadersOut:
    """Dials for sessions as ``dialer`` does, with a header of ``version`` first."""

    def __init__(self, dialer: Dialer, version: Version) -> None:
        self._dialer = dialer
        self._version = version

    def call(self, session: Session, first_bytes: bytes | None, now: float) -> Dial | None:
        header = self._header_for(session)
        caller = HeaderFirst(session, header)
        return self._dialer.call(caller, header + (first_bytes or b""), now)

    def _header_for(self, session: Session) -> bytes:
        """With the original addresses if the client came with a header that tells them."""
        came_with = session.header
        if came_with is not None and came_with.route is not None:
            return write_header(self._version, came_with.route, came_with.tlvs)
        peer = session.peer_address()
        route: Route | None = None
        if not isinstance(peer, tuple):  # the client's end of a UNIX socket has no name
            route = Route("", own_address_of(session.client.fd))
        elif host_of(peer):  # else it is gone already
            route = Route(peer, own_address_of(session.client.fd))
        return write_header(self._version, route, came_with.tlvs if came_with else ())


class HeaderFirst:
    """The caller of a dial in a session's place: writes the header, then hands over to it."""

    __slots__ = ("header", "session")

    def __init__(self, session: Session, header: bytes) -> None:
        self.session = session
        self.header = header

    def connected(
        self,
        fd: int,
        endpoint: Endpoint,
        address: str,
        mask: int,
        sent: int,
        dialed_at: float,
        attempts: int,
    ) -> None:
        """``sent``: how much of the header and the first bytes the dialer wrote already."""
        session = self.session
        failure: OSError | None = None
        if mask:
            first = self._first_bytes()
            if session.end is not None:  # the client reset its connection just now
                session.sessions.counters_of(endpoint.name).count_dial(DialResult.ABANDONED)
                arm_reset(fd)
                session.sessions.poller.close(fd)
                return
            try:
                sent = self._write(fd, first)
            except OSError as error:
                failure = error
        if sent < len(self.header) and failure is None:
            # A fresh connection takes so few bytes whole, unless the host has no memory for them,
            # or the program behind a UNIX socket has closed its end already.
            code = errno.ENOBUFS if sent or mask else errno.EPIPE
            failure = OSError(code, os.strerror(code))
        sent_of_client = max(sent - len(self.header), 0)
        session.connected(fd, endpoint, address, mask, sent_of_client, dialed_at, attempts)
        if failure is not None and session.end is None and session.upstream is not None:
            session.broken(session.upstream, failure)

    def gave_up(self, end: End, attempts: int) -> None:
        self.session.gave_up(end, attempts)

    def crashed(self, error: Exception) -> None:
        self.session.crashed(error)

    def _first_bytes(self) -> bytes:
        """What the client has said so far and nobody has written yet."""
        session = self.session
        if session.client.unsent is not None:
            return bytes(session.client.unsent)
        if not session.pending & IN:
            return b""
        try:
            return read(session.client.fd, READ_BYTES)
        except BlockingIOError:
            return b""
        except OSError:
            session.on_event(ERR)
            return b""

    def _write(self, fd: int, first: bytes) -> int:
        """Write the header and the first bytes; how many of both the kernel took."""
        client = self.session.client
        try:
            sent = write(fd, self.header + first)
        except BlockingIOError:
            return 0
        client.moved = max(sent - len(self.header), 0)
        rest = first[client.moved :]
        client.unsent = memoryview(rest) if rest else None
        client.fast = not rest
        return sent
