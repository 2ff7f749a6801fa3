"""Which of the gateway's own addresses cannot be had together: the second bind would fail."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from itertools import combinations

from gateway.core.address import HostPort, literal_ip

LOOPBACK = "127.0.0.1"
"""What ``localhost`` is as an admin address, and on each host as a listen address."""


def find_overlap(addresses: Iterable[HostPort]) -> tuple[HostPort, HostPort] | None:
    """The first two of which one includes the other, the one that is included last.

    Two that are the same do not count, nor do names: what they are is known when they are looked
    up.
    """
    for one, other in combinations(addresses, 2):
        if one.port != other.port or _literal(one) == _literal(other):
            continue
        if _includes(one, other):
            return one, other
        if _includes(other, one):
            return other, one
    return None


def are_apart(one: HostPort, other: HostPort) -> bool:
    """Whether sockets may listen on both: neither is the other, nor includes it."""
    return _literal(one) != _literal(other) and find_overlap((one, other)) is None


def _literal(address: HostPort) -> HostPort:
    host = LOOPBACK if address.host == "localhost" else address.host
    return HostPort(host, address.port)


def _includes(all_of_a_kind: HostPort, other: HostPort) -> bool:
    """Whether the first is all interfaces of a family, or of both, and the second one of them."""
    if not all_of_a_kind.host:
        return True
    every, one = literal_ip(all_of_a_kind.host), literal_ip(_literal(other).host)
    if every is None or one is None or not ipaddress.ip_address(every).is_unspecified:
        return False
    return (":" in every) == (":" in one)
