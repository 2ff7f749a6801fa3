"""What an errno of a dial says."""

from __future__ import annotations

import errno
import socket

import pytest

from gateway.core.counters import DialResult
from gateway.core.outcome import LOCAL, answer_of, result_of


@pytest.mark.parametrize(
    ("code", "result"),
    [
        (errno.ECONNREFUSED, DialResult.REFUSED),
        (errno.ETIMEDOUT, DialResult.TIMEOUT),
        (errno.EHOSTUNREACH, DialResult.UNREACHABLE),
        (errno.ECONNRESET, DialResult.RESET),
        (errno.EISCONN, DialResult.ERROR),
    ],
)
def test_the_endpoints_fault(code: int, result: DialResult) -> None:
    """An errno that the far side caused is counted as what it was."""
    assert result_of(code) is result
    assert answer_of(code) == code


@pytest.mark.parametrize("code", sorted(LOCAL))
def test_our_own_fault(code: int) -> None:
    """What our own host lacks or forbids is never evidence against an endpoint."""
    assert result_of(code) is DialResult.LOCAL


def test_a_loopback_address_reaches_no_other_host() -> None:
    """Who dials from 127.0.0.1 by --source-addr is told "invalid argument" by our own kernel."""
    with socket.socket() as sock:
        sock.setblocking(False)
        sock.bind(("127.0.0.1", 0))
        code = sock.connect_ex(("192.0.2.1", 1))
    assert result_of(code) is DialResult.LOCAL


def test_a_router_said_unreachable() -> None:
    """The same errno after the connect was under way came from the network."""
    assert result_of(answer_of(errno.ENETUNREACH)) is DialResult.UNREACHABLE
    assert result_of(answer_of(errno.EMFILE)) is DialResult.LOCAL


def test_a_firewall_said_that_it_is_prohibited() -> None:
    """What ICMPv6 calls prohibited is no "permission denied" of our own host's."""
    assert result_of(answer_of(errno.EACCES)) is DialResult.UNREACHABLE
