"""Copying bytes both ways: two legs, each reads its own descriptor and writes to the other's.

A leg is in one of three states. *Fast*: small traffic is read, written at once and forgotten.
*Bulk*: a flow that fills its reads goes through a pipe with ``splice``, so that its bytes never
enter user space. *Blocked*: the other side takes no more; what it did not take is kept (at most one
read, or one pipe), and nothing is read until it is gone, so backpressure is the kernel's.

An end of stream is passed on as one, a reset as a reset: a cut stream never looks complete.
"""

from __future__ import annotations

import errno
from os import read, write
from typing import Protocol

from gateway.core.counters import End
from gateway.core.stall import Stall
from gateway.poller import ERR, IN, OUT, RDHUP
from gateway.sessions.pipes import Pipe
from gateway.sessions.relay import Countable, Relay
from gateway.tcp import error_of
from gateway.tcp_calls import shut_write, write_last

READ_BYTES = 1 << 16
"""One read of small traffic; a read that fills it is a sign of bulk.

``os.read`` measured 0.07 us faster than ``readv`` into a shared buffer: no slice is needed, and
what must be kept is there already.
"""

BULK_READS = 2
"""Full reads in a row that make a flow bulk."""

COPY_BUDGET = 4
"""Full reads per event before the poller goes on with other watchers."""

SMALL_BYTES = 1 << 14
"""A splice that moves less than this was not worth it: the flow is small again."""

FAST_EVENTS = IN | OUT
CAREFUL = -1
"""Signs that promise nothing: read on until the kernel says that there is no more."""

SIGNS = ~FAST_EVENTS
"""What an event may say beside "there are bytes": an end of stream, an urgent byte."""


class LegOwner(Countable, Protocol):
    """What a leg tells the session that owns it."""

    def first_ended(self, leg: Leg) -> None:
        """``leg`` is the first of the two whose stream ended."""

    def completed(self) -> None:
        """Both streams ended, and everything was passed on; or one did, whose peer is gone."""

    def broken(self, leg: Leg, error: OSError | None) -> None:
        """``leg``'s connection was reset or timed out.

        ``error`` is what a read or a write said, None if the poller said it: then the socket still
        has its error.
        """

    def vanished(self, leg: Leg) -> None:
        """``leg``'s peer is silent and takes no bytes."""

    def outlive(self, leg: Leg) -> None:
        """Nobody is at the other end of ``leg`` any more, but its stream is still passed on."""

    def crashed(self, error: Exception) -> None:
        """A leg raised, which is a bug."""

    def cut(self, end: End) -> None:
        """End the session from the gateway's side."""

    def is_idle(self, now: float, timeout_s: float) -> bool:
        """Whether no byte moved for so long."""


