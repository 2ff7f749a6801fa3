"""Addresses of sockets, as the log and networks spell them."""

from __future__ import annotations

import socket

import pytest

from gateway.core import json_codec
from gateway.core.socket_address import SocketAddress, address_text, host_of, packed


@pytest.mark.parametrize(
    ("address", "text", "host"),
    [
        (("10.0.0.1", 80), "10.0.0.1:80", "10.0.0.1"),
        (("::ffff:10.0.0.1", 80, 0, 0), "10.0.0.1:80", "10.0.0.1"),
        (("fd00::1", 80, 0, 0), "[fd00::1]:80", "fd00::1"),
        (("::ffff:0:1", 80), "[::ffff:0:1]:80", "::ffff:0:1"),
        (("", 0), "", ""),
        ("/run/app.sock", "unix:/run/app.sock", ""),
        ("", "unix:", ""),
        (b"\0app", "unix:@app", ""),
        # Only the file system knows what these bytes mean; JSON has no word for them.
        ("/run/a\udcff.sock", "unix:/run/a\ufffd.sock", ""),
        (b"\0a\xff", "unix:@a\ufffd", ""),
        # Of another host, and of a process of this one:
        (b"/run/a\xff.sock", "unix:/run/a\ufffd.sock", ""),
        (b"pid=1,uid=0", "unix:./pid=1,uid=0", ""),
        (b"@app", "unix:./@app", ""),
        (b"", "unix:", ""),
        ("pid=1,uid=0", "unix:pid=1,uid=0", ""),
        (None, "", ""),
    ],
)
def test_texts(address: SocketAddress | None, text: str, host: str) -> None:
    """Each kind of address has one spelling, and IPv4 is written as IPv4."""
    assert address_text(address) == text
    assert json_codec.loads(json_codec.dumps(text)) == text
    assert host_of(address) == host


@pytest.mark.parametrize("host", ["0.0.0.0", "10.1.2.3", "255.255.255.255"])
def test_packed_ipv4(host: str) -> None:
    """IPv4 is four bytes, also where a socket for both families maps it."""
    assert packed(host) == packed(f"::ffff:{host}") == socket.inet_pton(socket.AF_INET, host)


@pytest.mark.parametrize("host", ["::", "fd00::1", "::1.2.3.4"])
def test_packed_ipv6(host: str) -> None:
    """IPv6 is sixteen bytes."""
    assert packed(host) == socket.inet_pton(socket.AF_INET6, host)


@pytest.mark.parametrize("host", ["", "10.1.2", "10.1.2.3.4", "10.1.2.256", "name", "fd00::1::"])
def test_packed_nothing(host: str) -> None:
    """What is no IP address has no bytes."""
    assert packed(host) == b""
