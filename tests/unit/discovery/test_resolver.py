"""The resolver against a nameserver that is real, and at times really bad."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.core.discovery.endpoints import (
    Answer,
    Failure,
    Negative,
    Outcome,
    Question,
    QuestionKind,
    SrvRecord,
)
from supervisor.core.discovery.system_names import Files
from supervisor.discovery.resolver import HOSTS_TTL_S, Resolver
from tests.dns import Fault, NameServer


@pytest.fixture
def ns() -> Iterator[NameServer]:
    with NameServer() as server:
        server.set("web.test", "A", "10.0.0.1", "10.0.0.2", ttl=60)
        server.set("web.test", "AAAA", "fd00::1", ttl=30)
        yield server


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """A resolv.conf with a search list and quick timeouts, and a hosts file."""
    (tmp_path / "hosts").write_text("10.9.9.9 pinned.test\n")
    (tmp_path / "resolv.conf").write_text("search none.test test\noptions attempts:1\n")
    return Files(str(tmp_path / "hosts"), str(tmp_path / "resolv.conf"))


def ask(ns: NameServer, files: Files, kind: QuestionKind, name: str) -> Outcome:
    async def one() -> Outcome:
        threads = threading.active_count()
        outcome = await Resolver([ns.address], files).ask(Question(kind, name))
        assert threading.active_count() == threads
        return outcome

    return asyncio.run(one())


def test_a_and_aaaa_with_the_smallest_ttl(ns: NameServer, files: Files) -> None:
    """A host has all its addresses of both families, and the smaller TTL of the two."""
    outcome = ask(ns, files, QuestionKind.HOST, "web.test")
    assert isinstance(outcome, Answer)
    assert set(outcome.addresses) == {"10.0.0.1", "10.0.0.2", "fd00::1"}
    assert outcome.ttl_s == 30


def test_srv_records(ns: NameServer, files: Files) -> None:
    """SRV targets come in lower case without their dot."""
    ns.set("_x._tcp.test", "SRV", "1 2 3 Web.Test.", ttl=7)
    assert ask(ns, files, QuestionKind.SRV, "_x._tcp.test") == Answer(
        7, records=(SrvRecord(1, 2, 3, "web.test"),)
    )


def test_a_lone_dot_is_a_definite_no(ns: NameServer, files: Files) -> None:
    """The target "." says that the service is decidedly not available."""
    ns.set("_x._tcp.test", "SRV", "0 0 0 .")
    outcome = ask(ns, files, QuestionKind.SRV, "_x._tcp.test")
    assert isinstance(outcome, Negative)
    assert "decidedly not available" in outcome.error


@pytest.mark.parametrize("follows", [True, False])
def test_aliases_are_followed_with_their_ttl(ns: NameServer, files: Files, follows: bool) -> None:
    """An alias is followed, by the nameserver or by us, and its TTL counts."""
    ns.follows_aliases = follows
    ns.set("alias.test", "CNAME", "web.test.", ttl=9)
    outcome = ask(ns, files, QuestionKind.HOST, "alias.test")
    assert isinstance(outcome, Answer)
    assert len(outcome.addresses) == 3
    assert outcome.ttl_s == 9


def test_a_ring_of_aliases_is_a_failure(ns: NameServer, files: Files) -> None:
    """Aliases that never end do not hang us."""
    ns.follows_aliases = False
    ns.set("a.test", "CNAME", "b.test.")
    ns.set("b.test", "CNAME", "a.test.")
    outcome = ask(ns, files, QuestionKind.HOST, "a.test")
    assert isinstance(outcome, Failure)
    assert "aliases" in outcome.error


def test_long_answers_come_over_tcp(ns: NameServer, files: Files) -> None:
    """An answer too long for a datagram is asked for again over TCP."""
    ns.set("big.test", "A", *(f"10.1.{i}.{j}" for i in range(4) for j in range(100)))
    outcome = ask(ns, files, QuestionKind.HOST, "big.test")
    assert isinstance(outcome, Answer)
    assert len(outcome.addresses) == 400
    assert ("big.test", "A", "tcp") in ns.queries


@pytest.mark.parametrize(
    ("fault", "expected", "text"),
    [
        (Fault.SERVFAIL, Failure, "SERVFAIL"),
        (Fault.REFUSED, Failure, "REFUSED"),
        (Fault.NXDOMAIN, Negative, "NXDOMAIN"),
        (Fault.EMPTY, Negative, "no addresses"),
        (Fault.TRUNCATE, Answer, ""),
        (Fault.TRUNCATE_TCP, Failure, "truncated"),
        (Fault.HANG_UP, Failure, "EOF"),
        (Fault.TIMEOUT, Failure, "timeout"),
        (Fault.WRONG_ID, Failure, "timeout"),
        (Fault.GARBAGE, Failure, "timeout"),
    ],
)
def test_faults(
    ns: NameServer, files: Files, fault: Fault, expected: type[Outcome], text: str
) -> None:
    """Every fault is a definite no, or a failure that may pass, and is called by its name."""
    ns.faults[""] = fault
    outcome = ask(ns, files, QuestionKind.HOST, "web.test")
    assert isinstance(outcome, expected)
    assert text in getattr(outcome, "error", "")


def test_absent_names_and_types_are_told_apart(ns: NameServer, files: Files) -> None:
    """NXDOMAIN and a name without SRV records are both definite, with their own words."""
    absent = ask(ns, files, QuestionKind.SRV, "no.test")
    assert isinstance(absent, Negative)
    assert (absent.error, absent.ttl_s) == ("NXDOMAIN", 5)
    assert ask(ns, files, QuestionKind.SRV, "web.test") == Negative("no SRV records", 5)


def test_one_family_never_holds_up_the_other(ns: NameServer, files: Files) -> None:
    """If AAAA is never answered, A is used all the same, and the failure is told."""
    ns.faults["web.test", "AAAA"] = Fault.TIMEOUT
    outcome = ask(ns, files, QuestionKind.HOST, "web.test")
    assert isinstance(outcome, Answer)
    assert set(outcome.addresses) == {"10.0.0.1", "10.0.0.2"}
    assert outcome.unanswered == {6}
    assert "AAAA" in outcome.error


def test_a_failed_family_beside_an_empty_one_is_a_failure(ns: NameServer, files: Files) -> None:
    """Nothing for A and a failure for AAAA is no definite answer."""
    ns.set("v6.test", "AAAA", "fd00::6")
    ns.faults["v6.test", "AAAA"] = Fault.SERVFAIL
    assert isinstance(ask(ns, files, QuestionKind.HOST, "v6.test"), Failure)


def test_nobody_at_the_nameserver_is_known_at_once(ns: NameServer, files: Files) -> None:
    """A nameserver that is not running is a failure by refusal, not by timeout."""
    ns.stop()
    outcome = ask(ns, files, QuestionKind.HOST, "web.test")
    assert isinstance(outcome, Failure)
    assert outcome.error == f"Connection refused from {ns.address}"


def test_the_next_nameserver_is_asked(ns: NameServer, files: Files) -> None:
    """With several nameservers the first that answers counts."""

    async def both() -> Outcome:
        with NameServer() as bad:
            bad.faults[""] = Fault.SERVFAIL
            resolver = Resolver([bad.address, ns.address], files)
            return await resolver.ask(Question(QuestionKind.HOST, "web.test"))

    assert isinstance(asyncio.run(both()), Answer)


def test_ipv6_nameserver(files: Files) -> None:
    """A nameserver may have an IPv6 address."""
    with NameServer("::1") as ns:
        ns.set("web.test", "A", "10.0.0.1")
        assert isinstance(ask(ns, files, QuestionKind.HOST, "web.test"), Answer)


def test_the_hosts_file_comes_first(ns: NameServer, files: Files) -> None:
    """A name of the hosts file is never asked of DNS; localhost needs no entry."""
    assert ask(ns, files, QuestionKind.SEARCH, "pinned.test") == Answer(
        HOSTS_TTL_S, addresses=("10.9.9.9",)
    )
    outcome = ask(ns, files, QuestionKind.SEARCH, "localhost")
    assert outcome == Answer(HOSTS_TTL_S, addresses=("127.0.0.1", "::1"))
    assert ns.queries == []


def test_the_search_list(ns: NameServer, files: Files) -> None:
    """A short name is searched; an SRV target, which is absolute, is not."""
    assert isinstance(ask(ns, files, QuestionKind.SEARCH, "web"), Answer)
    assert ns.asked("web.none.test", "A") == 1
    assert isinstance(ask(ns, files, QuestionKind.HOST, "web"), Negative)
    assert isinstance(ask(ns, files, QuestionKind.SEARCH, "nobody"), Negative)


def test_a_failure_ends_the_search(ns: NameServer, files: Files) -> None:
    """A name that may exist is not passed over for another one of the list."""
    ns.faults["web.none.test"] = Fault.SERVFAIL
    assert isinstance(ask(ns, files, QuestionKind.SEARCH, "web"), Failure)
    assert ns.asked("web.test", "A") == 0


def test_a_name_that_cannot_be_asked_is_a_failure(ns: NameServer, files: Files) -> None:
    """A name with a label of more than 63 bytes is told, not raised."""
    assert isinstance(ask(ns, files, QuestionKind.HOST, "x" * 64 + ".test"), Failure)


def test_resolv_conf_names_the_nameserver(tmp_path: Path) -> None:
    """Without --nameserver those of resolv.conf are asked; a missing file is an empty one."""
    files = Files(str(tmp_path / "none"), str(tmp_path / "none"))
    assert Resolver(files=files).nameservers == ("127.0.0.1:53",)
    (tmp_path / "some").write_text("nameserver 10.0.0.1\nnameserver fd00::53\n")
    files = Files(str(tmp_path / "none"), str(tmp_path / "some"))
    assert Resolver(files=files).nameservers == ("10.0.0.1:53", "[fd00::53]:53")
