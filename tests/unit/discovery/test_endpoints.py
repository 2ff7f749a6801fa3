"""How targets and answers become endpoints, or problems that name the record."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.address import HostPort
from gateway.core.unix_address import UnixAddress
from supervisor.core.config import Config, StaticTarget
from supervisor.core.discovery.endpoints import (
    Discovered,
    EndpointsChange,
    compare,
    find_srv,
    find_static,
    hosts_to_look_up,
    sort_addresses,
)
from supervisor.core.discovery.questions import (
    Answer,
    Failure,
    Lookup,
    Negative,
    Outcome,
    Question,
    QuestionKind,
    SrvRecord,
)
from supervisor.core.discovery.targets import Owner, static_questions

SSL = Owner("_etcd-client-ssl._tcp.test", tls=True)
PLAIN = Owner("_etcd-client._tcp.test", tls=False)


def holding(outcomes: Mapping[str, Outcome]) -> Lookup:
    """What is held, by the last words of the question: ``SRV name`` or ``host name``."""
    return lambda question: outcomes.get(str(question))


def srv(*records: tuple[int, int, int, str]) -> Answer:
    return Answer(5, records=tuple(SrvRecord(*record) for record in records))


def host(*addresses: str) -> Answer:
    return Answer(5, addresses=addresses)


def static(*names: str) -> Config:
    pairs = (name.rsplit(":", 1) for name in names)
    return Config(endpoints=tuple(StaticTarget(HostPort(h, int(p))) for h, p in pairs))


def test_a_trailing_dot_keeps_a_name_absolute() -> None:
    """No search list applies to it; the endpoint is called without the dot, and counts once."""
    absolute = StaticTarget(HostPort("web.test", 1, absolute=True))
    config = Config(endpoints=(StaticTarget(HostPort("web.test", 1)), absolute))
    asked = Question(QuestionKind.HOST, "web.test")
    assert static_questions(config) == (asked,)
    found = find_static(config, {asked: Answer(60, addresses=("10.0.0.1",))}.get)
    assert [each.name for each in found.endpoints] == ["web.test:1"]


def test_static_literals_need_no_question() -> None:
    """Literal addresses are endpoints as they are, in the order given, once each."""
    config = static("::1:2379", "127.0.0.1:2379", "127.0.0.1:2379", "web:80", "web:81")
    assert static_questions(config) == (Question(QuestionKind.SEARCH, "web"),)
    found = find_static(config, holding({"host web": host("10.0.0.1")}))
    assert [each.name for each in found.endpoints] == [
        "[::1]:2379",
        "127.0.0.1:2379",
        "web:80",
        "web:81",
    ]
    assert found.problems == ()


def test_a_unix_socket_needs_no_question() -> None:
    """It is its own host and its only address, and has no port; others stand beside it."""
    config = Config(
        endpoints=(StaticTarget(UnixAddress("/run/a")), StaticTarget(HostPort("10.0.0.1", 1)))
    )
    assert static_questions(config) == ()
    assert find_static(config, holding({})).endpoints == (
        Discovered("unix:/run/a", "unix:/run/a", 0, ("unix:/run/a",)),
        Discovered("10.0.0.1:1", "10.0.0.1", 1, ("10.0.0.1",)),
    )


def test_static_endpoint_given_twice_is_tls_if_either_is() -> None:
    """An endpoint given with and without https:// counts once, and as one that speaks TLS."""
    address = HostPort("127.0.0.1", 1)
    config = Config(endpoints=(StaticTarget(address), StaticTarget(address, tls=True)))
    (found,) = find_static(config, holding({})).endpoints
    assert found.tls


@pytest.mark.parametrize(
    ("outcome", "definite"),
    [(Negative("NXDOMAIN", 5), True), (Failure("timeout"), False), (None, False)],
)
def test_one_bad_name_harms_no_other(outcome: Outcome | None, definite: bool) -> None:
    """A name that does not resolve is a problem that names it; the others are used."""
    outcomes = {"host good": host("10.0.0.1")} | ({"host bad": outcome} if outcome else {})
    found = find_static(static("bad:1", "good:1"), holding(outcomes))
    assert [each.name for each in found.endpoints] == ["good:1"]
    assert found.absent == ("bad:1",)
    (problem,) = found.problems
    assert problem.error.startswith("host bad: ")
    assert (problem.definite, found.definite) == (definite, definite)


