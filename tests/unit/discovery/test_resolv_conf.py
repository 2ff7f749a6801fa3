"""The options of resolv.conf against nameservers that are real; docs/discovery.md lists them.

A row of that table called ``use-vc`` is held by ``test_use_vc`` here.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from supervisor.core.discovery.questions import Answer, Failure, Outcome, Question, QuestionKind
from supervisor.core.discovery.system_names import MAX_NAMESERVERS, Files
from supervisor.core.discovery.trace import Exchange
from supervisor.discovery.resolver import Resolver
from tests.dns import Fault, NameServer

WEB = Question(QuestionKind.HOST, "web.test")
SHORT = Question(QuestionKind.SEARCH, "web")
PAGE = Path(__file__).parents[3] / "docs" / "discovery.md"


@pytest.fixture
def ns() -> Iterator[list[NameServer]]:
    """Three nameservers on one port, at 127.0.0.1 to 127.0.0.3, that know web.test."""
    first = NameServer("127.0.0.1")
    first.start()
    port = first.address.port
    servers = [first, NameServer("127.0.0.2", port), NameServer("127.0.0.3", port)]
    for server in servers[1:]:
        server.start()
    for number, server in enumerate(servers, 1):
        server.set("web.test", "A", f"10.0.0.{number}")
        server.set("web.test", "AAAA", f"fd00::{number}")
    yield servers
    for server in servers:
        server.stop()


class Conf:
    """A resolv.conf of the test's own."""

    def __init__(self, path: Path, ns: Sequence[NameServer]) -> None:
        self.path = path
        self.files = Files(
            str(path.parent / "hosts"), str(path), domain="", port=ns[0].address.port
        )

    def ask(self, question: Question, times: int = 1) -> list[Outcome]:
        async def main() -> list[Outcome]:
            resolver = Resolver(files=self.files)
            return [await resolver.ask(question) for _ in range(times)]

        return asyncio.run(main())

    def steps(self, question: Question) -> list[Exchange]:
        async def main() -> list[Exchange]:
            looked = await Resolver(files=self.files).look_up(question)
            return [step for step in looked.steps if isinstance(step, Exchange)]

        return asyncio.run(main())


@pytest.fixture
def conf(tmp_path: Path, ns: list[NameServer]) -> Conf:
    return Conf(tmp_path / "resolv.conf", ns)


def found_by(outcome: Outcome) -> int:
    """Which of the nameservers gave the answer."""
    assert isinstance(outcome, Answer)
    return int(outcome.addresses[0].rpartition(".")[2])


def test_every_row_of_the_table_has_its_test() -> None:
    """What the page says of resolv.conf is tested here."""
    table = PAGE.read_text().partition("## resolv.conf")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([a-z0-9-]+)", table, re.MULTILINE)
    assert len(rows) > 10
    assert [row for row in rows if f"test_{row.replace('-', '_')}" not in globals()] == []


def test_nameserver(conf: Conf, ns: list[NameServer]) -> None:
    """The first three count, in their order; others are not asked."""
    conf.path.write_text("".join(f"nameserver 127.0.0.{n}\n" for n in (2, 1, 9, 3)))
    assert found_by(conf.ask(WEB)[0]) == 2
    for server in ns[:2]:
        server.faults[""] = Fault.SERVFAIL
    assert MAX_NAMESERVERS == 3
    assert isinstance(conf.ask(WEB)[0], Failure)
    assert not ns[2].queries


def test_a_nameserver_with_a_scope(tmp_path: Path) -> None:
    """A scoped address is used with its interface; an interface that is not there is a failure."""
    with NameServer("::1") as server:
        server.set("web.test", "A", "10.0.0.1")
        conf = Conf(tmp_path / "resolv.conf", [server])
        conf.path.write_text("nameserver fe80::1%no-such-if\nnameserver ::1%lo\n")
        assert found_by(conf.ask(WEB)[0]) == 1


def test_search(conf: Conf) -> None:
    """A short name is looked up in each domain of the list."""
    conf.path.write_text("nameserver 127.0.0.1\nsearch none.test test\n")
    assert found_by(conf.ask(SHORT)[0]) == 1


def test_domain(conf: Conf) -> None:
    """The older word for a list of one."""
    conf.path.write_text("nameserver 127.0.0.1\ndomain test\n")
    assert found_by(conf.ask(SHORT)[0]) == 1


def test_ndots(conf: Conf, ns: list[NameServer]) -> None:
    """A name with fewer dots is looked up in the domains first."""
    ns[0].set("web.test.test", "A", "10.0.0.9")
    conf.path.write_text("nameserver 127.0.0.1\nsearch test\n")
    assert found_by(conf.ask(Question(QuestionKind.SEARCH, "web.test"))[0]) == 1
    conf.path.write_text("nameserver 127.0.0.1\nsearch test\noptions ndots:2\n")
    assert found_by(conf.ask(Question(QuestionKind.SEARCH, "web.test"))[0]) == 9


@pytest.mark.slow
def test_timeout(conf: Conf, ns: list[NameServer]) -> None:
    """How long one nameserver is waited for."""
    ns[0].faults[""] = Fault.TIMEOUT
    conf.path.write_text("nameserver 127.0.0.1\nnameserver 127.0.0.2\noptions timeout:1\n")
    lost = [step for step in conf.steps(WEB) if step.said == "timeout"]
    assert lost
    assert all(1 <= step.took_s < 5 for step in lost)


