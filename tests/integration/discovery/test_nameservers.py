"""Nameservers of others, as they install: large answers, signed zones, absent names, reloads."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.core.address import HostPort
from supervisor.core.discovery.questions import Answer, Negative, Outcome, Question, QuestionKind
from supervisor.core.discovery.system_names import Files
from supervisor.core.discovery.trace import Exchange
from supervisor.discovery.resolver import Looked, Resolver
from tests import nameservers
from tests.nameservers import Nameserver

MANY = 300
RELOADS = 5
RECORDS = (
    *(f"_many._tcp IN SRV 0 0 {20_000 + n} host" for n in range(MANY)),
    "host IN A 127.0.0.1",
    "host IN AAAA ::1",
    "alias IN CNAME host",
)

SERVERS: dict[str, tuple[type[Nameserver], ...]] = {
    "bind": (nameservers.Bind,),
    "bind, signed": (nameservers.SignedBind,),
    "knot": (nameservers.Knot,),
    "powerdns": (nameservers.PowerDns,),
    "unbound": (nameservers.Bind, nameservers.Unbound),
    "dnsmasq": (nameservers.Bind, nameservers.Dnsmasq),
    "axfr": (nameservers.Bind, nameservers.KnotSecondary),
}
"""By name: the server that has the zone, and the one that is asked if that is another."""


class Chain:
    """The server that is asked (the last one), and the one that has the zone (the first)."""

    def __init__(self, servers: list[Nameserver]) -> None:
        self.owner, self.asked = servers[0], servers[-1]


@pytest.fixture(autouse=True)
def _both_families(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may need longer for the other family's answer than a user should wait."""
    monkeypatch.setattr("supervisor.discovery.resolver.OTHER_FAMILY_S", 60.0)


@pytest.fixture(params=SERVERS)
def chain(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Chain]:
    kinds = SERVERS[request.param]
    if missing := [kind.program for kind in kinds if not kind.is_installed()]:
        pytest.skip(f"not installed: {', '.join(missing)}")
    servers: list[Nameserver] = []
    with contextlib.ExitStack() as stack:
        for number, kind in enumerate(kinds):
            server = kind(tmp_path / str(number), servers[-1] if servers else None)
            if not servers:
                server.write(*RECORDS)
            servers.append(stack.enter_context(server))
        yield Chain(servers)


def resolver(chain: Chain, tmp_path: Path) -> Resolver:
    files = Files(str(tmp_path / "none"), str(tmp_path / "none"), domain="")
    return Resolver([HostPort("127.0.0.1", chain.asked.port)], files)


def look_up(chain: Chain, tmp_path: Path, kind: QuestionKind, name: str) -> Looked:
    async def main() -> Looked:
        return await resolver(chain, tmp_path).look_up(Question(kind, name))

    return asyncio.run(main())


def test_three_hundred_records_come_over_tcp(chain: Chain, tmp_path: Path) -> None:
    """None of them is lost, and the datagram that had no room for them was not believed."""
    looked = look_up(chain, tmp_path, QuestionKind.SRV, "_many._tcp.example.test")
    assert isinstance(looked.outcome, Answer)
    assert {record.port for record in looked.outcome.records} == {20_000 + n for n in range(MANY)}
    steps = [step for step in looked.steps if isinstance(step, Exchange)]
    assert [(step.tcp, step.said) for step in steps] == [(False, "truncated"), (True, "answer")]


def test_hosts_aliases_and_absent_names(chain: Chain, tmp_path: Path) -> None:
    """Addresses of both families, an alias, no such name, and no such records."""
    for name in ("host.example.test", "alias.example.test"):
        outcome = look_up(chain, tmp_path, QuestionKind.HOST, name).outcome
        assert isinstance(outcome, Answer)
        assert set(outcome.addresses) == {"127.0.0.1", "::1"}
        assert 0 <= outcome.ttl_s <= 1
    absent = look_up(chain, tmp_path, QuestionKind.SRV, "_no._tcp.example.test").outcome
    assert isinstance(absent, Negative)
    assert absent.error == "NXDOMAIN"
    empty = look_up(chain, tmp_path, QuestionKind.SRV, "host.example.test").outcome
    assert isinstance(empty, Negative)
    assert empty.error == "no SRV records"


def test_a_zone_that_is_loaded_again_and_again(chain: Chain, tmp_path: Path) -> None:
    """While the zone is loaded no question gets a definite no, and each change is seen."""

    if isinstance(chain.owner, nameservers.SignedBind):
        pytest.skip("BIND's signing does not take changes this quickly")

    async def main() -> None:
        asked = resolver(chain, tmp_path)

        async def ask() -> Outcome:
            return await asked.ask(Question(QuestionKind.HOST, "host.example.test"))

        for number in range(2, RELOADS + 2):
            address = f"127.0.0.{number}"
            chain.owner.write(f"host IN A {address}")
            async with asyncio.timeout(60):
                while True:
                    outcome = await ask()
                    assert not isinstance(outcome, Negative), outcome
                    if isinstance(outcome, Answer) and outcome.addresses == (address,):
                        break
                    await asyncio.sleep(0.02)

    asyncio.run(main())
