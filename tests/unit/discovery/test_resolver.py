"""The resolver against a nameserver that is real, and at times really bad."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import dns.flags
import dns.message
import dns.rrset
import pytest

from gateway.core.address import HostPort
from supervisor.core.discovery.questions import (
    Answer,
    Failure,
    Negative,
    Outcome,
    Question,
    QuestionKind,
    SrvRecord,
)
from supervisor.core.discovery.replies import MAX_ALIASES
from supervisor.core.discovery.system_names import Files
from supervisor.core.discovery.trace import Exchange
from supervisor.discovery.resolver import HOSTS_TTL_S, NAMESERVER_TIMEOUT_S, Resolver
from tests.dns import Fault, NameServer
from tests.support import free_port


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
    return Files(str(tmp_path / "hosts"), str(tmp_path / "resolv.conf"), domain="")


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


def test_a_lone_dot_is_shown(ns: NameServer, files: Files) -> None:
    """The steps have the record as it is in the zone, also beside others."""
    ns.set("_x._tcp.test", "SRV", "0 0 0 .", "1 2 3 Web.Test.")
    question = Question(QuestionKind.SRV, "_x._tcp.test")
    looked = asyncio.run(Resolver([ns.address], files).look_up(question))
    (step,) = looked.steps
    assert isinstance(step, Exchange)
    assert set(step.records) == {"0 0 0 .", "1 2 3 web.test"}


@pytest.mark.parametrize("follows", [True, False])
def test_aliases_are_followed_with_their_ttl(ns: NameServer, files: Files, follows: bool) -> None:
    """An alias is followed, by the nameserver or by us, and its TTL counts."""
    ns.follows_aliases = follows
    ns.set("alias.test", "CNAME", "web.test.", ttl=9)
    outcome = ask(ns, files, QuestionKind.HOST, "alias.test")
    assert isinstance(outcome, Answer)
    assert len(outcome.addresses) == 3
    assert outcome.ttl_s == 9


@pytest.mark.parametrize("follows", [True, False])
def test_the_longest_chain_of_aliases(ns: NameServer, files: Files, follows: bool) -> None:
    """So many are followed, in one reply or one after the other, and no more."""
    ns.follows_aliases = follows
    names = [f"a{number}.test" for number in range(MAX_ALIASES + 1)]
    for alias, target in zip(names, [*names[1:], "web.test"], strict=True):
        ns.set(alias, "CNAME", f"{target}.")
    assert isinstance(ask(ns, files, QuestionKind.HOST, names[0]), Failure)
    assert isinstance(ask(ns, files, QuestionKind.HOST, names[1]), Answer)


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


@pytest.mark.slow(seconds=1.5)
@pytest.mark.parametrize(
    ("fault", "expected", "text"),
    [
        (Fault.SERVFAIL, Failure, "SERVFAIL"),
        (Fault.REFUSED, Failure, "REFUSED"),
        (Fault.NXDOMAIN, Negative, "NXDOMAIN"),
        (Fault.EMPTY, Negative, "no addresses"),
        (Fault.TRUNCATE, Answer, ""),
        (Fault.TRUNCATE_TCP, Failure, "truncated over TCP"),
        (Fault.STRAY_TCP, Answer, ""),
        (Fault.HANG_UP, Failure, "connection closed before the reply"),
        (Fault.REFERRAL, Failure, "a lame answer (a referral)"),
        (Fault.NOTHING, Failure, "a lame answer"),
        (Fault.FORMERR, Failure, "FORMERR"),
        (Fault.NOTIMP, Failure, "NOTIMP"),
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


@pytest.mark.slow(seconds=1.5)
def test_one_family_never_holds_up_the_other(ns: NameServer, files: Files) -> None:
    """If AAAA is never answered, A is used all the same, and the failure is told."""
    ns.faults["web.test", "AAAA"] = Fault.TIMEOUT
    outcome = ask(ns, files, QuestionKind.HOST, "web.test")
    assert isinstance(outcome, Answer)
    assert set(outcome.addresses) == {"10.0.0.1", "10.0.0.2"}
    assert outcome.unanswered == {6}
    assert "AAAA" in outcome.error


@pytest.mark.slow(seconds=1.5)
@pytest.mark.parametrize("options", ["", "options single-request\n"])
def test_an_absent_name_is_absent_though_aaaa_is_never_answered(
    ns: NameServer, files: Files, options: str
) -> None:
    """NXDOMAIN for A is a definite no, and does not wait for the other family."""
    Path(files.resolv_conf).write_text(f"{options}options attempts:5\n")
    ns.faults["no.test", "AAAA"] = Fault.TIMEOUT
    outcome = ask(ns, files, QuestionKind.HOST, "no.test")
    assert outcome == Negative("NXDOMAIN", 5)
    assert ns.asked("no.test", "AAAA") == 1


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


def test_a_long_timeout_leaves_the_next_nameserver_its_turn(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``options timeout:30`` is more than a question may take, so each gets its part of it."""
    monkeypatch.setattr("supervisor.discovery.resolver.MAX_LIFETIME_S", 1.0)
    with NameServer() as mute, NameServer("127.0.0.2", mute.address.port) as good:
        mute.faults[""] = Fault.TIMEOUT
        good.set("web.test", "A", "10.0.0.1")
        text = "nameserver 127.0.0.1\nnameserver 127.0.0.2\noptions timeout:30\n"
        Path(files.resolv_conf).write_text(text)
        resolver = Resolver((), replace(files, port=mute.address.port))
        outcome = asyncio.run(resolver.ask(Question(QuestionKind.HOST, "web.test")))
    assert isinstance(outcome, Answer)