class Leg:
    """One side of a session: ``fd`` is read here and written by the peer leg.

    ``moved`` counts bytes read from ``fd`` that the other side's kernel took.
    ``unsent`` is the rest of a read that it did not take, ``pipe`` a pipe with such a rest; with
    either the leg is blocked. ``ended``: the end of stream was read, which happens only when
    nothing is kept, and was passed on. ``armed``: registered for OUT events too.
    ``signs``: what events said beside bytes, and no read has settled since: RDHUP, the end of the
    stream has come, and may lie behind bytes; with ERR, its connection is no more (see ``gone``).
    ``stall``: what is remembered of a peer that once took no bytes, for the watch over it.
    ``fast``: none of this, no bulk, and the session is in ``Relay.dirty`` already: the fast path
    of :meth:`on_event` will do.
    """

    __slots__ = (
        "armed", "bulk", "ended", "fast", "fd", "moved", "peer", "pipe", "relay", "session",
        "signs", "stall", "unsent",
    )  # fmt: skip

    peer: Leg

    def __init__(self, fd: int, session: LegOwner, relay: Relay, armed: bool = False) -> None:
        self.fd = fd
        self.armed = armed
        self.session = session
        self.relay = relay
        self.moved = 0
        self.unsent: memoryview | None = None
        self.pipe: Pipe | None = None
        self.bulk = 0
        self.ended = False
        self.fast = True
        self.signs = 0
        self.stall: Stall | None = None

    @property
    def blocked(self) -> bool:
        return self.unsent is not None or self.pipe is not None

    @property
    def gone(self) -> bool:
        """Its connection is no more, and the rest of its stream, which is complete, goes on."""
        return self.signs & ERR != 0

    def on_event(self, mask: int) -> None:
        if self.fast and (mask == IN or (mask == FAST_EVENTS and self.peer.fast)):
            # Nearly every event there is: one read that is not full, one write that takes it all.
            # Written out here: a call of copy costs 0.2 of the 12 us of a round trip.
            try:
                data = read(self.fd, READ_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                self.session.broken(self, error)
                return
            if 0 < len(data) < READ_BYTES:
                try:
                    sent = write(self.peer.fd, data)
                except BlockingIOError:
                    sent = 0
                except OSError as error:
                    self.session.broken(self.peer, error)
                    return
                self.moved += sent
                if sent != len(data):
                    self.keep(memoryview(data)[sent:])
                return
            self.copy(0, data)
        elif self.fd >= 0:  # else the session ended earlier in this batch
            self.on_other_event(mask)

    def on_other_event(self, mask: int) -> None:
        """Resets, ends, urgent bytes, room for blocked bytes, work left over, and bulk."""
        if mask & ERR:
            # In every state: whether this stream has ended, or the other side takes no bytes.
            self.session.broken(self, None)
            return
        if not mask:
            self.go_on()
            return
        self.signs |= mask & SIGNS
        # Bulk waits until the poller goes on with work left over: no small event waits for bulk.
        peer = self.peer
        if mask & ~IN:
            if peer.pipe is not None:
                self.relay.poller.again(peer)
            elif peer.unsent is not None:
                peer.go_on()
                if self.fd < 0:
                    return
        if mask != OUT and not self.ended and self.unsent is None and self.pipe is None:
            if self.bulk >= BULK_READS:
                self.relay.poller.again(self)
            else:
                self.copy(mask & ~FAST_EVENTS)

    def on_crash(self, error: Exception) -> None:
        self.session.crashed(error)

    def copy(self, signs: int, data: bytes | None = None) -> None:
        """Read until drained. ``signs``: what the event said beside IN and OUT.

        Without any, a short read proves that nothing is left. With RDHUP alone, it proves that
        the stream has ended: its end is queued behind all of its bytes. Otherwise only reading
        on tells. ``data`` was read already.
        """
        self.relay.dirty.add(self.session)
        for _ in range(COPY_BUDGET):
            if data is None:
                try:
                    data = read(self.fd, READ_BYTES)
                except BlockingIOError:
                    self.signs = 0
                    return
                except OSError as error:
                    self.session.broken(self, error)
                    return
            size = len(data)
            if not size:
                self.pass_end()
                return
            last = signs == RDHUP and size != READ_BYTES
            try:
                fd = self.peer.fd
                sent = write_last(fd, data) if last else write(fd, data)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                self.session.broken(self.peer, error)
                return
            self.moved += sent
            if sent != size:
                self.keep(memoryview(data)[sent:])
                return
            if last:
                self.pass_end(told=True)
                return
            data = None
            if size != READ_BYTES:
                if size < SMALL_BYTES or self.bulk < BULK_READS:
                    self.bulk = 0
                    self.fast = True
                if not signs:
                    return
            else:
                self.bulk += 1
                if self.bulk >= BULK_READS:
                    self.fast = False
                    if self.splice():
                        return
        self.relay.poller.again(self)

    def splice(self) -> bool:
        """Move one pipeful, about 0.3 ms; False if :meth:`copy` has to go on.

        That is so when there is no pipe, when the flow is small again, and when the pipe took
        nothing although an event said that there is more than bytes: only a read tells what it is.
        Without such an event there is nothing, and the next one comes with what comes next.
        """
        relay = self.relay
        relay.dirty.add(self.session)
        pipe = relay.pipes.take()
        if pipe is None:
            return False
        try:
            size = pipe.take_from(self.fd)
        except OSError as error:
            relay.pipes.give_back(pipe)
            self.session.broken(self, error)
            return True
        if size and not self.send_pipe(pipe):
            return True
        relay.pipes.give_back(pipe)
        if size >= SMALL_BYTES:
            relay.poller.again(self)
            return True
        if size:
            self.bulk = 0
            self.fast = True
            return False
        return not self.signs

    def send_pipe(self, pipe: Pipe) -> bool:
        """Move the pipe's bytes on; False if some are kept in it, or the session is over."""
        before = pipe.fill
        failure: OSError | None = None
        try:
            pipe.pass_to(self.peer.fd)
        except OSError as error:
            failure = error
        self.moved += before - pipe.fill
        if not pipe.fill:
            return True
        self.pipe = pipe
        self.fast = False
        if failure is None:
            self.peer.arm()
        else:
            self.session.broken(self.peer, failure)
        return False

    def go_on(self) -> None:
        """Move what the other side did not take before, if any, and then what is new."""
        self.relay.dirty.add(self.session)
        if self.pipe is not None:
            if not self.send_pipe(self.pipe):
                return
            self.relay.pipes.give_back(self.pipe)
            self.pipe = None
        elif self.unsent is not None:
            try:
                sent = write(self.peer.fd, self.unsent)
            except BlockingIOError:
                return
            except OSError as error:
                self.session.broken(self.peer, error)
                return
            self.moved += sent
            if sent < len(self.unsent):
                self.unsent = self.unsent[sent:]
                return
            self.unsent = None
        if not self.ended:
            self.fast = self.bulk < BULK_READS
            if self.fast or not self.splice():
                self.copy(CAREFUL)

    def keep(self, rest: memoryview) -> None:
        """Keep what the other side did not take, until it does."""
        self.unsent = rest
        self.fast = False
        self.peer.arm()

    def arm(self) -> None:
        """Be told when ``fd`` takes bytes again."""
        if not self.armed:
            self.armed = True
            self.relay.poller.want_out(self.fd)

    def pass_end(self, *, told: bool = False) -> None:
        """Tell the other side that this stream is complete; the second end ends the session.

        ``told``: it went with the last bytes.
        """
        self.ended = True
        self.fast = False
        if not self.peer.ended:
            self.session.first_ended(self)
            if not self.gone:
                if not told:
                    shut_write(self.peer.fd)
                return
        self.session.completed()

    def has_hung_up(self, _error: OSError | None) -> bool:
        """Whether the error means that the peer has closed in order; TCP has no such one."""
        return False

    def pass_rest(self, error: OSError | None) -> bool:
        """Pass on what this broken side sent before it broke, as far as the other takes it at once.

        True: its stream had ended before, so the other side gets the rest when it takes it. A
        kernel forgets a connection that was closed, after a minute, however late its bytes are
        read, and a host may go.

        ``error``: what a read or a write said. Without one the socket still has its error, so a
        read that finds nothing is the end of the stream, which came before the reset. A failed read
        or write takes the error out of the socket, and every later read looks like an end.
        """
        if self.ended:
            return False
        while not self.blocked:  # the connection is dead: no more comes than is here
            try:
                data = read(self.fd, READ_BYTES)
                sent = self._write_some(data)
            except OSError:
                return False
            self.moved += sent
            if sent < len(data):
                self.keep(memoryview(data)[sent:])
            elif not data:
                if error is None or error.errno == errno.EPIPE:
                    self.pass_end()
                return False
        if self._ended_before(error):
            self.signs |= ERR
            return True
        return False

    def _ended_before(self, error: OSError | None) -> bool:
        """Whether the stream had ended before its connection was reset; asks the socket once.

        A reset that follows an end of stream is EPIPE, any other one ECONNRESET (tcp_reset in
        net/ipv4/tcp_input.c). Nothing is written to a side whose stream we have ended, so a write
        has no reason of its own for EPIPE.
        """
        if error is not None:
            return error.errno == errno.EPIPE
        return self.signs & RDHUP != 0 or error_of(self.fd) == errno.EPIPE

    def discard(self) -> None:
        """Read and drop what comes: the other side is gone, and only its own stream goes on.

        Left unread, it would stand in the way of what is still to be delivered here: a socket that
        is closed with unread bytes resets its connection.
        """
        self._drop_kept()
        for _ in range(COPY_BUDGET):
            try:
                if not read(self.fd, READ_BYTES):
                    return
            except BlockingIOError:
                return
            except OSError as error:
                self.session.broken(self, error)
                return
        self.relay.poller.again(self)

    def _drop_kept(self) -> None:
        if self.pipe is not None:
            self.relay.pipes.give_back(self.pipe)
            self.pipe = None
        self.unsent = None

    def _write_some(self, data: bytes) -> int:
        try:
            return write(self.peer.fd, data) if data else 0
        except BlockingIOError:
            return 0

    def let_go(self) -> None:
        """Close the descriptor, give the pipe back; the bytes kept go with them."""
        self.fast = False
        self._drop_kept()
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            self.relay.poller.close(fd)

    def detach(self) -> int:
        """Give the descriptor away, open and still polled: it needs another watcher."""
        fd, self.fd = self.fd, -1
        return fd
