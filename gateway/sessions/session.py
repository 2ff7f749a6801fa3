"""One session: from an accepted client to its end."""

from __future__ import annotations

import errno
from collections.abc import Callable
from time import monotonic
from typing import Any, Protocol

from gateway.core.counters import End, EndpointCounters
from gateway.core.endpoint import Endpoint
from gateway.core.log import Log
from gateway.core.messages import Settings
from gateway.core.proxy_protocol import Header
from gateway.core.socket_address import SocketAddress, address_text, host_of
from gateway.core.unix_address import is_unix
from gateway.poller import ERR, HUP, OUT, RDHUP, Poller, Watcher
from gateway.sessions.access_record import NO_RECORD, AccessRecord
from gateway.sessions.dial import Dial, Table
from gateway.sessions.leg import READ_BYTES, Leg
from gateway.sessions.relay import Relay
from gateway.sessions.stalls import Stalls
from gateway.sessions.unix_leg import UnixLeg
from gateway.tcp import (
    NOBODY,
    arm_reset,
    borrowed,
    count_waiting,
    disarm_reset,
    has_unsent,
    is_waiting,
    peer_of,
    set_keepalive,
)
from gateway.tcp_calls import read_some
from gateway.unix import is_unix_socket

OUR_ERRORS = (errno.ENOMEM, errno.ENOBUFS, errno.EBADF, errno.EINVAL)
"""Errors of a connection that are no news from its other end: of memory, or of our own making."""


class SessionRegister(Protocol):
    """What a session borrows of the worker's register."""

    poller: Poller
    relay: Relay
    call: Callable[[Session, bytes | None, float], Dial | None]
    """Dials for a session, with the client's first bytes; see :meth:`Dialer.call`."""
    stalls: Stalls
    table: Table
    settings: Settings
    log: Log

    def counters_of(self, name: str) -> EndpointCounters: ...

    def established(self, session: Session, name: str) -> None:
        """The session reached the endpoint ``name``."""

    def ended(self, session: Session, end: End) -> None:
        """The session is over; it owns nothing any more."""