def test_srv_records_become_endpoints_by_priority() -> None:
    """Endpoints are ordered by priority and name, however DNS shuffles them."""
    outcomes: dict[str, Outcome] = {
        f"SRV {SSL.name}": srv((10, 1, 2379, "c.test"), (0, 5, 2379, "b.test")),
        f"SRV {PLAIN.name}": srv((0, 0, 2379, "a.test")),
        "host a.test": host("10.0.0.1"),
        "host b.test": host("fd00::2", "10.0.0.2"),
        "host c.test": host("10.0.0.3"),
    }
    questions = hosts_to_look_up([SSL, PLAIN], holding(outcomes))
    assert questions == tuple(Question(QuestionKind.HOST, f"{n}.test") for n in "cba")
    found = find_srv([SSL, PLAIN], holding(outcomes))
    assert found.problems == ()
    assert found.endpoints == (
        Discovered("a.test:2379", "a.test", 2379, ("10.0.0.1",), srv=True),
        Discovered(
            "b.test:2379", "b.test", 2379, ("10.0.0.2", "fd00::2"), 0, 5, tls=True, srv=True
        ),
        Discovered("c.test:2379", "c.test", 2379, ("10.0.0.3",), 10, 1, tls=True, srv=True),
    )


def test_repeated_records_count_once() -> None:
    """An endpoint under both names, or repeated, counts once, with its best priority."""
    outcomes: dict[str, Outcome] = {
        f"SRV {SSL.name}": srv((5, 1, 1, "a.test"), (5, 7, 1, "a.test"), (9, 9, 1, "a.test")),
        f"SRV {PLAIN.name}": srv((5, 2, 1, "a.test")),
        "host a.test": host("10.0.0.1"),
    }
    (found,) = find_srv([SSL, PLAIN], holding(outcomes)).endpoints
    assert (found.priority, found.weight, found.tls) == (5, 7, True)


def test_one_absent_name_is_no_problem() -> None:
    """If one of the two names has records, the other's absence is nothing to speak of."""
    outcomes: dict[str, Outcome] = {
        f"SRV {SSL.name}": srv((0, 0, 1, "10.0.0.9")),
        f"SRV {PLAIN.name}": Negative("NXDOMAIN", 5),
    }
    found = find_srv([SSL, PLAIN], holding(outcomes))
    assert [each.name for each in found.endpoints] == ["10.0.0.9:1"]
    assert found.problems == ()
    assert hosts_to_look_up([SSL, PLAIN], holding(outcomes)) == ()


def test_both_names_absent_is_definite() -> None:
    """NXDOMAIN for both names says definitely that there is no endpoint."""
    no = Negative("NXDOMAIN", 5)
    found = find_srv([SSL, PLAIN], lambda _: no)
    assert found.endpoints == ()
    assert found.definite
    assert [p.error for p in found.problems] == [
        f"SRV {SSL.name}: NXDOMAIN",
        f"SRV {PLAIN.name}: NXDOMAIN",
    ]


@pytest.mark.parametrize("other", [Failure("SERVFAIL"), None])
def test_one_failed_name_is_not_definite(other: Outcome | None) -> None:
    """A no for one name and a failure for the other leaves hope."""
    outcomes: dict[str, Outcome] = {f"SRV {PLAIN.name}": Negative("NXDOMAIN", 5)}
    if other:
        outcomes[f"SRV {SSL.name}"] = other
    found = find_srv([SSL, PLAIN], holding(outcomes))
    assert not found.endpoints
    assert not found.definite


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ((0, 0, 0, "a.test"), "port 0"),
        ((0, 0, 1, ""), "decidedly not available"),
        ((0, 0, 1, "bad\\032name.test"), "no host name"),
        ((0, 0, 1, "-a.test"), "no host name"),
        ((0, 0, 1, "fe80::1%eth0"), "no host name"),
        ((0, 0, 1, ("x" * 60 + ".") * 5 + "test"), "no host name"),
    ],
)
def test_an_unusable_record_is_named(record: tuple[int, int, int, str], reason: str) -> None:
    """A record that cannot be used is a problem that names it; the others are used."""
    outcomes: dict[str, Outcome] = {
        f"SRV {SSL.name}": srv(record, (0, 0, 1, "a.test")),
        "host a.test": host("10.0.0.1"),
    }
    found = find_srv([SSL], holding(outcomes))
    assert [each.name for each in found.endpoints] == ["a.test:1"]
    (problem,) = found.problems
    assert problem.error.startswith(f"SRV {SSL.name} record '{record[0]} {record[1]} {record[2]} ")
    assert reason in problem.error


