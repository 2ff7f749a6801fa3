"""What the kernel says of an address: whether it is ours, and whether it can be reached."""

from __future__ import annotations

import ipaddress
import os
import socket

from gateway.core.address import literal_ip
from gateway.core.unix_address import socket_name

ANY_PORT = 9
"""Of the connected datagram socket, on which nothing is ever sent (RFC 863: discard)."""


def is_local(address: str) -> bool:
    """Whether a literal IP is one of this host's own.

    The kernel chooses the source address for the route: for an address of this host it is the very
    same address, and for all of 127.0.0.0/8 it is one of loopback. No netlink socket is needed.
    """
    if ipaddress.ip_address(address).is_loopback or ipaddress.ip_address(address).is_unspecified:
        return True
    source = _source_for(address)
    return source is not None and literal_ip(source) == literal_ip(address)


def has_route(address: str) -> bool:
    """Whether this host has a route to a literal IP, and an address to use it from."""
    return _source_for(address) is not None


def is_same_socket(one: str, other: str) -> bool:
    """Whether two UNIX addresses lead to the same socket, by whatever links.

    The file need not be there yet: the gateway makes that of a listen address later.
    """
    a, b = socket_name(one), socket_name(other)
    if a == b or "\0" in a + b:
        return a == b
    if os.path.realpath(a) == os.path.realpath(b):
        return True
    try:
        return os.path.samefile(a, b)
    except OSError:
        return False


def _source_for(address: str) -> str | None:
    """The address from which the kernel would send to this one; None if it would not."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.connect((address, ANY_PORT))
            source: str = sock.getsockname()[0]
            return source
    except OSError:
        return None
