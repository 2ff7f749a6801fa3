"""Thousands of wrong replies; a million of them are in ``tests/stress``."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from pathlib import Path
from typing import cast

import pytest

from gateway.core.address import HostPort
from supervisor.core.discovery.answers import Answers, Refresh
from supervisor.core.discovery.questions import Answer, Question, QuestionKind
from supervisor.core.discovery.replies import ReplyKind
from supervisor.core.discovery.system_names import Files
from supervisor.discovery.dns_message import Query, compose_query
from supervisor.discovery.resolver import Resolver
from tests import dns_fuzz

pytestmark = pytest.mark.slow(seconds=10)

CASES = 5_000
EXCHANGES, AT_ONCE = 400, 100
NAME = "web.fuzz.test"


def test_no_reply_raises_or_is_taken_for_more_than_it_says() -> None:
    """Every meaning follows from the bytes; and all meanings were met."""
    cases = dns_fuzz.Cases(20261125)
    met = Counter[ReplyKind | None]()
    for _ in range(CASES):
        meaning = dns_fuzz.check(cases.next())
        met[meaning.kind if meaning else None] += 1
    assert set(met) == {None, *ReplyKind}


class Liar(asyncio.DatagramProtocol):
    """A nameserver that sends wrong replies; ``said`` is what they may be taken for."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self.said: set[str] = set()
        self.replies = 0
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Before Python 3.12 those of asyncio are no DatagramTransport.
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        assert self._transport is not None
        plain = compose_query(NAME, "A", edns=False)
        query = Query(data, plain.question)
        case = dns_fuzz.make_reply(query, NAME, "A", self._chance)
        meaning = dns_fuzz.check(case)
        if meaning is not None and meaning.kind is ReplyKind.RECORDS:
            self.said |= {record.data for record in meaning.records}
        self._transport.sendto(case.wire, addr)
        self.replies += 1


def test_no_reply_over_the_wire_loses_what_was_found(tmp_path: Path) -> None:
    """With a good answer held, wrong replies change it to what they say, or not at all."""
    (tmp_path / "resolv.conf").write_text("options attempts:1 no-aaaa\n")
    files = Files(str(tmp_path / "hosts"), str(tmp_path / "resolv.conf"), domain="")
    good = Answer(30, addresses=("10.9.9.9",))
    refresh = Refresh(confirm_s=1000.0)
    question = Question(QuestionKind.HOST, NAME)

    async def one(seed: int) -> None:
        loop = asyncio.get_running_loop()
        transport, liar = await loop.create_datagram_endpoint(
            lambda: Liar(seed), local_addr=("127.0.0.1", 0)
        )
        port = transport.get_extra_info("sockname")[1]
        answers = Answers()
        answers.take(question, good, now=0, refresh=refresh, draw=lambda _: 0)
        outcome = await Resolver([HostPort("127.0.0.1", port)], files).ask(question)
        transport.close()
        assert liar.replies
        answers.take(question, outcome, now=60, refresh=refresh, draw=lambda _: 0)
        held = answers.lookup(question)
        assert isinstance(held, Answer)
        assert held == good or set(held.addresses) <= liar.said

    async def main() -> None:
        for first in range(0, EXCHANGES, AT_ONCE):
            await asyncio.gather(*(one(seed) for seed in range(first, first + AT_ONCE)))

    asyncio.run(main())
