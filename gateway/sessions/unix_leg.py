"""The leg on a UNIX socket: bytes may come with descriptors, and a peer that is gone is known."""

from __future__ import annotations

from gateway.poller import HUP, IN, PRI
from gateway.sessions.leg import Leg
from gateway.unix import has_hung_up


class UnixLeg(Leg):
    """A leg whose reads end behind bytes that came with descriptors (unix(7)).

    So a short read proves nothing here: neither that no bytes are left, nor that the end is next.

    A peer that closed is told apart from one that ended its own direction alone. The session is
    over with it, because keepalive, which finds such peers with TCP, does not exist here.
    A class of its own costs TCP nothing.
    """

    __slots__ = ()

    def on_event(self, mask: int) -> None:
        super().on_event(mask | PRI if mask & IN else mask)
        if mask & HUP and self.ended and self.fd >= 0:
            self.session.completed()

    def pass_end(self, *, told: bool = False) -> None:
        """Pass the end on; it is that of both streams if the peer has closed."""
        super().pass_end(told=told)
        if self.fd >= 0 and has_hung_up(self.fd):
            self.session.completed()
