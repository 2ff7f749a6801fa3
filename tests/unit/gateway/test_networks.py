"""A set of networks asked for single addresses."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.networks import Networks
from gateway.core.socket_address import packed


@pytest.mark.parametrize(
    ("host", "inside"),
    [
        ("10.0.0.0", True),
        ("10.255.255.255", True),
        ("::ffff:10.1.2.3", True),
        ("9.255.255.255", False),
        ("11.0.0.0", False),
        ("192.0.2.7", True),
        ("192.0.2.8", False),
        ("172.16.3.4", True),
        ("192.0.2.9", True),
        ("2001:db8::9", True),
        ("2001:db8::a", False),
        ("fd00::1", True),
        ("fe00::1", False),
        ("::a00:1", False),
        ("", False),
    ],
)
def test_edges(host: str, inside: bool) -> None:
    """The first and the last address belong to a network, their neighbours do not."""
    networks = Networks(
        [
            "10.0.0.0/8",
            "10.1.0.0/16",
            "192.0.2.7",
            "fd00::/8",
            "::ffff:192.0.2.9",
            "2001:db8::9",
            "::ffff:172.16.0.0/108",
        ]
    )
    assert networks.has(packed(host)) is inside


def test_no_networks() -> None:
    """An empty set has nobody in it, and is false."""
    assert not Networks()
    assert not Networks().has(packed("10.0.0.1"))
    assert not Networks().has(packed("::1"))


def test_everybody_of_one_family() -> None:
    """A prefix of length 0 is its whole family and nothing of the other."""
    assert Networks(["0.0.0.0/0"]).has(packed("8.8.8.8"))
    assert not Networks(["0.0.0.0/0"]).has(packed("2001:db8::1"))
    assert Networks(["::/0"]).has(packed("2001:db8::1"))
    assert not Networks(["::/0"]).has(packed("8.8.8.8"))


NETWORKS = st.lists(
    st.one_of(
        st.builds(
            lambda number, length: ipaddress.IPv4Network((number, length), strict=False),
            st.integers(0, 2**32 - 1),
            st.integers(0, 32),
        ),
        st.builds(
            lambda number, length: ipaddress.IPv6Network((number, length), strict=False),
            st.integers(0, 2**128 - 1),
            st.integers(0, 128),
        ),
    ),
    max_size=30,
)


@given(networks=NETWORKS, number=st.integers(0, 2**128 - 1))
def test_same_as_ipaddress(networks: list[ipaddress.IPv4Network], number: int) -> None:
    """The answer is that of asking each network in turn."""
    ours = Networks(map(str, networks))
    hosts: list[ipaddress.IPv4Address | ipaddress.IPv6Address] = [
        ipaddress.IPv4Address(number % 2**32),
        ipaddress.IPv6Address(number),
    ]
    hosts += [edge for each in networks for edge in (each[0], each[-1])]
    for host in hosts:
        mapped = isinstance(host, ipaddress.IPv6Address) and host.ipv4_mapped
        expected = any((mapped or host) in network for network in networks)
        if not mapped:
            assert ours.has(packed(str(host))) is expected
