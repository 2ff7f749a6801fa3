"""Copying bytes both ways: two legs, each reading its own descriptor and writing to the other's.

Small traffic is read, written at once and forgotten. What the other side does not take is kept
(at most one read) and stops the reading: backpressure is the kernel's. A flow that fills its reads
is bulk and goes through a pipe with ``splice``, so that its bytes never enter user space.

An end of stream is forwarded as one, a reset as a reset: a cut stream never looks complete.
"""

from __future__ import annotations

import os
from os import read, splice, write
from typing import Protocol

from gateway.core.counters import End
from gateway.poller import ERR, IN, OUT, RDHUP, Poller
from gateway.sessions.pipes import Pipe, Pipes
from gateway.tcp import shut_write, write_last

READ_BYTES = 1 << 16
"""One read of small traffic; a read that fills it is a sign of bulk.

``os.read`` measured 0.07 us faster than ``readv`` into a shared buffer: no slice is needed, and
what must be kept is there already.
"""

BULK_READS = 2
"""Full reads in a row that make a flow bulk."""

COPY_BUDGET = 4
"""Full reads per event before others get their turn."""

SPLICE_BYTES = 1 << 20
SPLICE_BUDGET = 1
"""Pipefuls moved before other flows go on: 1 MiB takes about 0.3 ms."""

SMALL_BYTES = 1 << 14
"""A splice that moves less than this was not worth it: the flow is small again."""

FAST_EVENTS = IN | OUT
CAREFUL = -1
"""Signs that promise nothing: read on until the kernel says that there is no more."""

SPLICE_FLAGS = os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE


class LegOwner(Protocol):
    """What a leg tells the session that owns it."""

    def first_ended(self, leg: Leg) -> None:
        """``leg`` is the first of the two whose stream ended."""

    def completed(self) -> None:
        """Both streams ended, and everything was passed on."""

    def broken(self, leg: Leg, error: OSError | None) -> None:
        """``leg``'s connection was reset or timed out."""

    def crashed(self, error: Exception) -> None:
        """A leg raised, which is a bug."""

    def settle(self) -> None:
        """Count what moved since the last call."""

    def cut(self, end: End) -> None:
        """End the session from the gateway's side."""


class Relay:
    """What all sessions of a worker share: the poller, the pipes, and who has something to report.

    ``dirty`` holds the sessions that moved bytes since the last report, so that a report costs
    by these and not by all. The fast path pays nothing for it: a session that has just been
    reported is made not fast, and its next event comes by :meth:`Leg.pump`, which enters it here.
    """

    __slots__ = ("dirty", "pipes", "poller")

    def __init__(self, poller: Poller) -> None:
        self.poller = poller
        self.pipes = Pipes()
        self.dirty: set[LegOwner] = set()

    def close(self) -> None:
        self.pipes.close()


