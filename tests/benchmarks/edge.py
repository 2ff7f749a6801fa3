"""``python -m tests.benchmarks.edge``: what a client costs at the edge, as docs/edge.md says.

The least of many repetitions: a busy machine makes single ones longer, and none shorter.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

from gateway.core.client_rules import ClientRules
from gateway.core.proxy_protocol import Header, Route, Version, read_header, write_header

REPETITIONS = 3_000
ROUTE = Route(("192.0.2.7", 51234), ("198.51.100.9", 2379))
CLIENTS = {"IPv4": ("198.51.100.77", 4711), "IPv6": ("2001:db8:ffff::77", 4711)}


def least_us(function: Callable[[], object]) -> float:
    """The shortest of many calls."""
    spent = []
    for _ in range(REPETITIONS):
        begin = time.perf_counter_ns()
        function()
        spent.append(time.perf_counter_ns() - begin)
    return min(spent) / 1000


def networks(count: int) -> list[str]:
    """So many of both families, none of which has the clients."""
    either = (f"10.{n // 256}.{n % 256}.0/24" for n in range((count + 1) // 2))
    other = (f"2001:db8:{n:x}::/48" for n in range(count // 2))
    return [*either, *other]


def main() -> None:
    for count in (1, 1_000):
        rules = ClientRules(networks(count))
        for family, client in CLIENTS.items():
            took = least_us(lambda rules=rules, client=client: rules.admits_client(client))  # type: ignore[misc]
            print(f"an {family} client, {count:,} networks: {took:.2f} us")
    for version in Version:
        data = write_header(version, ROUTE)
        assert isinstance(read_header(data), Header)
        read = least_us(lambda data=data: read_header(data))  # type: ignore[misc]
        write = least_us(lambda version=version: write_header(version, ROUTE))  # type: ignore[misc]
        print(f"a header of {version.value}: {read:.1f} us to read, {write:.1f} us to write")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.edge", description=__doc__)
    parser.parse_args()
    main()