def test_a_target_without_addresses_harms_no_other() -> None:
    """A target that does not resolve is named, with the SRV name that led to it."""
    outcomes: dict[str, Outcome] = {
        f"SRV {SSL.name}": srv((0, 0, 1, "gone.test"), (0, 0, 1, "a.test")),
        "host a.test": host("10.0.0.1"),
        "host gone.test": Negative("NXDOMAIN", 5),
    }
    found = find_srv([SSL], holding(outcomes))
    assert [each.name for each in found.endpoints] == ["a.test:1"]
    assert found.absent == ("gone.test:1",)
    assert found.problems[0].error == f"host gone.test (SRV {SSL.name}): NXDOMAIN"


def test_addresses_are_sorted_and_unclothed() -> None:
    """Addresses have one order and one spelling, IPv4 first; an IPv4-mapped one is IPv4."""
    assert sort_addresses(["FD00::0001", "10.0.0.10", "10.0.0.9", "::ffff:10.0.0.9"]) == (
        "10.0.0.9",
        "10.0.0.10",
        "fd00::1",
    )


def test_compare() -> None:
    """Added, removed and changed are told apart by name."""
    a, b, c = (Discovered(f"{n}:1", n, 1, ("10.0.0.1",)) for n in "abc")
    assert compare([a, b], [replace(b, weight=1), c]) == EndpointsChange(
        ("c:1",), ("a:1",), ("b:1",)
    )
    assert not compare([a], [a])


NAMES = st.one_of(
    st.sampled_from(["", "a.test", "b.test", "10.0.0.1", "::1", "_x.test", "A", ".", "a..b"]),
    st.text(max_size=80),
)
NUMBERS = st.integers(0, 65535)
RECORDS = st.lists(st.builds(SrvRecord, NUMBERS, NUMBERS, NUMBERS, NAMES), max_size=8)
SRV_OUTCOMES = st.one_of(
    st.none(),
    st.builds(Failure, st.text()),
    st.builds(Negative, st.text(), st.floats(0, 1e9)),
    st.builds(lambda records: Answer(5, records=tuple(records)), RECORDS),
)
HOST_OUTCOMES = st.one_of(
    st.none(),
    st.builds(Failure, st.text()),
    st.builds(Negative, st.text(), st.floats(0, 1e9)),
    st.builds(
        lambda addresses: Answer(5, addresses=tuple(map(str, addresses))),
        st.lists(st.ip_addresses(), min_size=1, max_size=5),
    ),
)


@given(SRV_OUTCOMES, SRV_OUTCOMES, HOST_OUTCOMES, st.randoms())
def test_any_answer_yields_valid_endpoints_or_problems(
    ssl: Outcome | None, plain: Outcome | None, address: Outcome | None, shuffle: object
) -> None:
    """Any answer, however odd, yields unique endpoints with literal addresses and real ports, or
    problems that name the record; and its order makes no difference."""

    def lookup(question: Question) -> Outcome | None:
        if question.kind is QuestionKind.SRV:
            return ssl if question.name == SSL.name else plain
        return address

    found = find_srv([SSL, PLAIN], lookup)
    assert found.endpoints or found.problems or ssl == plain == Answer(5)
    assert len({each.name for each in found.endpoints}) == len(found.endpoints)
    for each in found.endpoints:
        assert each.name == str(HostPort(each.host, each.port))
        assert 1 <= each.port <= 65535
        assert each.addresses
        assert all(str(ipaddress.ip_address(a)) == a for a in each.addresses)
        assert list(each.host) == list(each.host.lower())
    for problem in found.problems:
        assert problem.error.startswith(("SRV _etcd-client", "host "))
    if isinstance(ssl, Answer):
        ssl = replace(ssl, records=tuple(reversed(ssl.records)))
        assert find_srv([SSL, PLAIN], lookup).endpoints == found.endpoints
