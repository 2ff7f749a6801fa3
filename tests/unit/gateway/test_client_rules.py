"""Who may come, and who has to send a header."""

from __future__ import annotations

import pytest

from gateway.core.client_rules import ClientRules
from gateway.core.socket_address import SocketAddress

RULES = ClientRules(["10.0.0.0/8", "fd00::/8"], ["192.0.2.1", "unix"])


@pytest.mark.parametrize(
    ("peer", "header", "peer_may", "client_may"),
    [
        (("10.1.2.3", 5), False, True, True),
        (("::ffff:10.1.2.3", 5, 0, 0), False, True, True),
        (("fd00::1", 5, 0, 0), False, True, True),
        (("11.0.0.1", 5), False, False, False),
        (("2001:db8::1", 5, 0, 0), False, False, False),
        (("192.0.2.1", 5), True, True, False),
        (("192.0.2.2", 5), False, False, False),
        (("", 0), False, False, False),
        ("", True, True, True),
        ("/run/client", True, True, True),
        (b"\0client", True, True, True),
    ],
)
def test_peers(peer: SocketAddress, header: bool, peer_may: bool, client_may: bool) -> None:
    """A peer that sends headers may come for that; UNIX clients may always come."""
    assert RULES.sends_header(peer) is header
    assert RULES.admits_peer(peer) is peer_may
    assert RULES.admits_client(peer) is client_may


def test_without_rules_everybody_may_come() -> None:
    """No --allow is everybody, and no --proxy-in is nobody with a header."""
    rules = ClientRules()
    assert rules.everybody
    for peer in (("203.0.113.1", 1), ("::1", 1), ""):
        assert rules.admits_peer(peer)
        assert not rules.sends_header(peer)


def test_unix_peers_send_headers_only_where_they_are_named() -> None:
    """Networks do not concern UNIX sockets."""
    assert not ClientRules((), ["0.0.0.0/0", "::/0"]).sends_header("")
