"""Where operators say that endpoints are to be found."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.core.address import HostPort
from supervisor.core.config import Config, StaticTarget
from supervisor.core.discovery.questions import Question, QuestionKind
from supervisor.core.discovery.targets import (
    Owner,
    describe_targets,
    describe_tls_check,
    host_question,
    owners,
    static_targets,
    tls_domain,
)

SSL = Owner("_etcd-client-ssl._tcp.test", tls=True)
PLAIN = Owner("_etcd-client._tcp.test", tls=False)


@pytest.mark.parametrize(
    ("domain", "name", "expected"),
    [
        ("", "", ()),
        ("Test.", "", (SSL, PLAIN)),
        (
            "test",
            "Blue",
            (
                Owner("_etcd-client-ssl-blue._tcp.test", tls=True),
                Owner("_etcd-client-blue._tcp.test", tls=False),
            ),
        ),
        ("_postgresql._tcp.test.", "", (Owner("_postgresql._tcp.test", tls=False),)),
        ("_etcd-client-ssl._tcp.test", "", (SSL,)),
        (
            "_etcd-client-ssl-blue._tcp.test",
            "",
            (Owner("_etcd-client-ssl-blue._tcp.test", tls=True),),
        ),
    ],
)
def test_owner_names(domain: str, name: str, expected: tuple[Owner, ...]) -> None:
    """Both etcd names, with the suffix if given; a full owner name is taken as it is."""
    assert owners(Config(discovery_srv=domain, discovery_srv_name=name)) == expected


@pytest.mark.parametrize(
    ("domain", "expected"), [("Example.com.", "example.com"), ("_x._tcp.a.test", "a.test")]
)
def test_certificates_are_for_the_domain(domain: str, expected: str) -> None:
    """Certificates are verified for the discovery domain, never for the SRV owner or target."""
    assert tls_domain(Config(discovery_srv=domain)) == expected


def test_other_targets_are_described_otherwise() -> None:
    """An adopted member list belongs to the targets that it was found by, TLS included."""
    plain, secure = StaticTarget(HostPort("a.test", 1)), StaticTarget(HostPort("a.test", 1), True)
    configs = [
        Config(endpoints=(plain,)),
        Config(endpoints=(secure,)),
        Config(endpoints=(plain,), discovery_srv="test"),
        Config(endpoints=(plain,), discovery_srv="test", discovery_srv_name="blue"),
    ]
    assert len({describe_targets(config) for config in configs}) == len(configs)
    assert describe_targets(Config(endpoints=(plain,), workers=7)) == describe_targets(configs[0])


def test_the_order_of_addresses_makes_no_other_targets() -> None:
    """Templates write the same ones in any order."""
    one, other = StaticTarget(HostPort("a.test", 1)), StaticTarget(HostPort("b.test", 1))
    configs = [
        Config(endpoints=(one, other), discovery_srv="test", source_addr=("192.0.2.1", "fd00::1")),
        Config(endpoints=(other, one), discovery_srv="test", source_addr=("fd00::1", "192.0.2.1")),
    ]
    assert len({describe_targets(config) for config in configs}) == 1
    assert len({describe_tls_check(config) for config in configs}) == 1


def test_a_trailing_dot_spares_the_search_list() -> None:
    """A name given both ways is asked for as it is, once."""
    relative, absolute = HostPort("web.test", 1), HostPort("web.test", 1, absolute=True)
    assert host_question(relative) == Question(QuestionKind.SEARCH, "web.test")
    assert host_question(absolute) == Question(QuestionKind.HOST, "web.test")
    config = Config(endpoints=(StaticTarget(relative), StaticTarget(absolute)))
    assert list(static_targets(config)) == [StaticTarget(absolute)]


def test_the_tls_check_is_told_by_what_its_verdicts_depend_on() -> None:
    """Two configurations with the same text accept each other's verdicts; "" is no check."""
    plain = Config(discovery_srv="Example.com.")
    assert describe_tls_check(Config()) == ""
    assert describe_tls_check(replace(plain, insecure_discovery=True)) == ""
    full = Config(discovery_srv="_x._tcp.example.com")
    assert describe_tls_check(plain) == describe_tls_check(full)
    others = [
        replace(plain, trusted_ca_file="/ca.pem"),
        replace(plain, source_addr=("10.0.0.1",)),
        replace(plain, proxy_out="v2"),
        replace(plain, discovery_srv="example.org"),
    ]
    assert len({describe_tls_check(each) for each in (plain, *others)}) == 5