class Leg:
    """One side of a session: ``fd`` is read here and written by the peer leg.

    ``moved`` counts bytes read from ``fd`` that the other side's kernel took.
    ``held`` is the rest that it did not take; while there is one (or the pipe has a fill) the leg
    is stuck and does not read. ``ended``: the end of stream was read, which happens only when
    nothing is kept, and was forwarded. ``armed``: registered for OUT events too.
    ``fast``: none of this, no bulk, and the session is in ``Relay.dirty`` already: the fast path
    of :meth:`on_event` will do.
    """

    __slots__ = (
        "armed",
        "bulk",
        "ended",
        "fast",
        "fd",
        "held",
        "moved",
        "peer",
        "pipe",
        "relay",
        "session",
    )

    peer: Leg

    def __init__(self, fd: int, session: LegOwner, relay: Relay, armed: bool = False) -> None:
        self.fd = fd
        self.armed = armed
        self.session = session
        self.relay = relay
        self.moved = 0
        self.held: memoryview | None = None
        self.pipe: Pipe | None = None
        self.bulk = 0
        self.ended = False
        self.fast = True

    @property
    def stuck(self) -> bool:
        return self.held is not None or self.pipe is not None

    def on_event(self, mask: int) -> None:
        if self.fast and (mask == IN or (mask == FAST_EVENTS and self.peer.fast)):
            # Nearly every event there is: one read that is not full, one write that takes it all.
            # Written out here: a call of pump costs 0.2 of the 12 us of a round trip.
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
                    self.hold(memoryview(data)[sent:])
                return
            self.pump(0, data)
            return
        if self.fd < 0:
            return  # ended earlier in this batch
        if not mask:
            self.go_on()
            return
        # Bulk waits for its slice of the poller's turn, so that a small event waits for no bulk.
        peer = self.peer
        if mask & ~IN:
            if peer.pipe is not None:
                self.relay.poller.again(peer)
            elif peer.held is not None:
                peer.go_on()
                if self.fd < 0:
                    return
        if self.held is None and self.pipe is None:
            if mask != OUT and not self.ended:
                if self.bulk >= BULK_READS:
                    self.relay.poller.again(self)
                else:
                    self.pump(mask & ~FAST_EVENTS)
        elif mask & ERR:
            self.session.broken(self, None)

    def on_crash(self, error: Exception) -> None:
        self.session.crashed(error)

    def pump(self, signs: int, data: bytes | None = None) -> None:
        """Read until drained. ``signs``: what the event said beside IN and OUT.

        Without any, a short read proves that nothing is left. With RDHUP alone, it proves that
        the stream has ended: its end is queued behind all of its bytes. Otherwise only reading
        on tells. ``data`` was read already.
        """
        self.relay.dirty.add(self.session)
        if self.bulk >= BULK_READS and data is None and self.pump_pipe():
            return
        for _ in range(COPY_BUDGET):
            if data is None:
                try:
                    data = read(self.fd, READ_BYTES)
                except BlockingIOError:
                    return
                except OSError as error:
                    self.session.broken(self, error)
                    return
            size = len(data)
            if not size:
                self.forward_end()
                return
            last = signs == RDHUP and size != READ_BYTES
            try:
                sent = (write_last if last else write)(self.peer.fd, data)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                self.session.broken(self.peer, error)
                return
            self.moved += sent
            if sent != size:
                self.hold(memoryview(data)[sent:])
                return
            if last:
                self.forward_end(told=True)
                return
            data = None
            if size != READ_BYTES:
                self.bulk = 0
                self.fast = True
                if not signs:
                    return
            else:
                self.bulk += 1
                if self.bulk >= BULK_READS:
                    self.fast = False
                    if self.pump_pipe():
                        return
        self.relay.poller.again(self)

    def pump_pipe(self) -> bool:
        """The same with splice; False if the flow must be copied (no pipe, or small again)."""
        pipe = self.relay.pipes.take()
        if pipe is None:
            return False
        target = self.peer.fd
        for _ in range(SPLICE_BUDGET):
            try:
                size = splice(self.fd, pipe.w, SPLICE_BYTES, flags=SPLICE_FLAGS)
            except BlockingIOError:
                self.relay.pipes.give_back(pipe)
                return True
            except OSError as error:
                self.relay.pipes.give_back(pipe)
                self.session.broken(self, error)
                return True
            if not size:
                self.relay.pipes.give_back(pipe)
                self.forward_end()
                return True
            if size < SMALL_BYTES:
                self.bulk = 0
                self.fast = True
            pipe.fill = size
            if not self.empty(pipe, target):
                return True
            if not self.bulk:
                self.relay.pipes.give_back(pipe)
                return False
        self.relay.pipes.give_back(pipe)
        self.relay.poller.again(self)
        return True

    def empty(self, pipe: Pipe, target: int) -> bool:
        """Move the pipe's bytes on; False if some stay in it, or the session is over."""
        while pipe.fill:
            try:
                sent = splice(pipe.r, target, pipe.fill, flags=SPLICE_FLAGS)
            except BlockingIOError:
                self.pipe = pipe
                self.fast = False
                self.peer.arm()
                return False
            except OSError as error:
                self.pipe = pipe
                self.session.broken(self.peer, error)
                return False
            self.moved += sent
            pipe.fill -= sent
        return True

    def go_on(self) -> None:
        """Move what the other side did not take before, if any, and then what is new."""
        self.relay.dirty.add(self.session)
        if self.pipe is not None:
            pipe = self.pipe
            if not self.empty(pipe, self.peer.fd):
                return
            self.pipe = None
            self.relay.pipes.give_back(pipe)
        elif self.held is not None:
            try:
                sent = write(self.peer.fd, self.held)
            except BlockingIOError:
                return
            except OSError as error:
                self.session.broken(self.peer, error)
                return
            self.moved += sent
            if sent < len(self.held):
                self.held = self.held[sent:]
                return
            self.held = None
        if not self.ended:
            self.fast = self.bulk < BULK_READS
            self.pump(CAREFUL)

    def hold(self, rest: memoryview) -> None:
        """Keep what the other side did not take, until it does."""
        self.held = rest
        self.fast = False
        self.peer.arm()

    def arm(self) -> None:
        if not self.armed:
            self.armed = True
            self.relay.poller.want_out(self.fd)

    def forward_end(self, *, told: bool = False) -> None:
        """Tell the other side that this stream is complete; the second end ends the session.

        ``told``: it went with the last bytes.
        """
        self.ended = True
        self.fast = False
        if self.peer.ended:
            self.session.completed()
        else:
            self.session.first_ended(self)
            if not told:
                shut_write(self.peer.fd)

    def last_words(self) -> None:
        """Deliver what this broken side sent before it broke, as far as that goes at once.

        A write error takes the socket's error with it, so a later read would look like a clean
        end: whoever calls this resets the other side afterwards.
        """
        if self.stuck or self.ended:
            return
        for _ in range(COPY_BUDGET):
            try:
                data = read(self.fd, READ_BYTES)
                if not data:
                    return
                self.moved += write(self.peer.fd, data)
            except OSError:
                return

    def let_go(self) -> None:
        """Close the descriptor, give the pipe back; the bytes kept go with them."""
        fd, self.fd = self.fd, -1
        self.fast = False
        if self.pipe is not None:
            self.relay.pipes.give_back(self.pipe)
            self.pipe = None
        self.held = None
        self.relay.poller.close(fd)
