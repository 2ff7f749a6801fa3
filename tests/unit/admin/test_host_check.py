"""The names under which the admin address answers."""

from __future__ import annotations

import pytest

from supervisor.core.admin.host_check import is_known_host

NAMES = frozenset({"gw1.example.com", "gw1"})


@pytest.mark.parametrize(
    "authority",
    [
        "127.0.0.1",
        "127.0.0.1:9379",
        "10.1.2.3:80",
        "[::1]",
        "[::1]:9379",
        "[fe80::1%25eth0]:9379",
        "[::ffff:127.0.0.1]",
        "localhost",
        "LocalHost:9379",
        "localhost.",
        "gw1.example.com",
        "GW1.Example.COM.:9379",
        "gw1:",
    ],
)
def test_addresses_localhost_and_given_names_are_known(authority: str) -> None:
    """With and without a port, in any case, with a dot at the end."""
    assert is_known_host(authority, NAMES)


@pytest.mark.parametrize(
    "authority",
    [
        "",
        "evil.example",
        "evil.example:9379",
        "localhost.evil.example",
        "evil.localhost",
        "127.0.0.1.evil.example",
        "gw1.example.com.evil.example",
        "gw2",
        "::1",
        "[127.0.0.1]",
        "[::1",
        "[::1]evil.example",
        "127.0.0.1:80:80",
        "user@127.0.0.1",
        "127.1",
        "localhost:http",
        "localhost..",
        "127.0.0.1, evil.example",
    ],
)
def test_every_other_name_is_foreign(authority: str) -> None:
    """Also what only begins or ends like a known one, and what is no host at all."""
    assert not is_known_host(authority, NAMES)


def test_without_names_only_addresses_and_localhost_are_known() -> None:
    """The default."""
    assert is_known_host("[::1]:1", ())
    assert not is_known_host("gw1", ())
