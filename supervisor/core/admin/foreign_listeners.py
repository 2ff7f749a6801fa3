"""Strangers: sockets of other programs that listen where we do, and take clients from us.

Nothing forbids a program of the same user to join the listen address later (SO_REUSEPORT); the
kernel then gives it its share of the clients, without a word.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from gateway.core.address import HostPort


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
    """What to tell: those that were not there before, and those that went."""

    came: tuple[Listener, ...]
    went: tuple[Listener, ...]


class Watch:
    """Remembers who was seen; ``present`` are the foreign_listeners that listen now."""

    def __init__(self, listen: Iterable[HostPort]) -> None:
        self._listen = tuple(listen)
        self._suspects: set[int] = set()
        self.present: tuple[Listener, ...] = ()

    def look(self, listeners: Iterable[Listener], own: set[int]) -> ListenersChange:
        """``listeners`` of the whole host, and the inodes of ``own``.

        A stranger is one that is seen twice: a worker of ours binds before it tells us.
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
    if own.version == 6:  # ours takes both families if it is for all interfaces
        return own.is_unspecified
    return theirs.is_unspecified and not listener.v6_only
