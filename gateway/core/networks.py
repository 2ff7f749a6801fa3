"""A set of networks that tells of one address, in one lookup, whether it is in any of them."""

from __future__ import annotations

import ipaddress
from bisect import bisect_right
from collections.abc import Iterable

from gateway.core.socket_address import MAPPED_BYTES

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_MAPPED_PREFIX = 96
"""The length of ::ffff:0:0/96, in which IPv4 addresses are mapped."""


class Networks:
    """The networks as ranges that do not overlap, in order; their number hardly matters.

    ``texts`` are networks in CIDR notation, or single addresses.
    """

    __slots__ = ("_ranges",)

    def __init__(self, texts: Iterable[str] = ()) -> None:
        by_size: dict[int, list[Network]] = {4: [], 16: []}
        for text in texts:
            network = _without_mapping(ipaddress.ip_network(text))
            by_size[network.max_prefixlen // 8].append(network)
        self._ranges = {size: _to_ranges(networks) for size, networks in by_size.items()}

    def __bool__(self) -> bool:
        return any(first for first, _ in self._ranges.values())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Networks) and self._ranges == other._ranges

    def __hash__(self) -> int:
        return hash(tuple(map(tuple, self._ranges[4])))

    def has(self, address: bytes) -> bool:
        """Whether ``address``, as ``socket_address.packed`` makes it, is in any network."""
        if not address:
            return False
        firsts, lasts = self._ranges[len(address)]
        index = bisect_right(firsts, address)
        return index > 0 and address <= lasts[index - 1]


def _without_mapping(network: Network) -> Network:
    """A network of IPv4-mapped addresses as the IPv4 network that it stands for."""
    whole = network.network_address.packed
    if network.prefixlen < _MAPPED_PREFIX or not whole.startswith(MAPPED_BYTES):
        return network
    return ipaddress.IPv4Network((whole[12:], network.prefixlen - _MAPPED_PREFIX))


def _to_ranges(networks: Iterable[Network]) -> tuple[list[bytes], list[bytes]]:
    """The first and the last address of each range."""
    whole = list(ipaddress.collapse_addresses(networks))  # type: ignore[type-var]
    return (
        [network.network_address.packed for network in whole],
        [network.broadcast_address.packed for network in whole],
    )
