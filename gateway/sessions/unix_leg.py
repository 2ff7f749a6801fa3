"""The leg on a UNIX socket, where bytes may come with descriptors."""

from __future__ import annotations

from gateway.poller import IN, PRI
from gateway.sessions.leg import Leg


class UnixLeg(Leg):
    """A leg whose reads end behind bytes that came with descriptors (unix(7)).

    So a short read proves nothing here: neither that no bytes are left, nor that the end is next.
    A class of its own costs TCP nothing.
    """

    __slots__ = ()

    def on_event(self, mask: int) -> None:
        super().on_event(mask | PRI if mask & IN else mask)
