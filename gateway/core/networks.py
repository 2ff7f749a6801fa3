"""A set of networks that tells of one address, in one lookup, whether it is in any of them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

from gateway.core.socket_address import packed

_MAPPED_PREFIX = 96
"""The length of ::ffff:0:0/96, in which IPv4 addresses are mapped."""

Range = tuple[bytes, bytes]
"""The first and the last address."""


class Networks:
    """The networks as ranges that do not overlap, in order; their number hardly matters.

    ``texts`` are networks in CIDR notation without host bits, or single addresses.
    """

    __slots__ = ("_ranges",)

    def __init__(self, texts: Iterable[str] = ()) -> None:
        by_size: dict[int, list[Range]] = {4: [], 16: []}
        for text in texts:
            first, last = _range_of(text)
            by_size[len(first)].append((first, last))
        self._ranges = {size: _merge(ranges) for size, ranges in by_size.items()}

    def __bool__(self) -> bool:
        return any(firsts for firsts, _ in self._ranges.values())

    def has(self, address: bytes) -> bool:
        """Whether ``address``, as ``socket_address.packed`` makes it, is in any network."""
        if not address:
            return False
        firsts, lasts = self._ranges[len(address)]
        index = bisect_right(firsts, address)
        return index > 0 and address <= lasts[index - 1]


def _range_of(text: str) -> Range:
    """A network of IPv4-mapped addresses is the IPv4 network that it stands for."""
    host, _, prefix = text.partition("/")
    first = packed(host)
    bits = len(first) * 8
    length = int(prefix or (128 if ":" in host else 32))
    if ":" in host and bits == 32:
        length -= _MAPPED_PREFIX
    last = int.from_bytes(first, "big") | (1 << bits - length) - 1
    return first, last.to_bytes(len(first), "big")


def _merge(ranges: Iterable[Range]) -> tuple[list[bytes], list[bytes]]:
    """The first addresses, and the last ones."""
    firsts: list[bytes] = []
    lasts: list[bytes] = []
    for first, last in sorted(ranges):
        if lasts and first <= lasts[-1]:  # of two networks one contains the other, or none does
            lasts[-1] = max(lasts[-1], last)
        else:
            firsts.append(first)
            lasts.append(last)
    return firsts, lasts
