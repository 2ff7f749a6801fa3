"""Addresses are read as operators write them, and every refusal says what was expected."""

from __future__ import annotations

import ipaddress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.address import (
    HostPort,
    parse_admin,
    parse_endpoint,
    parse_listen,
    parse_name,
    parse_nameserver,
)


@pytest.mark.parametrize(
    ("text", "host", "port", "tls"),
    [
        ("10.0.0.1:2379", "10.0.0.1", 2379, False),
        ("infra0.example.com:2379", "infra0.example.com", 2379, False),
        ("INFRA0.Example.com.:2379", "infra0.example.com", 2379, False),
        ("_host_1:1", "_host_1", 1, False),
        ("[2001:DB8::0:1]:65535", "2001:db8::1", 65535, False),
        ("[::ffff:10.0.0.1]:80", "10.0.0.1", 80, False),
        ("http://a:1", "a", 1, False),
        ("http://a:1/", "a", 1, False),
        ("HTTPS://a:1", "a", 1, True),
        ("https://[::1]:1", "::1", 1, True),
        ("a:00080", "a", 80, False),
    ],
)
def test_endpoints(text: str, host: str, port: int, tls: bool) -> None:
    """Host and port are split, spelled one way; https and a trailing dot are remembered."""
    absolute = host + ".:" in text.lower()
    assert parse_endpoint(text) == (HostPort(host, port, absolute), tls)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "port is missing"),
        ("a", "port is missing"),
        ("http://", "port is missing"),
        ("https://a", "port is missing"),
        ("[::1]", "port is missing"),
        ("a:", "from 1 to 65535"),
        ("a:http", "from 1 to 65535"),
        ("a:0", "from 1 to 65535"),
        ("a:65536", "from 1 to 65535"),
        ("a:-1", "from 1 to 65535"),
        ("a:+1", "from 1 to 65535"),
        ("a:1 ", "from 1 to 65535"),
        ("a:١", "from 1 to 65535"),
        ("a:1/", r"a path has no meaning here, .* did you mean a:1\?"),
        ("http://a:1/health", r"a path has no meaning here, .* did you mean http://a:1\?"),
        (":1", "host is missing"),
        ("unix:///run/etcd.sock:1", "unix:// is not supported"),
        ("ftp://a:1", "ftp:// is not supported"),
        ("::1:2379", "needs brackets"),
        ("a:b:1", "expected host:port, with one port"),
        ("h:1:1", r"with one port, did you mean h:1\?"),
        ("fd00::1:1", r"needs brackets, .* did you mean \[fd00::1\]:1\?"),
        ("2379", r"the host is missing, .* did you mean 127.0.0.1:2379\?"),
        ("[::1:2379", "between the brackets"),
        ("[a]:1", "between the brackets"),
        ("[]:1", "between the brackets"),
        ("[::g]:1", "not an IPv6 address"),
        ("[::1]1", "after the bracket"),
        ("[fe80::1%eth0]:1", "scope id"),
        ("10.0.0.256:1", "IPv4 address"),
        ("10.1:1", "IPv4 address"),
        ("127.1:1", "IPv4 address"),
        ("é:1", "ASCII"),
        ("a b:1", "letters, digits"),
        ("a..b:1", "letters, digits"),
        ("-a:1", "letters, digits"),
        ("user@a:1", "letters, digits"),
        ("a\n:1", "letters, digits"),
        (".:1", "1 to 253"),
        ("a" * 64 + ":1", "letters, digits"),
        ("a." * 127 + "a:1", "1 to 253"),
    ],
)
def test_what_is_no_endpoint(text: str, reason: str) -> None:
    """Everything else is refused with what was expected."""
    with pytest.raises(ValueError, match=reason):
        parse_endpoint(text)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        (":23790", "", 23790),
        ("0.0.0.0:1", "0.0.0.0", 1),
        ("[::]:1", "::", 1),
        ("localhost:1", "localhost", 1),
    ],
)
def test_listen_addresses(text: str, host: str, port: int) -> None:
    """An empty host is all interfaces."""
    assert parse_listen(text) == HostPort(host, port)


@pytest.mark.parametrize("text", ["224.0.0.1:1", "239.1.2.3:1", "255.255.255.255:1", "[ff02::1]:1"])
def test_a_listen_address_is_one_of_a_host(text: str) -> None:
    """The kernel listens at a group's address too, and no client ever reaches it."""
    for parse in (parse_listen, parse_admin):
        with pytest.raises(ValueError, match="expected an address of this host"):
            parse(text)