def test_aliases_one_at_a_time_are_one_question(
    ns: NameServer, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A nameserver that gives one alias in each reply has no more time than any other."""
    monkeypatch.setattr("supervisor.discovery.resolver.MAX_LIFETIME_S", 1.0)
    Path(files.resolv_conf).write_text("options no-aaaa\n")
    ns.follows_aliases, ns.late_s = False, 0.3
    for number in range(6):
        ns.set(f"alias{number}.test", "CNAME", f"alias{number + 1}.test.")
    ns.set("alias6.test", "A", "10.0.0.1")
    outcome = ask(ns, files, QuestionKind.HOST, "alias0.test")
    assert isinstance(outcome, Failure)
    assert "timeout" in outcome.error


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


@pytest.mark.slow(seconds=1.5)
@pytest.mark.parametrize("fault", [Fault.SERVFAIL, Fault.REFUSED, Fault.TIMEOUT, Fault.NOTHING])
def test_a_broken_search_domain_does_not_hide_the_name(
    ns: NameServer, files: Files, fault: Fault
) -> None:
    """The search goes on after a failure, and a failure names the name that failed."""
    ns.faults["web.none.test"] = fault
    assert isinstance(ask(ns, files, QuestionKind.SEARCH, "web"), Answer)
    ns.set("web.test", "A")
    ns.set("web.test", "AAAA")
    outcome = ask(ns, files, QuestionKind.SEARCH, "web")
    assert isinstance(outcome, Failure)
    assert outcome.error.startswith("web.none.test: ")


def test_the_name_in_use_is_not_passed_over_when_it_fails(ns: NameServer, files: Files) -> None:
    """What a later name of the list has may be a third party: the addresses in use have to stay."""
    ns.set("web.none.test", "A", "10.0.0.5")

    async def main() -> None:
        resolver = Resolver([ns.address], files)
        question = Question(QuestionKind.SEARCH, "web")
        found = await resolver.ask(question)
        assert isinstance(found, Answer)
        assert found.addresses == ("10.0.0.5",)
        ns.faults["web.none.test"] = Fault.SERVFAIL
        assert isinstance(await resolver.ask(question), Failure)
        assert ns.asked("web.test", "A") == 0

    asyncio.run(main())


@pytest.mark.slow(seconds=1.5)
def test_a_silent_search_domain_costs_its_time_once(ns: NameServer, files: Files) -> None:
    """A name that got no reply is asked only once the next time, and not waited for as long."""
    ns.faults["web.none.test"] = Fault.TIMEOUT

    async def main() -> None:
        resolver = Resolver([ns.address], files)
        question = Question(QuestionKind.SEARCH, "web")
        assert isinstance(await resolver.ask(question), Answer)
        asked = ns.asked("web.none.test", "A")
        looked = await resolver.look_up(question)
        assert isinstance(looked.outcome, Answer)
        assert ns.asked("web.none.test", "A") == asked + 1
        lost = [s for s in looked.steps if isinstance(s, Exchange) and s.said == "timeout"]
        assert {step.name for step in lost} == {"web.none.test"}
        assert all(step.took_s < NAMESERVER_TIMEOUT_S for step in lost)

    asyncio.run(main())


@pytest.mark.slow(seconds=1.5)
@pytest.mark.parametrize("edns_fault", [None, Fault.FORMERR])
def test_a_late_reply_is_heard_as_long_as_the_question_lasts(
    ns: NameServer, files: Files, edns_fault: Fault | None
) -> None:
    """A reply that comes after the timeout counts, also if the query was sent again without EDNS
    meanwhile; a refusal of EDNS counts as one then."""
    Path(files.resolv_conf).write_text("options attempts:5 no-aaaa\n")
    ns.late_s = 1.3 * NAMESERVER_TIMEOUT_S
    ns.edns_fault = edns_fault
    looked = asyncio.run(
        Resolver([ns.address], files).look_up(Question(QuestionKind.HOST, "web.test"))
    )
    assert isinstance(looked.outcome, Answer)
    assert next(step.said for step in looked.steps if isinstance(step, Exchange)) == "timeout"


class LateOverTcp(asyncio.DatagramProtocol):
    """A nameserver that truncates over UDP. By the first connection it replies, or hangs up, as
    soon as it is asked again; by others only if it hangs up."""

    def __init__(self, *, hangs_up: bool) -> None:
        self._hangs_up = hangs_up
        self._connections = 0
        self._asked_again = asyncio.Event()
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Before Python 3.12 those of asyncio are no DatagramTransport.
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        assert self._transport is not None
        response = dns.message.make_response(dns.message.from_wire(data))
        response.flags |= dns.flags.TC
        self._transport.sendto(response.to_wire(), addr)
        if self._connections:
            self._asked_again.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        first = self._connections == 1
        length = int.from_bytes(await reader.readexactly(2))
        query = dns.message.from_wire(await reader.readexactly(length))
        if first:
            await self._asked_again.wait()
        if first is not self._hangs_up:
            response = dns.message.make_response(query)
            response.flags |= dns.flags.AA
            name = query.question[0].name
            response.answer.append(dns.rrset.from_text(name, 5, "IN", "A", "10.0.0.8"))
            wire = response.to_wire()
            writer.write(len(wire).to_bytes(2) + wire)
        elif not first:
            await reader.read()  # until the client leaves
        writer.close()


@pytest.mark.slow(seconds=1.5)
@pytest.mark.parametrize("hangs_up", [False, True])
def test_a_late_reply_over_tcp_is_heard(
    files: Files, monkeypatch: pytest.MonkeyPatch, hangs_up: bool
) -> None:
    """A connection goes on while the nameserver is asked again; one that fails does not count."""
    monkeypatch.setattr("supervisor.discovery.resolver.NAMESERVER_TIMEOUT_S", 1.0)
    Path(files.resolv_conf).write_text("options attempts:5 no-aaaa\n")
    address = HostPort("127.0.0.1", free_port())

    async def main() -> None:
        nameserver = LateOverTcp(hangs_up=hangs_up)
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: nameserver, local_addr=(address.host, address.port)
        )
        async with await asyncio.start_server(nameserver.serve, address.host, address.port):
            resolver = Resolver([address], files)
            looked = await resolver.look_up(Question(QuestionKind.HOST, "web.test"))
        transport.close()
        assert looked.outcome == Answer(5, addresses=("10.0.0.8",))
        said = [step.said for step in looked.steps if isinstance(step, Exchange) and step.tcp]
        assert said == ["timeout", "answer"]

    asyncio.run(main())


@pytest.mark.slow(seconds=1.5)
def test_questions_that_wait_while_nobody_answers_are_hurried(
    ns: NameServer, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thousands of names of dead nameservers are not waited for one after the other."""
    monkeypatch.setattr("supervisor.discovery.resolver.HURRIED_S", 0.05)
    Path(files.resolv_conf).write_text("options attempts:1 no-aaaa\n")
    ns.faults[""] = Fault.TIMEOUT

    async def main() -> None:
        resolver = Resolver([ns.address], files, max_concurrent=1)
        names = [f"n{number}.test" for number in range(6)]
        outcomes = await asyncio.gather(
            *(resolver.ask(Question(QuestionKind.HOST, name)) for name in names)
        )
        assert all(isinstance(each, Failure) for each in outcomes)
        # In full patience, with EDNS and without, and the others once at most: on a busy host
        # the patience may be over before the query is sent.
        first, *others = (ns.asked(name, "A") for name in names)
        assert (first, max(others)) == (2, 1)
        ns.faults.clear()
        assert isinstance(await resolver.ask(Question(QuestionKind.HOST, "web.test")), Answer)

    asyncio.run(main())


@pytest.mark.slow(seconds=1.5)
def test_a_nameserver_that_was_away_may_be_slow_when_it_is_back(
    ns: NameServer, files: Files
) -> None:
    """A name of the search list that got no reply gets more time with each search."""
    ns.set("web.none.test", "A", "10.0.0.7")
    Path(files.resolv_conf).write_text("search none.test\noptions attempts:1 no-aaaa\n")
    question = Question(QuestionKind.SEARCH, "web")

    async def main() -> None:
        resolver = Resolver([ns.address], files)
        ns.stop()
        assert isinstance(await resolver.ask(question), Failure)
        ns.late_s = 1.2
        ns.start()
        for _ in range(5):
            outcome = await resolver.ask(question)
            if isinstance(outcome, Answer):
                break
        assert outcome == Answer(5, addresses=("10.0.0.7",))

    asyncio.run(main())


@pytest.mark.slow(seconds=1.5)
@pytest.mark.parametrize("kind", [QuestionKind.HOST, QuestionKind.SRV])
@pytest.mark.parametrize("fault", [Fault.FORMERR, Fault.NOTIMP, Fault.SERVFAIL, Fault.TIMEOUT])
def test_nameservers_without_edns_are_asked_without(
    ns: NameServer, files: Files, fault: Fault, kind: QuestionKind
) -> None:
    """Whatever a server says to an OPT record, it is asked again without; it is remembered."""
    ns.set("web.test", "SRV", "0 0 1 a.test.")
    ns.edns_fault = fault

    async def main() -> None:
        resolver = Resolver([ns.address], files)
        assert isinstance(await resolver.ask(Question(kind, "web.test")), Answer)
        tried = ns.edns_queries
        assert tried
        assert isinstance(await resolver.ask(Question(kind, "web.test")), Answer)
        assert ns.edns_queries == tried

    asyncio.run(main())


def test_bytes_behind_a_reply_are_ignored(ns: NameServer, files: Files) -> None:
    """Some middleboxes pad replies."""
    ns.trailing = b"\0\0\0\0"
    assert isinstance(ask(ns, files, QuestionKind.HOST, "web.test"), Answer)


@pytest.mark.slow(seconds=1.5)
@pytest.mark.parametrize(
    "fault", [Fault.REFERRAL, Fault.NOTHING, Fault.HANG_UP, Fault.TRUNCATE_TCP, Fault.TIMEOUT]
)
def test_a_server_that_cannot_answer_is_passed_over(
    ns: NameServer, files: Files, fault: Fault
) -> None:
    """A lame, broken or dead nameserver never decides: the next one is asked."""
    ns.set("_x._tcp.test", "SRV", "0 0 1 web.test.")

    async def main() -> None:
        with NameServer() as bad:
            bad.faults[""] = fault
            resolver = Resolver([bad.address, ns.address], files)
            for kind, name in (
                (QuestionKind.SRV, "_x._tcp.test"),
                (QuestionKind.HOST, "web.test"),
            ):
                assert isinstance(await resolver.ask(Question(kind, name)), Answer)
            no = await resolver.ask(Question(QuestionKind.HOST, "no.test"))
            assert isinstance(no, Negative)

    asyncio.run(main())


@pytest.mark.slow(seconds=1.5)
def test_a_dead_nameserver_is_asked_last(ns: NameServer, files: Files) -> None:
    """A nameserver that says nothing costs its timeout once, not with every question."""

    async def main() -> None:
        with NameServer() as dead:
            dead.faults[""] = Fault.TIMEOUT
            resolver = Resolver([dead.address, ns.address], files)
            question = Question(QuestionKind.HOST, "web.test")
            assert isinstance(await resolver.ask(question), Answer)
            asked = len(dead.queries)
            assert isinstance(await resolver.ask(question), Answer)
            assert len(dead.queries) == asked

    asyncio.run(main())


def test_an_absolute_name_of_the_hosts_file(ns: NameServer, files: Files) -> None:
    """A name of the hosts file is found when it is meant as absolute too."""
    assert isinstance(ask(ns, files, QuestionKind.HOST, "pinned.test"), Answer)


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
