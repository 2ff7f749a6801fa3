"""What makes the hosts of a fleet differ: a number of the host, and an order made from it.

A thousand gateways in front of one cluster sort its endpoints alike. If all began with the same
one, it would get the first session of every host; and if all had the same order, the next one
would get every session of an endpoint that died.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable

_MASK = (1 << 64) - 1


def order(names: Iterable[str], seed: int) -> list[str]:
    """The names in this host's order, which a name that comes or goes does not disturb.

    Seed 0 keeps the order as it is.
    """
    if not seed:
        return list(names)
    return sorted(names, key=lambda name: (_mix(seed ^ zlib.crc32(name.encode()) << 32), name))


def start(seed: int) -> float:
    """Where this host starts on the line of all weights, from 0 to 1; 0 for seed 0."""
    return _mix(seed) / (1 << 64)


def _mix(value: int) -> int:
    """The finalizer of splitmix64: similar numbers become unrelated ones; 0 stays 0.

    A checksum alone would not do: it keeps the differences between names for every seed.
    """
    value &= _MASK
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    value = (value ^ value >> 27) * 0x94D049BB133111EB & _MASK
    return value ^ value >> 31
