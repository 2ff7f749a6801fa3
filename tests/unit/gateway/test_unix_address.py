"""UNIX addresses are read as operators write them, options and commas included."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.address import HostPort, parse_endpoint, parse_listen, tcp_only
from gateway.core.unix_address import (
    MAX_UNIX_PATH,
    UnixAddress,
    is_unix,
    join_options,
    socket_name,
)


def test_an_endpoint_is_a_path_or_an_abstract_name() -> None:
    """Both are endpoints, and neither is said to speak TLS."""
    assert parse_endpoint("unix:/run/a.sock") == (UnixAddress("/run/a.sock"), False)
    assert parse_endpoint("unix:@name") == (UnixAddress("@name"), False)


def test_a_host_may_be_called_unix() -> None:
    """A port behind the colon makes it a host."""
    assert parse_endpoint("unix:2379") == (HostPort("unix", 2379), False)
    assert parse_listen("unix:2379") == HostPort("unix", 2379)
    assert not is_unix("unix:2379")


@pytest.mark.parametrize(
    ("text", "mode", "group"),
    [
        ("unix:/a", 0o660, ""),
        ("unix:/a,mode=0600", 0o600, ""),
        ("unix:/a,mode=666", 0o666, ""),
        ("unix:/a,group=adm", 0o660, "adm"),
        ("unix:/a,group=27,mode=0000", 0, "27"),
        ("unix:/a,mode=0660,group=my-group.1", 0o660, "my-group.1"),
    ],
)
def test_a_listen_address_has_options(text: str, mode: int, group: str) -> None:
    """The mode is octal; its default lets the user and the group connect."""
    address = parse_listen(text)
    assert address == UnixAddress("/a", mode, group)
    assert str(address) == "unix:/a"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("unix:", "expected unix: and the absolute path"),
        ("unix:a", "expected unix: and the absolute path"),
        ("unix:./a", "expected unix: and the absolute path"),
        ("unix:/", "expected unix: and the absolute path"),
        ("unix:/a/", "expected unix: and the absolute path"),
        ("unix:@", "expected unix: and the absolute path"),
        ("unix:///a", r"unix:// is not supported, .* did you mean unix:/a\?"),
        ("unix:/a b", "without blanks"),
        ("unix:/a\tb", "without blanks"),
        ("unix:/a\0b", "without blanks"),
        ("unix:/a\udce4", "without blanks"),
        ("unix:/" + "a" * MAX_UNIX_PATH, "at most 107 bytes"),
        ("unix:/" + "ä" * 54, "at most 107 bytes"),
        ("unix:@" + "a" * MAX_UNIX_PATH, "at most 107 bytes"),
    ],
)
def test_what_is_no_unix_address(text: str, reason: str) -> None:
    """Everything else is refused with what was expected, as endpoint and as listen address."""
    with pytest.raises(ValueError, match=reason):
        parse_endpoint(text)
    with pytest.raises(ValueError, match=reason):
        parse_listen(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("unix:/a,mode=", "three octal digits"),
        ("unix:/a,mode=rw", "three octal digits"),
        ("unix:/a,mode=0o660", "three octal digits"),
        ("unix:/a,mode=1660", "three octal digits"),
        ("unix:/a,mode=688", "three octal digits"),
        ("unix:/a,mode=0600,mode=0660", "mode= is given twice"),
        ("unix:/a,group=", "the name or the number of a group"),
        ("unix:/a,user=etcd", "unknown option user=, expected mode= or group="),
        ("unix:@a,mode=0660", "an abstract name has no file"),
        ("mode=0660", "right behind its address, as unix:/path,mode=0660"),
    ],
)
def test_what_is_no_option(text: str, reason: str) -> None:
    """An option that is not understood is refused, not left out."""
    with pytest.raises(ValueError, match=reason):
        parse_listen(text)


def test_the_longest_path() -> None:
    """A path of 107 bytes is one."""
    longest = "/" + "a" * (MAX_UNIX_PATH - 1)
    assert parse_endpoint(f"unix:{longest}") == (UnixAddress(longest), False)


@pytest.mark.parametrize(
    ("items", "joined"),
    [
        ([], []),
        (["127.0.0.1:1"], ["127.0.0.1:1"]),
        (["unix:/a", "mode=0660", "127.0.0.1:1"], ["unix:/a,mode=0660", "127.0.0.1:1"]),
        (["127.0.0.1:1", "mode=0660"], ["127.0.0.1:1", "mode=0660"]),
        (["unix:/a", "group=g", "mode=1", "unix:/b"], ["unix:/a,group=g,mode=1", "unix:/b"]),
        (["mode=0660", "unix:/a"], ["mode=0660", "unix:/a"]),
        (["unix:/a", "unix:/b", "x=1"], ["unix:/a", "unix:/b,x=1"]),
    ],
)
def test_options_belong_to_the_address_before_them(items: list[str], joined: list[str]) -> None:
    """Commas separate addresses and options; an option goes with a UNIX address only."""
    assert list(join_options(items)) == joined


def test_names_for_the_kernel() -> None:
    """An abstract name begins with a zero byte."""
    assert socket_name("unix:/a") == "/a"
    assert socket_name("unix:@a") == "\0a"
    assert UnixAddress("@a").abstract
    assert not UnixAddress("/a").abstract


def test_addresses_of_hosts_among_others() -> None:
    """Those with a port are told from UNIX sockets."""
    host = HostPort("127.0.0.1", 1)
    assert tcp_only([UnixAddress("/a"), host]) == (host,)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_what_is_taken_reads_back_as_itself(path: str) -> None:
    """No text raises anything but ValueError."""
    try:
        address = parse_listen(f"unix:{path}")
    except ValueError:
        return
    assert parse_listen(str(address)) == (
        UnixAddress(address.path) if isinstance(address, UnixAddress) else address
    )
