"""The loop guard: a gateway that dials itself would open sessions without end.

etcd's gateway compares names only, and a wildcard listen address slips through (CVE-2020-15114).
"""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Callable, Iterable

from gateway.core.address import Address, HostPort, literal_ip
from gateway.core.unix_address import UnixAddress, is_unix
from supervisor.core.discovery.endpoints import Discovered

IsLocal = Callable[[str], bool]
"""Whether a literal IP is one of this host's own."""

IsSameSocket = Callable[[str, str], bool]
"""Whether two UNIX addresses as text lead to the same socket."""


def without_own(
    endpoint: Discovered,
    listen: Iterable[Address],
    is_local: IsLocal,
    is_same_socket: IsSameSocket,
) -> tuple[Discovered | None, Address | None]:
    """The endpoint without those of its addresses that are ours, None if nothing is left of it.

    The second value is the listen address that an address reached, None if none did.
    """
    hits = {
        address: hit
        for address in endpoint.addresses
        if (
            hit := _own_socket(address, listen, is_same_socket)
            if is_unix(address)
            else own_listen_address(address, endpoint.port, listen, is_local)
        )
    }
    if not hits:
        return endpoint, None
    left = tuple(address for address in endpoint.addresses if address not in hits)
    kept = dataclasses.replace(endpoint, addresses=left) if left else None
    return kept, next(iter(hits.values()))


def describe_own(hit: Address | str) -> str:
    """What is said of an endpoint with an address at which the gateway itself listens."""
    return f"is the gateway's own listen address {hit}"


def own_listen_address(
    address: str, port: int, listen: Iterable[Address], is_local: IsLocal
) -> HostPort | None:
    """The listen address that a connection to ``address:port`` would reach, if any."""
    for each in listen:
        if isinstance(each, UnixAddress) or each.port != port:
            continue
        host = literal_ip(each.host) if each.host else None
        if host is None or ipaddress.ip_address(host).is_unspecified:
            # 0.0.0.0 is for IPv4 alone, and [::] for IPv6; an empty host is for both.
            reached = host is None or (":" in host) == (":" in address)
            if reached and is_local(address):
                return each
        elif host == address:
            return each
        elif ipaddress.ip_address(address).is_unspecified and is_local(host):
            # Linux connects 0.0.0.0 to 127.0.0.1 and :: to ::1.
            return each
    return None


def _own_socket(
    address: str, listen: Iterable[Address], is_same_socket: IsSameSocket
) -> UnixAddress | None:
    """The listen address that a connection to ``unix:/path`` would reach, if any."""
    for each in listen:
        if isinstance(each, UnixAddress) and is_same_socket(address, str(each)):
            return each
    return None