class Session:
    """One client connection and its upstream connection, accept to close.

    Owns both descriptors through its legs. While dialing it watches the client itself and only
    remembers what happened; then the legs take over.
    """

    __slots__ = (
        "address", "client", "counted_in", "counted_out", "counters", "dial", "end", "endpoint",
        "first_end", "header", "moved_at", "peer", "pending", "problem", "record", "reset_by",
        "seen", "sessions", "started_at", "tuned", "upstream", "waiting",
    )  # fmt: skip

    def __init__(self, sessions: SessionRegister, fd: int, peer: Any, leg: type[Leg] = Leg) -> None:
        self.sessions = sessions
        self.peer: SocketAddress | None = peer
        """The other end of the client's connection; None until somebody asks for it."""
        self.header: Header | None = None
        """What the peer said of the original connection, if it had to (``--proxy-in``)."""
        self.problem = ""
        """Why the header could not be read."""
        self.started_at = self.moved_at = now = monotonic()
        self.record = AccessRecord(now) if peer is not None else None
        """What the access log will say; None if it is off."""
        self.client = leg(fd, self, sessions.relay)
        self.upstream: Leg | None = None
        self.dial: Dial | None = None
        self.endpoint = ""
        self.address = ""
        """The address dialed, if the endpoint has several."""
        self.counters: EndpointCounters | None = None
        self.counted_in = self.counted_out = self.seen = 0
        self.waiting = -1
        """Bytes that lay in the kernel for slow peers once nothing moved; -1: not asked."""
        self.pending = 0
        self.tuned = False
        self.first_end: End | None = None
        self.reset_by: End | None = None
        """The side (CLIENT or ENDPOINT) that reset its connection or vanished."""
        self.end: End | None = None

    def open(self, read_first: bool = True) -> None:
        """Dial, with what the client said already: most speak first, and at once.

        ``read_first``: False leaves it in the socket, so that the client of a UNIX socket is told
        when no endpoint can be reached: closing with unread bytes is the only reset there is.
        """
        client = self.client
        first_bytes: bytes | None = None
        try:
            first_bytes = read_some(client.fd, READ_BYTES) if read_first else None
        except BlockingIOError:
            pass
        except OSError:
            self._client_reset()
            return
        if first_bytes == b"":
            self.pending = RDHUP
            first_bytes = None
        self.sessions.poller.add(client.fd, self)
        self.call(first_bytes, self.started_at)

    def call(self, first_bytes: bytes | None, now: float) -> None:
        """Dial; ``first_bytes`` were read from the client, which is polled already."""
        client = self.client
        self.dial = self.sessions.call(self, first_bytes, now)
        if first_bytes is not None and client.moved < len(first_bytes) and self.end is None:
            client.unsent = memoryview(first_bytes)[client.moved :]
            client.fast = False
            if self.upstream is not None:
                self.upstream.arm()

    # What the poller tells the client's watcher, while dialing.

    def on_event(self, mask: int) -> None:
        self.pending |= mask
        self.end_if_reset(mask)

    def end_if_reset(self, mask: int) -> None:
        """Before there is an endpoint: end with the client, if the event says that it is gone."""
        # The client of a UNIX socket that wrote and closed has hung up, but reset nothing.
        if mask & ERR or (mask & HUP and not is_unix_socket(self.client.fd)):
            self._client_reset()

    def on_crash(self, error: Exception) -> None:
        self.crashed(error)

    # What the dial tells its caller.

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
        self.dial = None
        sessions = self.sessions
        client = self.client
        kind = Leg if endpoint.port else UnixLeg
        self.upstream = upstream = kind(fd, self, sessions.relay, mask != 0)
        client.peer = upstream
        upstream.peer = client
        now = monotonic()
        watcher: Watcher = upstream
        record = self.record
        if record is not None:
            record.dialed(attempts, now)
            watcher = record.connected(upstream, address)
        poller = sessions.poller
        poller.replace(client.fd, client)
        if mask:
            poller.replace(fd, watcher)
        else:
            poller.add(fd, watcher)
            client.moved = sent
        self.endpoint = name = endpoint.name
        self.counters = counters = sessions.counters_of(name)
        counters.sessions += 1
        counters.sessions_total += 1
        if len(endpoint.addresses) > 1:
            self._count_at(address, counters)
        counters.dials["connected"] = counters.dials.get("connected", 0) + 1
        counters.dial_seconds.observe(now - dialed_at)
        sessions.relay.dirty.add(self)
        sessions.established(self, name)
        if self.tuned:  # dialed for so long that the client has its keepalive already
            self.tune(sessions.settings)
        if mask & ~OUT or client.unsent is not None:
            watcher.on_event(mask)
        if self.pending and self.end is None:
            client.on_event(self.pending)

    def gave_up(self, end: End, attempts: int) -> None:
        if self.record is not None:
            self.record.dialed(attempts, monotonic())
        arm_reset(self.client.fd)
        self._finish(end)

    # What the legs tell their owner.

    def first_ended(self, leg: Leg) -> None:
        self.first_end = self._side(leg)

    def completed(self) -> None:
        """Both streams ended and everything was passed on: an orderly close."""
        if self.upstream is not None:
            for leg in (self.client, self.upstream):
                if self.tuned:
                    disarm_reset(leg.fd)
                if leg.stall is not None or not leg.ended:
                    self.sessions.stalls.deliver(leg)
        self._finish(self.first_end or End.CLIENT)

    def broken(self, leg: Leg, error: OSError | None) -> None:
        """``leg``'s connection was reset or timed out: the other side gets a reset.

        But a stream that had ended before is complete: it is delivered first, and then nothing is
        cut. Meanwhile nobody takes what the other side still says.
        """
        if self.end is None and not leg.gone and leg.has_hung_up(error):
            leg.on_event(HUP)  # a word to it was faster than the event
        if self.end is not None:
            return
        dead = error is None or isinstance(error, ConnectionError)
        if leg.gone and dead:
            leg.peer.discard()
        elif leg.pass_rest(error):
            self.reset_by = self._side(leg)
            self.outlive(leg)
            leg.peer.discard()
        elif self.end is None:  # else both streams had ended
            if leg.ended and dead and has_unsent(leg.peer.fd):
                self.reset_by = self._side(leg)
                self.completed()
            else:
                ours = error is not None and error.errno in OUR_ERRORS
                self._reset(leg, End.ERROR if ours else End.RESET)

    def outlive(self, leg: Leg) -> None:
        """Nobody is at the other end of ``leg`` any more, but its stream is still passed on."""
        self.sessions.stalls.outlive(leg)

    def vanished(self, leg: Leg) -> None:
        """``leg``'s peer is silent and takes no bytes: both sides get a reset."""
        if self.end is None:
            arm_reset(leg.fd)
            self._reset(leg, End.RESET)

    def crashed(self, error: Exception) -> None:
        """A bug, or memory ran out: this session alone pays for it."""
        try:
            self.sessions.log.error("session failed", error=repr(error), endpoint=self.endpoint)
        finally:  # there may be no memory for the line
            self.cut(End.ERROR)

    # What the register does with its sessions.

    def cut(self, end: End) -> None:
        """End it from our side: resets, so that neither side takes its stream for complete."""
        if self.end is None:
            arm_reset(self.client.fd)
            if self.upstream is not None:
                arm_reset(self.upstream.fd)
            self._finish(end)

    def count_bytes(self) -> None:
        """Count what moved, and have the legs looked at that bytes were written to.

        The legs' next bytes take the path that enters the session as dirty.
        """
        upstream = self.upstream
        if upstream is not None:
            stalls = self.sessions.stalls
            ended = self.first_end is not None  # an end of stream has to be acknowledged, too
            if ended or self.client.moved != self.counted_in:
                stalls.moved(upstream)
            if ended or upstream.moved != self.counted_out:
                stalls.moved(self.client)
            self._add_to_counters(upstream)
            self.client.fast = upstream.fast = False

    def note_address(self) -> None:
        """Its endpoint has several addresses now, and had one when this session began."""
        if self.address or self.upstream is None or self.counters is None:
            return
        if address := host_of(peer_of(self.upstream.fd)):
            self._count_at(address, self.counters)
            self.sessions.table.address_known(self.endpoint, address)

    def tune(self, settings: Settings) -> None:
        """Find peers that vanished; and should this process be killed, let the kernel reset both
        sides, so that neither takes its stream for complete."""
        self.tuned = True
        if self.upstream is not None:
            if not is_unix(self.endpoint):
                with borrowed(self.upstream.fd) as sock:
                    set_keepalive(sock, settings)
            arm_reset(self.client.fd)
            arm_reset(self.upstream.fd)

    def idle_for(self, now: float) -> float:
        """Seconds without a byte, seen at the grain of the calls; 0 while dialing, and from then
        on it counts."""
        if self.upstream is None:
            self.moved_at = now
            return 0.0
        moved = self.client.moved + self.upstream.moved
        if moved != self.seen:
            self.seen = moved
            self.waiting = -1
            self.moved_at = now
        return now - self.moved_at

    def is_idle(self, now: float, timeout_s: float) -> bool:
        """Whether no byte moved for so long, here or from our kernel to a slow peer.

        The kernel is asked what waits there when nothing moves here any more, from which on the
        time counts if anything does, and again when the time is over.
        """
        idle_s = self.idle_for(now)
        if idle_s <= 0 or (idle_s < timeout_s and self.waiting >= 0):
            return False
        legs = (self.client, self.upstream)
        waiting = sum(count_waiting(leg.fd) for leg in legs if leg is not None)
        before, self.waiting = max(self.waiting, 0), waiting
        if waiting != before:
            self.moved_at = now
            return False
        return idle_s >= timeout_s

    @property
    def waits(self) -> bool:
        """Whether bytes wait for a peer that takes none now, or a stream that ended for the other.

        Such a session may be quiet, but is not idle: something of it would be lost.
        """
        legs = (self.client, self.upstream)
        return self.first_end is not None or any(
            leg is not None and (leg.blocked or is_waiting(leg.fd)) for leg in legs
        )

    @property
    def over(self) -> bool:
        return self.end is not None

    @property
    def endpoint_fd(self) -> int:
        return self.upstream.fd if self.upstream is not None else -1

    def client_address(self) -> SocketAddress:
        """The original client's address: as the PROXY protocol header says, else the peer's."""
        header = self.header
        return header.route.source if header is not None and header.route else self.peer_address()

    def via_address(self) -> SocketAddress | None:
        """The peer's address if a header names another client, else None."""
        header = self.header
        return self.peer_address() if header is not None and header.route else None

    def peer_address(self) -> SocketAddress:
        """The other end of the client's connection; a system call if nobody asked before."""
        if self.peer is None:
            self.peer = peer_of(self.client.fd) if self.client.fd >= 0 else NOBODY
        return self.peer

    def client_host(self) -> str:
        """The original client's IP address; "" if it has none."""
        return host_of(self.client_address())

    def facts(self) -> dict[str, Any]:
        """The access log's fields, but for the duration and the end."""
        record = self.record or NO_RECORD
        bytes_out = self.upstream.moved if self.upstream is not None else 0
        facts = {
            "client": address_text(self.client_address()),
            "endpoint": self.endpoint,
            **record.facts(bytes_out),
            "bytes_in": self.client.moved,
            "bytes_out": bytes_out,
        }
        if (via := self.via_address()) is not None:
            facts["via"] = address_text(via)
        if self.reset_by is not None:
            facts["reset_by"] = self.reset_by
        if self.problem:
            facts["error"] = self.problem
        return facts

    def _side(self, leg: Leg) -> End:
        return End.CLIENT if leg is self.client else End.ENDPOINT

    def _client_reset(self) -> None:
        self.reset_by = End.CLIENT
        self._finish(End.RESET)

    def _reset(self, leg: Leg, end: End) -> None:
        """Pass on the reset of ``leg``; ``end`` says why unless a stream ended in order before."""
        if end is End.RESET:
            self.reset_by = self._side(leg)
            end = self.first_end or end
        arm_reset(leg.fd)  # not every error ends a connection: those of our own host leave it up
        arm_reset(leg.peer.fd)
        self._finish(end)

    def _count_at(self, address: str, counters: EndpointCounters) -> None:
        self.address = address
        counters.addresses[address] = counters.addresses.get(address, 0) + 1

    def _leave_endpoint(self, counters: EndpointCounters) -> None:
        address = self.address
        if address:
            counters.addresses[address] -= 1
            if not counters.addresses[address]:
                del counters.addresses[address]
        self.sessions.table.session_ended(self.endpoint, address)

    def _add_to_counters(self, upstream: Leg) -> None:
        counters = self.counters
        if counters is not None:
            moved_in, moved_out = self.client.moved, upstream.moved
            counters.bytes_in += moved_in - self.counted_in
            counters.bytes_out += moved_out - self.counted_out
            self.counted_in, self.counted_out = moved_in, moved_out

    def _finish(self, end: End) -> None:
        if self.end is not None:
            return
        self.end = end
        if self.dial is not None:
            self.dial.cancel()
            if self.record is not None:
                self.record.dialed(self.dial.made, monotonic())
            self.dial = None
        self.client.let_go()
        if self.upstream is not None:
            self.upstream.let_go()
            if self.counters is not None:
                self._add_to_counters(self.upstream)
                self.sessions.relay.dirty.discard(self)
                self.counters.sessions -= 1
                self._leave_endpoint(self.counters)
            del self.client.peer, self.upstream.peer
        self.sessions.ended(self, end)
        # The legs know us: without this every session would be a cycle, half a kilobyte that waits
        # for the collector.
        del self.client
        self.upstream = None
