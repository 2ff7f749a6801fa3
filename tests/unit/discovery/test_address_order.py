"""Which family of addresses comes first."""

from __future__ import annotations

import pytest

from supervisor.core.discovery.address_order import order_families
from supervisor.discovery.local_addresses import has_route


@pytest.mark.parametrize(
    ("addresses", "without_route", "expected"),
    [
        (("10.0.0.1", "10.0.0.2"), (), ("10.0.0.1", "10.0.0.2")),
        (("10.0.0.1", "2a00::1"), (), ("2a00::1", "10.0.0.1")),
        (("10.0.0.1", "2a00::1"), ("2a00::1",), ("10.0.0.1", "2a00::1")),
        (("10.0.0.1", "2a00::1"), ("10.0.0.1", "2a00::1"), ("2a00::1", "10.0.0.1")),
        (("10.0.0.1", "fd00::1"), (), ("10.0.0.1", "fd00::1")),
        (("10.0.0.1", "fd00::1"), ("10.0.0.1",), ("fd00::1", "10.0.0.1")),
        (("127.0.0.1", "::1"), (), ("::1", "127.0.0.1")),
        (("10.0.0.1", "10.0.0.2", "fd00::1", "2a00::1"), ("10.0.0.1",),
         ("fd00::1", "2a00::1", "10.0.0.1", "10.0.0.2")),
    ],
)  # fmt: skip
def test_the_family_with_the_best_address_comes_first(
    addresses: tuple[str, ...], without_route: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    """What can be reached first, then IPv6 before IPv4 but for local and transition addresses."""
    assert order_families(addresses, lambda each: each not in without_route) == expected


def test_routes() -> None:
    """The kernel says whether it has one, and nothing is sent."""
    assert has_route("127.0.0.1")
    assert not has_route("2001:db8::1%no-such-if")
