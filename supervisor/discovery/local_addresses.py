"""Tells whether an address belongs to this host."""

from __future__ import annotations

import ipaddress
import socket

from gateway.core.address import literal_ip

ANY_PORT = 9
"""Of the connected datagram socket, on which nothing is ever sent (RFC 863: discard)."""


def is_local(address: str) -> bool:
    """Whether a literal IP is one of this host's own.

    A datagram socket is connected, and the kernel chooses the source address for that route: for
    an address of this host it is the very same address, and for all of 127.0.0.0/8 it is one of
    loopback. Nothing is sent, and no netlink socket is needed.
    """
    if ipaddress.ip_address(address).is_loopback or ipaddress.ip_address(address).is_unspecified:
        return True
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect((address, ANY_PORT))
        except OSError:
            return False
        return literal_ip(sock.getsockname()[0]) == literal_ip(address)
