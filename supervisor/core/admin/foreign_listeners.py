"""Foreign listeners: sockets of other programs that listen on our address and take our clients.

A program of the same user may join the listen address later (SO_REUSEPORT). The kernel then gives
it a share of the clients, and nobody is told.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import NamedTuple

from gateway.core.address import HostPort
from gateway.core.records import dataclass


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening socket of this host; ``v6_only``: one of ``::`` takes no IPv4."""

    host: str
    port: int
    inode: int
    uid: int
    v6_only: bool = False

    @property
    def address(self) -> HostPort:
        return HostPort(self.host, self.port)


class ListenersChange(NamedTuple):
    """What changed since the last look: foreign listeners that came, and those that went."""

    came: tuple[Listener, ...]
    went: tuple[Listener, ...]


class ForeignListeners:
    """Remembers the foreign listeners; ``present`` are those of the last look."""

    def __init__(self, listen: Iterable[HostPort]) -> None:
        self._listen = tuple(listen)
        self._suspects: set[int] = set()
        self.present: tuple[Listener, ...] = ()

    def look(self, listeners: Iterable[Listener], own: set[int]) -> ListenersChange:
        """Compare the ``listeners`` of the whole host with ``own``, the inodes of ours.

        A listener counts as foreign when it is seen twice in a row: a worker of ours binds its
        listeners a moment before the master knows of them.
        """
        found = [each for each in listeners if each.inode not in own and shares(each, self._listen)]
        known = {each.inode for each in self.present}
        now = tuple(each for each in found if each.inode in self._suspects | known)
        self._suspects = {each.inode for each in found}
        came = tuple(each for each in now if each.inode not in known)
        went = tuple(each for each in self.present if each.inode not in self._suspects)
        self.present = now
        return ListenersChange(came, went)


def shares(listener: Listener, listen: Iterable[HostPort]) -> bool:
    """Whether clients of one of the listen addresses may end up at this socket."""
    return any(
        listener.port == each.port and _overlap(listener, each.host or "::") for each in listen
    )


def _overlap(listener: Listener, ours: str) -> bool:
    theirs, own = ipaddress.ip_address(listener.host), ipaddress.ip_address(ours)
    if theirs == own:
        return True
    if theirs.version == own.version:
        return theirs.is_unspecified or own.is_unspecified
    if own.version == 6:  # a listener of ours on all interfaces takes both families
        return own.is_unspecified
    return theirs.is_unspecified and not listener.v6_only
