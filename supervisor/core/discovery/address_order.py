"""Which family of addresses comes first where a name has both (RFC 6724).

Of the rules for destination addresses two are applied: avoid what this host has no route to (rule
1), then prefer the higher precedence of the default policy table (rule 6). Within a family nothing
is reordered, because sessions are spread over all of its addresses anyway.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable

POLICY_TABLE = tuple(
    (ipaddress.ip_network(network), precedence)
    for network, precedence in (
        ("::1/128", 50),
        ("2002::/16", 30),
        ("2001::/32", 5),
        ("fc00::/7", 3),
        ("fec0::/10", 1),
        ("3ffe::/16", 1),
        ("::/96", 1),
    )
)
"""RFC 6724, 2.1, the longer prefixes; the two that remain are below."""

IPV6, IPV4 = 40, 35
"""The precedence of ::/0 and of ::ffff:0:0/96."""


def order_families(addresses: Iterable[str], has_route: Callable[[str], bool]) -> tuple[str, ...]:
    """The same literal addresses, those of the preferred family first.

    ``has_route`` is asked only if there are both families.
    """
    given = tuple(addresses)
    if len({":" in each for each in given}) < 2:
        return given
    usable = {each: has_route(each) for each in given}
    best = max(given, key=lambda each: (usable[each], _precedence(each)))
    return tuple(sorted(given, key=lambda each: (":" in each) != (":" in best)))


def _precedence(address: str) -> int:
    ip = ipaddress.ip_address(address)
    if ip.version == 4:
        return IPV4
    return next((value for network, value in POLICY_TABLE if ip in network), IPV6)
