"""Addresses of sockets as Python spells them, and as log lines, users and networks spell them.

A TCP address is a tuple that begins with host and port. A UNIX address is a path as text, empty
for a socket without a name, or bytes that begin with a zero byte for an abstract name (unix(7)).
A path in bytes is one of another host, which nothing here stands for.
"""

from __future__ import annotations

import ipaddress

SocketAddress = tuple[str, int] | str | bytes

MAPPED = "::ffff:"
"""How IPv4 addresses begin on sockets for both families (RFC 4291, section 2.5.5.2)."""

MAPPED_BYTES = bytes(10) + b"\xff\xff"


def address_text(address: SocketAddress | None) -> str:
    """The address as the log and the tables show it; "" if it is not known.

    An IPv4 client of a listener for both families is written as IPv4. What is no UTF-8 in a UNIX
    address becomes U+FFFD: the text goes into JSON, which has no surrogates.
    """
    if address is None:
        return ""
    if isinstance(address, bytes):
        # One that is not absolute could be taken for a process of this host: pid=1,uid=0.
        start = "" if address[:1] in (b"", b"\0", b"/") else "./"
        return f"unix:{start}" + address.decode("utf-8", "replace").replace("\0", "@", 1)
    if isinstance(address, str):
        return "unix:" + address.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    host, port = host_of(address), address[1]
    if not host:  # the peer left before anybody asked for its address
        return ""
    return join_host_port(host, port)


def join_host_port(host: str, port: int) -> str:
    """``host:port``; a literal IPv6 address stands in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def host_of(address: SocketAddress | None) -> str:
    """The IP address without the port, IPv4 as IPv4; "" for what has none."""
    if not isinstance(address, tuple):
        return ""
    host = address[0]
    return host.removeprefix(MAPPED) if "." in host else host


def packed(host: str) -> bytes:
    """The four or sixteen bytes of a literal IP; none for what is no IP address.

    An IPv4-mapped IPv6 address becomes the IPv4 address that it stands for.
    """
    try:
        if ":" not in host:  # a tenth of the time that ipaddress takes
            whole = bytes(map(int, host.split(".")))
            return whole if len(whole) == 4 else b""
        whole = ipaddress.IPv6Address(host).packed
    except ValueError:
        return b""
    return whole.removeprefix(MAPPED_BYTES)
