"""The leg on a UNIX socket: bytes may come with descriptors, and a peer that is gone is known."""

from __future__ import annotations

import errno
import select

from gateway.poller import ERR, HUP, IN, PRI
from gateway.sessions.leg import Leg


class UnixLeg(Leg):
    """A leg whose reads end behind bytes that came with descriptors (unix(7)).

    So a short read proves nothing here: neither that no bytes are left, nor that the end is next.

    A peer that closed is told apart from one that ended its own direction alone. The session is
    over with it, because keepalive, which finds such peers with TCP, does not exist here.
    A class of its own costs TCP nothing.
    """

    __slots__ = ()

    def on_event(self, mask: int) -> None:
        if mask & HUP and not mask & ERR:
            self.signs |= ERR  # gone: the end of its stream is that of both
        super().on_event(mask | PRI if mask & IN else mask)
        if mask & HUP and self.fd >= 0:
            if self.ended:
                self.session.completed()
            else:
                self.session.outlive(self)

    def has_hung_up(self, error: OSError | None) -> bool:
        """A write to a peer that has closed fails; so does one to a peer that reads no more."""
        if error is None or error.errno != errno.EPIPE:
            return False
        poll = select.poll()
        poll.register(self.fd, 0)
        return [(self.fd, select.POLLHUP)] == poll.poll(0)

    def _ended_before(self, error: OSError | None) -> bool:
        """EPIPE tells nothing here: a peer that reads no more may still have much to say."""
        return error is None and super()._ended_before(error)
