"""The loop guard: never dial ourselves."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from gateway.core.address import Address, HostPort
from gateway.core.unix_address import UnixAddress
from supervisor.core.discovery.endpoints import Discovered
from supervisor.core.discovery.loop_guard import own_listen_address, without_own
from supervisor.discovery.local_addresses import is_local, is_same_socket

LOCAL = {"10.0.0.1", "127.0.0.1", "127.0.0.2", "::1", "0.0.0.0", "::", "fd00::1"}


@pytest.mark.parametrize(
    ("listen", "address", "port", "own"),
    [
        ("127.0.0.1", "127.0.0.1", 23790, True),
        ("127.0.0.1", "127.0.0.1", 2379, False),
        ("127.0.0.1", "127.0.0.2", 23790, False),
        ("127.0.0.1", "10.0.0.1", 23790, False),
        ("127.0.0.1", "0.0.0.0", 23790, True),
        ("10.9.9.9", "0.0.0.0", 23790, False),
        ("", "10.0.0.1", 23790, True),
        ("", "127.0.0.2", 23790, True),
        ("", "fd00::1", 23790, True),
        ("", "10.0.0.2", 23790, False),
        ("", "10.0.0.1", 2379, False),
        ("0.0.0.0", "10.0.0.1", 23790, True),
        ("0.0.0.0", "::1", 23790, False),
        ("0.0.0.0", "::", 23790, False),
        ("::", "::1", 23790, True),
        ("::", "127.0.0.1", 23790, False),
        ("::", "0.0.0.0", 23790, False),
        ("::ffff:127.0.0.1", "127.0.0.1", 23790, True),
    ],
)
def test_own_addresses_are_recognised(listen: str, address: str, port: int, own: bool) -> None:
    """Wildcard listen addresses count for every local address, others for themselves."""
    hit = own_listen_address(address, port, [HostPort(listen, 23790)], LOCAL.__contains__)
    assert (hit is not None) == own


def test_only_the_looping_address_is_left_out() -> None:
    """An endpoint keeps its other addresses; without any left it goes."""
    listen = [HostPort("127.0.0.1", 1)]
    both = Discovered("a:1", "a", 1, ("127.0.0.1", "10.0.0.9"))
    kept, hit = without_own(both, listen, LOCAL.__contains__, is_same_socket)
    assert kept is not None
    assert kept.addresses == ("10.0.0.9",)
    assert hit == listen[0]
    alone = Discovered("a:1", "a", 1, ("127.0.0.1",))
    assert without_own(alone, listen, LOCAL.__contains__, is_same_socket) == (None, listen[0])
    other = Discovered("a:2", "a", 2, ("127.0.0.1",))
    assert without_own(other, listen, LOCAL.__contains__, is_same_socket) == (other, None)


def test_this_host_knows_its_own_addresses() -> None:
    """Loopback and the unspecified address are local; documentation networks are not."""
    assert all(map(is_local, ["127.0.0.1", "127.9.9.9", "::1", "0.0.0.0", "::"]))
    assert not any(map(is_local, ["198.51.100.7", "2001:db8::7"]))


def test_a_unix_endpoint_may_be_our_own() -> None:
    """By the same name, or by another one that leads to the same socket; ports do not count."""
    listen: list[Address] = [HostPort("127.0.0.1", 1), UnixAddress("/run/gw", 0o600)]
    own = Discovered("unix:/run/gw", "unix:/run/gw", 0, ("unix:/run/gw",))
    same = {("unix:/run/gw", "unix:/run/gw"), ("unix:/link", "unix:/run/gw")}
    assert without_own(own, listen, LOCAL.__contains__, lambda *pair: pair in same) == (
        None,
        listen[1],
    )
    link = Discovered("unix:/link", "unix:/link", 0, ("unix:/link",))
    assert without_own(link, listen, LOCAL.__contains__, lambda *pair: pair in same)[0] is None
    other = Discovered("unix:/run/etcd", "unix:/run/etcd", 0, ("unix:/run/etcd",))
    assert without_own(other, listen, LOCAL.__contains__, lambda *pair: pair in same) == (
        other,
        None,
    )


def test_names_of_the_same_unix_socket(tmp_path: Path) -> None:
    """Links lead to it before it is there, hard links and mounts after."""
    (tmp_path / "link").symlink_to(tmp_path)
    one, other = f"unix:{tmp_path}/s", f"unix:{tmp_path}/link/s"
    assert is_same_socket(one, other)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "s"))
        assert is_same_socket(one, other)
        (tmp_path / "hard").hardlink_to(tmp_path / "s")
        assert is_same_socket(one, f"unix:{tmp_path}/hard")
        assert not is_same_socket(one, f"unix:{tmp_path}/t")
    assert is_same_socket("unix:@a", "unix:@a")
    assert not is_same_socket("unix:@a", "unix:@b")
    assert not is_same_socket("unix:@a", one)
