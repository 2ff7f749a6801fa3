"""Which names the admin address may be asked under.

A web page whose name an attacker points at a loopback or private address (DNS rebinding) makes
the browser of somebody inside ask that address, and may read the answer, because for the browser
the page and the answer have the same name. The browser sends that name in the Host header. So the
admin address answers only under names that no attacker can own: IP addresses, ``localhost``, and
the names that the operator gives with ``--admin-host``.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection

LOCALHOST = "localhost"

_AUTHORITY = re.compile(r"(?:\[(?P<v6>[^\[\]]*)\]|(?P<name>[^:\[\]]*))(?::[0-9]*)?")
"""``host[:port]`` with an IPv6 address in brackets (RFC 3986, section 3.2.2)."""


def is_known_host(authority: str, names: Collection[str]) -> bool:
    """Whether ``authority``, as in a Host header, is an IP address, localhost or one of ``names``.

    The port does not count, nor does the case of the letters or a dot at the end. ``names`` are
    in lower case and without that dot.
    """
    match = _AUTHORITY.fullmatch(authority)
    if match is None:
        return False
    if (literal := match["v6"]) is not None:
        return _is_address(literal.partition("%")[0], ipaddress.IPv6Address)
    host = match["name"].lower().removesuffix(".")
    return host == LOCALHOST or host in names or _is_address(host, ipaddress.IPv4Address)


def _is_address(text: str, kind: type[ipaddress.IPv4Address | ipaddress.IPv6Address]) -> bool:
    try:
        kind(text)
    except ValueError:
        return False
    return True