@pytest.mark.slow
def test_attempts(conf: Conf, ns: list[NameServer]) -> None:
    """How often each nameserver is asked; once more without EDNS if it may be to blame."""
    ns[0].faults[""] = Fault.TIMEOUT
    for attempts, asked in ((1, 2), (3, 3)):
        conf.path.write_text(f"nameserver 127.0.0.1\noptions timeout:1 attempts:{attempts}\n")
        ns[0].queries.clear()
        assert isinstance(conf.ask(WEB)[0], Failure)
        assert ns[0].asked("web.test", "A") == asked


def test_rotate(conf: Conf) -> None:
    """Each question begins with the next nameserver."""
    conf.path.write_text(
        "".join(f"nameserver 127.0.0.{n}\n" for n in (1, 2, 3)) + "options rotate no-aaaa\n"
    )
    assert [found_by(each) for each in conf.ask(WEB, times=4)] == [1, 2, 3, 1]


def test_use_vc(conf: Conf, ns: list[NameServer]) -> None:
    """Everything is asked over TCP."""
    conf.path.write_text("nameserver 127.0.0.1\noptions use-vc\n")
    assert found_by(conf.ask(WEB)[0]) == 1
    assert {transport for _, _, transport in ns[0].queries} == {"tcp"}


def test_edns0(conf: Conf, ns: list[NameServer]) -> None:
    """EDNS is used with or without the option."""
    for options in ("", "options edns0\n"):
        conf.path.write_text(f"nameserver 127.0.0.1\n{options}")
        before = ns[0].edns_queries
        assert found_by(conf.ask(WEB)[0]) == 1
        assert ns[0].edns_queries == before + 2


def test_trust_ad(conf: Conf) -> None:
    """The AD bit is neither asked for nor looked at: the option changes nothing."""
    conf.path.write_text("nameserver 127.0.0.1\noptions trust-ad edns0\n")
    assert found_by(conf.ask(WEB)[0]) == 1


def test_no_aaaa(conf: Conf, ns: list[NameServer]) -> None:
    """IPv6 addresses are not asked for."""
    conf.path.write_text("nameserver 127.0.0.1\noptions no-aaaa\n")
    (outcome,) = conf.ask(WEB)
    assert isinstance(outcome, Answer)
    assert outcome.addresses == ("10.0.0.1",)
    assert ns[0].asked("web.test", "AAAA") == 0


def test_single_request(conf: Conf, ns: list[NameServer]) -> None:
    """IPv6 addresses are asked for when those of IPv4 are answered."""
    conf.path.write_text("nameserver 127.0.0.1\noptions single-request\n")
    (outcome,) = conf.ask(WEB)
    assert isinstance(outcome, Answer)
    assert len(outcome.addresses) == 2
    assert [kind for _, kind, _ in ns[0].queries] == ["A", "AAAA"]


@pytest.mark.slow
@pytest.mark.timeout(15)
def test_single_request_is_one_question(
    conf: Conf, ns: list[NameServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One family that is never answered holds up the other one no longer than without the option,
    and both together have the time of one question."""
    conf.path.write_text("nameserver 127.0.0.1\noptions single-request timeout:30\n")
    ns[0].faults["web.test", "AAAA"] = Fault.TIMEOUT
    (outcome,) = conf.ask(WEB)
    assert isinstance(outcome, Answer)
    assert outcome.addresses == ("10.0.0.1",)
    monkeypatch.setattr("supervisor.discovery.resolver.MAX_LIFETIME_S", 3.0)
    ns[0].faults.clear()
    ns[0].faults["web.test", "A"] = Fault.TIMEOUT
    (outcome,) = conf.ask(WEB)
    assert isinstance(outcome, Answer)
    assert outcome.addresses == ("fd00::1",)


def test_single_request_reopen(conf: Conf) -> None:
    """The same: each family has a socket of its own anyway."""
    conf.path.write_text("nameserver 127.0.0.1\noptions single-request-reopen\n")
    assert [step.kind for step in conf.steps(WEB)] == ["A", "AAAA"]


def test_inet6(conf: Conf) -> None:
    """Options that are not listed, and lines that make no sense, change nothing."""
    conf.path.write_text(
        "; comment\nnameserver 127.0.0.1\noptions inet6 debug ndots:x timeout: no-tld-query\n"
        "sortlist 10.0.0.0/8\nnameserver bogus\nnonsense\n"
    )
    assert found_by(conf.ask(WEB)[0]) == 1


def test_variables(conf: Conf, monkeypatch: pytest.MonkeyPatch) -> None:
    """LOCALDOMAIN replaces the search list, RES_OPTIONS adds options."""
    conf.path.write_text("nameserver 127.0.0.1\nsearch none.test\n")
    monkeypatch.setenv("LOCALDOMAIN", "test")
    monkeypatch.setenv("RES_OPTIONS", "no-aaaa")
    (outcome,) = conf.ask(SHORT)
    assert isinstance(outcome, Answer)
    assert outcome.addresses == ("10.0.0.1",)


def test_a_missing_or_odd_file(conf: Conf, tmp_path: Path) -> None:
    """A file that is not there, or is no file, means the nameserver of this host."""
    assert found_by(conf.ask(WEB)[0]) == 1
    conf.path.mkdir()
    assert found_by(conf.ask(WEB)[0]) == 1