def test_listen_address_with_a_scheme() -> None:
    """A listen address has no scheme."""
    with pytest.raises(ValueError, match="without a scheme"):
        parse_listen("http://127.0.0.1:1")


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("10.0.0.53", "10.0.0.53", 53),
        ("10.0.0.53:5353", "10.0.0.53", 5353),
        ("2001:db8::53", "2001:db8::53", 53),
        ("[2001:db8::53]", "2001:db8::53", 53),
        ("[2001:db8::53]:5353", "2001:db8::53", 5353),
    ],
)
def test_nameservers(text: str, host: str, port: int) -> None:
    """A name server is a literal IP; the port is 53 unless given."""
    assert parse_nameserver(text) == HostPort(host, port)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "dns.example.com",
        "dns:53",
        "[10.0.0.1]:53",
        "[::1",
        "[::1]x",
        "::g",
        "fe80::1%eth0",
        "::1:",
    ],
)
def test_what_is_no_nameserver(text: str) -> None:
    """Names, open brackets and scope ids are refused."""
    with pytest.raises(ValueError, match="expected an IP address"):
        parse_nameserver(text)


@pytest.mark.parametrize("text", ["10.0.0.1:0", "10.0.0.1:", "[::1]:", "[::1]:x"])
def test_nameserver_with_a_bad_port(text: str) -> None:
    """A port that is none is refused."""
    with pytest.raises(ValueError, match="from 1 to 65535"):
        parse_nameserver(text)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("127.0.0.1:2381", "127.0.0.1:2381"),
        (":2381", ":2381"),
        ("[::0]:2381", "[::]:2381"),
        ("unix:/run/gateway.sock", "unix:/run/gateway.sock"),
        ("unix:///run/gateway.sock", "unix:/run/gateway.sock"),
    ],
)
def test_admin_addresses(text: str, normal: str) -> None:
    """An admin address is TCP or a UNIX socket, in one spelling."""
    assert parse_admin(text) == normal


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("unix:", "absolute path"),
        ("unix:run.sock", "absolute path"),
        ("unix:/", "absolute path"),
        ("unix:/run/", "absolute path"),
        ("unix:/a\0b", "printable"),
        ("unix:/a\nb", "printable"),
        ("unix:/a\x1b[2Jb", "printable"),
        ("unix:/a\udcffb", "printable"),
        ("unix:/" + "a" * 107, "at most 107"),
        ("/run/gateway.sock", r"did you mean unix:/run/gateway.sock\?"),
    ],
)
def test_what_is_no_admin_address(text: str, reason: str) -> None:
    """Relative and overlong paths are refused, and what would break a line or a terminal."""
    with pytest.raises(ValueError, match=reason):
        parse_admin(text)


@given(st.ip_addresses(), st.integers(1, 65535))
def test_literals_survive(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int
) -> None:
    """A literal that was written out is read back as itself."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    expected = HostPort(str(mapped or address), port)
    assert parse_endpoint(str(HostPort(str(address), port))) == (expected, False)


_LABELS = st.from_regex(r"[a-z]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)


@given(st.lists(_LABELS, min_size=1, max_size=5), st.integers(1, 65535))
def test_names_survive(labels: list[str], port: int) -> None:
    """A name is spelled in lower case, and a dot at its end makes it absolute, not another."""
    name = ".".join(labels)
    assert parse_endpoint(f"{name.upper()}:{port}") == (HostPort(name, port), False)
    absolute = parse_listen(f"{name.upper()}.:{port}")
    assert absolute == HostPort(name, port, absolute=True)
    assert str(absolute) == f"{name}:{port}"
    assert parse_name(name) == name


@given(st.text() | st.text("[]:.%/0123456789abf", max_size=24))
def test_any_text_is_an_address_or_a_value_error(text: str) -> None:
    """No text raises anything but ValueError, and what is taken reads back as the same."""
    try:
        address, _ = parse_endpoint(text)
    except ValueError:
        pass
    else:
        plain = replace(address, absolute=False) if isinstance(address, HostPort) else address
        assert parse_endpoint(str(address)) == (plain, False)
    for parse in (parse_listen, parse_nameserver, parse_admin):
        try:
            parsed = str(parse(text))
        except ValueError:
            pass
        else:
            assert str(parse(parsed)) == parsed
