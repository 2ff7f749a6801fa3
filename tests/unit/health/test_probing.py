"""What configuration makes of a probe, and what an answer means."""

from __future__ import annotations

import pytest

from supervisor.core.config import Config
from supervisor.core.discovery.endpoints import Discovered
from supervisor.core.health.probing import ProbeKind, fault, plan, rules

PLAIN = Discovered("a.example:2379", "a.example", 2379, ("127.0.0.1",))
SECURE = Discovered("a.example:2379", "a.example", 2379, ("127.0.0.1",), tls=True)
FOUND = Discovered("a.example:2379", "a.example", 2379, ("127.0.0.1",), tls=True, srv=True)


@pytest.mark.parametrize(
    ("word", "found", "kind"),
    [
        ("auto", PLAIN, ProbeKind.TCP),
        ("auto", SECURE, ProbeKind.TLS),
        ("off", SECURE, ProbeKind.TCP),
        ("tcp", SECURE, ProbeKind.TCP),
        ("http", PLAIN, ProbeKind.HTTP),
        ("https", PLAIN, ProbeKind.HTTPS),
    ],
)
def test_kind(word: str, found: Discovered, kind: ProbeKind) -> None:
    """auto is TLS for who is known to speak it; off still probes what is inactive, by TCP."""
    how = plan(Config(health_check=word), found)
    assert how.kind is kind
    assert how.secure == (kind in ("tls", "https"))


def test_an_etcd_member_may_speak_tls() -> None:
    """It does where that is known; else, and at another port, it must be found out."""
    config = Config(health_check="etcd")
    assert plan(config, SECURE).secure is True
    assert plan(config, PLAIN).secure is None
    assert plan(Config(health_check="etcd", health_port=2381), SECURE).secure is None


@pytest.mark.parametrize("word", ["http", "https", "etcd"])
def test_the_port_of_probes_that_ask(word: str) -> None:
    """--health-port is for kinds that ask something; the others prove the endpoint's own port."""
    assert plan(Config(health_check=word, health_port=2381), PLAIN).port == 2381
    assert plan(Config(health_check=word), PLAIN).port is None
    assert plan(Config(health_check="tls", health_port=2381), SECURE).port is None
    unix = Discovered("unix:/run/a.sock", "unix:/run/a.sock", 0, ("unix:/run/a.sock",))
    assert plan(Config(health_check=word, health_port=2381), unix).port is None


def test_what_etcd_says_no_traffic_can_prove() -> None:
    """Neither a dial nor bytes tell of a leader, so a member in use keeps its interval."""
    how = rules(Config(health_check="etcd"), ProbeKind.ETCD)
    assert (how.dials_prove, how.bytes_prove, how.probe_active) == (False, False, True)


def test_server_name() -> None:
    """Endpoints found by SRV answer for the discovery domain, the others for their own host.

    A UNIX socket's is the one that it is on.
    """
    config = Config(discovery_srv="example.com")
    assert plan(config, SECURE).server_name == "a.example"
    assert plan(config, FOUND).server_name == "example.com"
    socket = Discovered("unix:/run/a", "unix:/run/a", 0, ("unix:/run/a",))
    assert plan(config, socket).server_name == "localhost"
    full = Config(discovery_srv="_db._tcp.example.com")
    assert plan(full, FOUND).server_name == "example.com"


def test_insecure_discovery_verifies_static_ones_only() -> None:
    """What --insecure-discovery let in is not verified; what the operator named is."""
    config = Config(discovery_srv="example.com", insecure_discovery=True)
    assert not plan(config, FOUND).verify
    assert plan(config, SECURE).verify
    assert plan(Config(discovery_srv="example.com"), FOUND).verify


def test_rules() -> None:
    """Only TCP probes are as good as dials, and off means that active ones are not probed."""
    assert rules(Config(), ProbeKind.TCP).dials_prove
    assert not rules(Config(), ProbeKind.TLS).dials_prove
    assert rules(Config(), ProbeKind.TCP).probe_active
    off = rules(Config(health_check="off", retry_delay_s=9.0, health_rise=2), ProbeKind.TCP)
    assert (off.probe_active, off.retry_delay_s, off.rise) == (False, 9.0, 2)


@pytest.mark.parametrize(
    "body",
    [b"", b"ok", b"\xff", b"[]", b"{}", b'{"health":"true","reason":""}', b'{"health":true}'],
)
def test_healthy(body: bytes) -> None:
    """200 is healthy unless the body says otherwise."""
    assert fault(200, body) is None


@pytest.mark.parametrize(
    ("status", "body", "text"),
    [
        (503, b"", "HTTP status 503"),
        (204, b"", "HTTP status 204"),
        (200, b'{"health":"false"}', 'health is "false"'),
        (200, b'{"health":false,"reason":"ALARM NOSPACE"}', 'health is "False" (ALARM NOSPACE)'),
        (200, b'{"health":null}', 'health is "None"'),
        (503, b'{"health":"false","reason":"no leader"}', "HTTP status 503 (no leader)"),
        (503, b'{"health":"true","reason":7}', "HTTP status 503"),
    ],
)
def test_unhealthy(status: int, body: bytes, text: str) -> None:
    """Everything else is not, and the reason is told."""
    assert fault(status, body) == text
