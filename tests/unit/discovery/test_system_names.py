"""The hosts file and resolv.conf, read as the C library reads them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.core.discovery.system_names import (
    HostsTable,
    ResolvConf,
    names_to_try,
    parse_resolv_conf,
)


def test_an_empty_resolv_conf_means_the_local_nameserver() -> None:
    """Without a nameserver line the one on this host is asked."""
    assert parse_resolv_conf("") == ResolvConf(nameservers=("127.0.0.1",))


def test_resolv_conf() -> None:
    """Nameservers, search list and options are understood, the rest is passed over."""
    conf = parse_resolv_conf(
        "# comment\n; another\nnameserver 10.0.0.1\nnameserver fd00::53\nnameserver not-an-ip\n"
        "nameserver 10.0.0.2\nnameserver 10.0.0.3\ndomain old.test\nsearch A.test. b.test .\n"
        "options ndots:2 timeout:1 attempts:9 rotate edns0\noptions ndots:x timeout\nsortlist x\n"
    )
    assert conf == ResolvConf(
        nameservers=("10.0.0.1", "fd00::53", "10.0.0.2"),
        search=("a.test", "b.test"),
        ndots=2,
        timeout_s=1.0,
        attempts=5,
        rotate=True,
    )


@pytest.mark.parametrize(
    "line", ["nameserver 10.0.0.9", "search c.test", "domain c.test", "options rotate"]
)
@pytest.mark.parametrize("indent", [" ", "\t"])
def test_a_keyword_stands_at_the_beginning_of_its_line(line: str, indent: str) -> None:
    """An indented line is ignored, as in the C library."""
    text = "nameserver 10.0.0.1\nsearch a.test\n"
    assert parse_resolv_conf(f"{text}{indent}{line}\n") == parse_resolv_conf(text)
    assert parse_resolv_conf(f"{text}{line}\n") != parse_resolv_conf(text)


def test_a_search_list_without_a_name_is_none() -> None:
    """The one before counts, or the domain of the host."""
    conf = parse_resolv_conf("search a.test\nsearch\ndomain\n")
    assert conf.search == ("a.test",)
    assert parse_resolv_conf("search\n", domain="example.test").search == ("example.test",)


def test_options_that_change_how_is_asked() -> None:
    """use-vc, no-aaaa and single-request are understood; the variables of the C library count."""
    conf = parse_resolv_conf(
        "search file.test\noptions use-vc no-aaaa single-request-reopen trust-ad\n",
        domain="host.test",
        local_domain="A.test. b.test",
        extra_options="ndots:3 rotate",
    )
    assert conf == ResolvConf(
        search=("a.test", "b.test"),
        ndots=3,
        rotate=True,
        use_tcp=True,
        no_aaaa=True,
        single_request=True,
    )


def test_the_domain_of_the_host_is_searched_if_the_file_names_none() -> None:
    """A host called web1.example.test finds names of example.test."""
    assert parse_resolv_conf("", domain="example.test").search == ("example.test",)
    assert parse_resolv_conf("search a.test", domain="example.test").search == ("a.test",)


def test_an_ipv6_nameserver_keeps_its_scope() -> None:
    """A link-local nameserver is asked over the interface that the file names."""
    assert parse_resolv_conf("nameserver fe80::1%eth0").nameservers == ("fe80::1%eth0",)
    for nonsense in ("fe80::1%", "fe80::1%a%b", "10.0.0.1%eth0", "%eth0"):
        assert parse_resolv_conf(f"nameserver {nonsense}") == parse_resolv_conf("")


def test_domain_after_search_wins() -> None:
    """The last of domain and search counts."""
    assert parse_resolv_conf("search a.test\ndomain b.test").search == ("b.test",)


@pytest.mark.parametrize(
    ("host", "tried"),
    [
        ("web", ("web.a.test", "web.b.test", "web")),
        ("web.x", ("web.x", "web.x.a.test", "web.x.b.test")),
    ],
)
def test_names_to_try(host: str, tried: tuple[str, ...]) -> None:
    """Short names are searched first, names with enough dots are tried as they are first."""
    assert names_to_try(host, ResolvConf(search=("a.test", "b.test"))) == tried


def test_hosts() -> None:
    """Every name of a line gets its address; comments and nonsense are passed over."""
    text = (
        "127.0.0.1 localhost\n  ::1 localhost ip6-localhost # loop\n\n# x\nnonsense name\n"
        "10.0.0.1 Web.test. web\n::ffff:10.0.0.2 web\n10.0.0.1 web\nfe80::1%lo web scoped\n"
    )
    table = HostsTable()
    table.add(text.splitlines())
    assert table.addresses("localhost") == ("127.0.0.1", "::1")
    assert table.addresses("ip6-localhost") == ("::1",)
    assert table.addresses("web.test") == ("10.0.0.1",)
    assert table.addresses("web") == ("10.0.0.1", "10.0.0.2")
    assert table.addresses("name") == ()
    assert table.addresses("scoped") == (), "the C library knows no scope here"


@given(st.text())
def test_any_text_is_understood(text: str) -> None:
    """No file content raises, and there is always a nameserver to ask."""
    HostsTable().add(text.splitlines())
    conf = parse_resolv_conf(text)
    assert conf.nameservers
    assert conf.timeout_s >= 1
    assert conf.attempts >= 1
