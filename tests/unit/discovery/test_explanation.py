"""The chain from each target to the addresses that are dialed."""

from __future__ import annotations

from dataclasses import replace

from gateway.core.address import HostPort
from gateway.core.unix_address import UnixAddress
from supervisor.core.config import Config, StaticTarget
from supervisor.core.discovery.endpoints import Discovered
from supervisor.core.discovery.explanation import Branch, Story
from supervisor.core.discovery.questions import (
    Answer,
    Failure,
    Negative,
    Outcome,
    Question,
    QuestionKind,
    SrvRecord,
)
from supervisor.core.discovery.resolution import Resolution
from supervisor.core.discovery.trace import Exchange, FromHosts, Step

SSL = Question(QuestionKind.SRV, "_etcd-client-ssl._tcp.test")
PLAIN = Question(QuestionKind.SRV, "_etcd-client._tcp.test")
WEB = Question(QuestionKind.HOST, "web.test")
ASKED = Exchange(
    name="web.test",
    kind="A",
    server="10.0.0.53:53",
    tcp=False,
    edns=True,
    said="answer",
    took_s=0.0015,
    flags=("aa", "ra"),
    ttl_s=30.0,
    records=("10.0.0.1",),
)
PLAIN_TCP = Exchange(
    name="web.test", kind="AAAA", server="[::1]:53", tcp=True, edns=False, said="timeout", took_s=2
)


def lines(
    config: Config,
    outcomes: dict[Question, Outcome],
    steps: dict[Question, tuple[Step, ...]] | None = None,
    resolution: Resolution | None = None,
) -> list[str]:
    dialed = {"web.test:1": {"10.0.0.1": "connected in 1.0 ms"}}
    story = Story(config, outcomes.get, steps or {}, resolution or Resolution(), dialed)
    return [line for tree in story.tell() for line in tree.lines()]


def test_srv_records_to_addresses() -> None:
    """Each question with its steps, each record with its host, endpoint and dials."""
    config = Config(discovery_srv="test", endpoints=())
    records = (SrvRecord(0, 5, 1, "web.test"), SrvRecord(0, 0, 0, "bad.test"))
    outcomes: dict[Question, Outcome] = {
        SSL: Negative("NXDOMAIN", 5),
        PLAIN: Answer(5, records=records),
        WEB: Answer(5, addresses=("10.0.0.1",)),
    }
    resolution = Resolution(srv=True, refused={"web.test:1": "does not speak TLS"})
    used = replace(resolution, endpoints=(Discovered("web.test:1", "web.test", 1, ("10.0.0.1",)),))
    told = lines(config, outcomes, {WEB: (ASKED, PLAIN_TCP)}, used)
    assert "      an address is left out: does not speak TLS" in told
    assert lines(config, outcomes, {WEB: (ASKED, PLAIN_TCP)}, resolution) == [
        "SRV _etcd-client-ssl._tcp.test",
        "  a definite no: NXDOMAIN",
        "SRV _etcd-client._tcp.test",
        "  record 0 5 1 web.test",
        "    host web.test",
        "      A web.test from 10.0.0.53:53 over UDP: answer, flags aa ra, TTL 30 s, 1.5 ms",
        "        10.0.0.1",
        "      AAAA web.test from [::1]:53 over TCP without EDNS: timeout, 2000.0 ms",
        "    endpoint web.test:1",
        "      left out: does not speak TLS",
        "      10.0.0.1: connected in 1.0 ms",
        "  record 0 0 0 bad.test",
        "    left out: port 0",
    ]


def test_static_targets() -> None:
    """Names, literals, names that failed or were never asked; the hosts file."""
    targets = ("web.test", "10.0.0.9", "lost.test", "later.test")
    config = Config(
        endpoints=tuple(StaticTarget(HostPort(host, 1)) for host in targets), endpoints_given=True
    )
    web, lost = (Question(QuestionKind.SEARCH, name) for name in ("web.test", "lost.test"))
    outcomes: dict[Question, Outcome] = {
        web: Answer(5, addresses=("10.0.0.1",)),
        lost: Failure("timeout"),
    }
    steps: dict[Question, tuple[Step, ...]] = {
        web: (FromHosts("web.test", "/etc/hosts", ("10.0.0.1",)),)
    }
    assert lines(config, outcomes, steps) == [
        "--endpoints web.test:1",
        "  host web.test",
        "    web.test in /etc/hosts: 10.0.0.1",
        "  endpoint web.test:1",
        "    10.0.0.1: connected in 1.0 ms",
        "--endpoints 10.0.0.9:1",
        "  endpoint 10.0.0.9:1",
        "--endpoints lost.test:1",
        "  host lost.test",
        "    a failure, asked again: timeout",
        "--endpoints later.test:1",
        "  host later.test",
        "    not asked",
    ]


def test_a_unix_socket_is_not_looked_up() -> None:
    """The target is the endpoint."""
    config = Config(endpoints=(StaticTarget(UnixAddress("/run/a")),))
    assert lines(config, {}) == ["--endpoints unix:/run/a", "  endpoint unix:/run/a"]


def test_a_fallback_that_is_not_needed_is_said() -> None:
    """The static list beside SRV records that have endpoints."""
    config = Config(
        discovery_srv="_x._tcp.test",
        endpoints=(StaticTarget(HostPort("10.0.0.9", 1)),),
        endpoints_given=True,
    )
    owner = Question(QuestionKind.SRV, "_x._tcp.test")
    outcomes: dict[Question, Outcome] = {owner: Answer(5, records=(SrvRecord(0, 0, 1, ""),))}
    assert lines(config, outcomes, resolution=Resolution(srv=True)) == [
        "SRV _x._tcp.test",
        "  record 0 0 1 .",
        "    left out: the service is decidedly not available",
        "--endpoints 10.0.0.9:1",
        "  not needed, the SRV records have endpoints",
    ]


def test_the_tree_as_a_document() -> None:
    """Text, facts and children, for programs."""
    tree = Branch("a", {"x": 1}, (Branch("b"),))
    assert tree.document() == {"text": "a", "x": 1, "children": [{"text": "b"}]}
