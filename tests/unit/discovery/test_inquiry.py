"""Which nameserver is asked next and how, and what is remembered of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.core.discovery.inquiry import GaveUp, Heard, Lost, Patience, Try, inquire
from supervisor.core.discovery.nameservers import (
    EDNS_MEMORY_S,
    FIRST_AVOID_S,
    MAX_AVOID_S,
    Edns,
    Nameservers,
)
from supervisor.core.discovery.replies import Meaning, ReplyKind

ANSWER = Meaning(ReplyKind.RECORDS)
NO = Meaning(ReplyKind.NO_NAME, "NXDOMAIN")
SERVFAIL = Meaning(ReplyKind.FAILED, "SERVFAIL")
LAME = Meaning(ReplyKind.FAILED, "a lame answer")
FORMERR = Meaning(ReplyKind.NO_EDNS, "FORMERR")
TRUNCATED = Meaning(ReplyKind.TRUNCATED, "truncated")
SILENCE = "silence"
BROKEN = "broken"

Script = dict[tuple[int, bool, bool], Meaning | str]
"""What a nameserver does, by server, with EDNS, over TCP."""


class Run:
    """One inquiry against nameservers that follow a script; time passes with each silence."""

    def __init__(
        self,
        servers: Nameservers,
        script: Script | Callable[[Try], Meaning | str],
        patience: Patience | None = None,
        now: float = 0.0,
    ) -> None:
        self.tries: list[Try] = []
        self.now = now
        course = inquire(servers, patience or Patience(timeout_s=1, attempts=2), now)
        try:
            attempt = next(course)
            while True:
                self.tries.append(attempt)
                if callable(script):
                    does = script(attempt)
                else:
                    does = script.get((attempt.server, attempt.edns, attempt.tcp), SILENCE)
                attempt = course.send(self._heard(does, attempt))
        except StopIteration as end:
            self.result: Meaning | GaveUp = end.value

    def _heard(self, does: Meaning | str, attempt: Try) -> Heard | Lost:
        if isinstance(does, Meaning):
            return Heard(does, self.now)
        if does == SILENCE:
            self.now += attempt.timeout_s
            return Lost("timeout", self.now)
        return Lost("connection closed", self.now, silent=False)

    @property
    def asked(self) -> list[tuple[int, bool, bool]]:
        return [(each.server, each.edns, each.tcp) for each in self.tries]


def test_the_first_answer_counts() -> None:
    """One good nameserver is asked once; a definite no is an answer too."""
    for meaning in (ANSWER, NO):
        run = Run(Nameservers(2), {(0, True, False): meaning})
        assert run.result == meaning
        assert run.asked == [(0, True, False)]


@pytest.mark.parametrize("failure", [LAME, BROKEN, SILENCE])
def test_a_failure_leads_to_the_next_server(failure: Meaning | str) -> None:
    """What one nameserver cannot answer, the next one may."""
    run = Run(Nameservers(2), {(0, True, False): failure, (1, True, False): NO})
    assert run.result == NO


def test_a_server_that_said_it_cannot_is_not_asked_again() -> None:
    """All nameservers that only failed give up after one try each, and each error is known."""
    run = Run(Nameservers(2), {(0, True, False): LAME, (1, True, False): BROKEN})
    assert run.result == GaveUp({0: "a lame answer", 1: "connection closed"}, silent=False)
    assert run.asked == [(0, True, False), (1, True, False)]


@pytest.mark.parametrize("stumble", [FORMERR, SERVFAIL])
def test_a_server_without_edns_is_asked_without_and_remembered(stumble: Meaning) -> None:
    """A server that stumbles over the OPT record is asked without it, at once and later."""
    servers = Nameservers(1)
    script: Script = {(0, True, False): stumble, (0, False, False): ANSWER}
    assert Run(servers, script).asked == [(0, True, False), (0, False, False)]
    assert Run(servers, script).asked == [(0, False, False)]
    assert servers.edns(0, 1) is Edns.BROKEN
    assert Run(servers, script, now=EDNS_MEMORY_S + 1).asked[0] == (0, True, False)


def test_a_server_that_refuses_edns_again_is_asked_no_more() -> None:
    """Whatever it replies to: a reply to an earlier query may come late, or twice."""
    run = Run(Nameservers(1), {(0, True, False): FORMERR, (0, False, False): FORMERR})
    assert run.result == GaveUp({0: "FORMERR"}, silent=False)
    assert run.asked == [(0, True, False), (0, False, False)]


def test_silence_to_an_opt_record_is_tried_without_even_on_the_last_attempt() -> None:
    """A server that drops queries with an OPT record answers the plain one."""
    servers = Nameservers(1)
    run = Run(servers, {(0, False, False): ANSWER}, Patience(timeout_s=1, attempts=1))
    assert run.result == ANSWER
    assert run.asked == [(0, True, False), (0, False, False)]
    assert servers.edns(0, 2) is Edns.BROKEN


def test_a_late_reply_to_a_query_with_edns_shows_that_it_works() -> None:
    """Though it comes when the query without the OPT record was sent already."""
    servers = Nameservers(1)
    course = inquire(servers, Patience(timeout_s=1, attempts=2), 0)
    assert next(course).edns
    assert not course.send(Lost("timeout", 1)).edns
    with pytest.raises(StopIteration) as end:
        course.send(Heard(ANSWER, 1.5, edns=True))
    assert end.value.value == ANSWER
    assert servers.edns(0, 2) is Edns.WORKS
    course = inquire(Nameservers(1), Patience(timeout_s=1, attempts=2), 0)
    next(course)
    course.send(Lost("timeout", 1))
    assert not course.send(Heard(FORMERR, 1.5, edns=True)).edns, "asked once more without"


def test_servfail_of_a_server_with_edns_is_about_the_name() -> None:
    """A server that has understood EDNS is not asked again without for each broken name."""
    servers = Nameservers(1)
    Run(servers, {(0, True, False): ANSWER})
    run = Run(servers, {(0, True, False): SERVFAIL})
    assert run.asked == [(0, True, False)]
    assert run.result == GaveUp({0: "SERVFAIL"}, silent=False)


def test_servfail_with_and_without_edns_proves_nothing_about_edns() -> None:
    """Only a query that is answered without the OPT record shows that it was to blame."""
    servers = Nameservers(1)
    Run(servers, {(0, True, False): SERVFAIL, (0, False, False): SERVFAIL})
    assert servers.edns(0, 1) is Edns.UNKNOWN


def test_one_lost_packet_does_not_cost_edns() -> None:
    """A server known to understand EDNS loses that only when it happens again."""
    servers = Nameservers(1)
    Run(servers, {(0, True, False): ANSWER})
    script: Script = {(0, False, False): ANSWER}
    run = Run(servers, script)
    assert run.asked == [(0, True, False), (0, False, False)]
    assert servers.edns(0, run.now) is Edns.UNKNOWN
    Run(servers, script)
    assert servers.edns(0, run.now) is Edns.BROKEN


def test_a_known_server_that_is_silent_gets_no_try_beyond_its_attempts() -> None:
    """Its silence has another reason than EDNS."""
    servers = Nameservers(1)
    Run(servers, {(0, True, False): ANSWER})
    run = Run(servers, {}, Patience(timeout_s=1, attempts=1))
    assert run.asked == [(0, True, False)]
    assert run.result == GaveUp({0: "timeout"}, silent=True)


def test_a_truncated_answer_is_asked_for_over_tcp() -> None:
    """Over TCP from the same server; if that fails the server has failed."""
    script: Script = {(0, True, False): TRUNCATED, (0, True, True): ANSWER}
    assert Run(Nameservers(2), script).asked == [(0, True, False), (0, True, True)]
    for failure in (BROKEN, SILENCE, TRUNCATED):
        script = {
            (0, True, False): TRUNCATED,
            (0, True, True): failure,
            (1, True, False): ANSWER,
        }
        assert Run(Nameservers(2), script).result == ANSWER


def test_where_tcp_is_blocked_edns_is_tried_again() -> None:
    """One lost packet, and EDNS was given up for an hour: an answer of more than 512 bytes is had
    neither in a datagram nor over TCP then."""
    servers = Nameservers(1)
    patience = Patience(timeout_s=1, attempts=1)
    Run(servers, {(0, False, False): ANSWER}, patience)
    assert servers.edns(0, 2) is Edns.BROKEN
    run = Run(servers, {(0, False, False): TRUNCATED}, patience, now=2)
    assert isinstance(run.result, GaveUp)
    run = Run(servers, {(0, True, False): ANSWER}, patience, now=4)
    assert run.asked == [(0, True, False)]


def test_tcp_only() -> None:
    """With use-vc nothing is asked over UDP."""
    run = Run(Nameservers(1), {(0, True, True): ANSWER}, Patience(tcp=True))
    assert run.asked == [(0, True, True)]


def test_the_lifetime_ends_everything() -> None:
    """No try begins after the lifetime, and the last one is cut short by it."""
    patience = Patience(timeout_s=2, attempts=5, lifetime_s=3)
    servers = Nameservers(1)
    run = Run(servers, {}, patience)
    assert [each.timeout_s for each in run.tries] == [2, 1]
    assert run.now == 3
    assert isinstance(run.result, GaveUp)
    assert run.result.silent


def test_a_hurried_question_says_nothing_about_the_server() -> None:
    """Tries that are cut short are no reason to avoid a nameserver, and each one has its turn."""
    servers = Nameservers(2)
    patience = Patience(timeout_s=2, attempts=1)
    run = Run(servers, {}, patience.within(0.5, 2))
    assert run.asked == [(0, True, False), (1, True, False)]
    assert [each.timeout_s for each in run.tries] == [0.25, 0.25]
    assert servers.order(1) == (0, 1)
    assert not servers.all_silent(1)
    Run(servers, {}, replace(patience, lifetime_s=3))
    assert servers.order(5) == (1, 0), "the try of the second one was cut short"
    assert patience.within(patience.lifetime_s, 2) == patience
    unhurried = patience.within(5, 2)
    assert (unhurried.timeout_s, unhurried.lifetime_s, unhurried.hurried) == (2, 5, False)


def test_all_servers_may_be_silent() -> None:
    """Until one of them answers."""
    servers = Nameservers(2)
    servers.silent(0, 0)
    assert not servers.all_silent(1)
    servers.silent(1, 0)
    assert servers.all_silent(1)
    servers.answered(1)
    assert not servers.all_silent(1)


def test_a_silent_server_is_asked_last_for_a_while() -> None:
    """Longer with every silence, until it answers again."""
    servers = Nameservers(2)
    servers.silent(0, 0)
    servers.silent(0, 1)  # the other questions of the same moment
    assert servers.order(1) == (1, 0)
    assert servers.order(FIRST_AVOID_S) == (0, 1)
    now = 0.0
    for _ in range(10):
        now += MAX_AVOID_S
        servers.silent(0, now)
    assert servers.order(now + MAX_AVOID_S - 1) == (1, 0)
    assert servers.order(now + MAX_AVOID_S) == (0, 1)
    servers.silent(0, now + MAX_AVOID_S)
    servers.answered(0)
    assert servers.order(now + MAX_AVOID_S) == (0, 1)


def test_rotate() -> None:
    """With ``rotate`` each question begins with the next nameserver."""
    servers = Nameservers(3, rotate=True)
    assert [servers.order(0) for _ in range(4)] == [(0, 1, 2), (1, 2, 0), (2, 0, 1), (0, 1, 2)]


DOES = st.sampled_from(
    [ANSWER, NO, SERVFAIL, LAME, FORMERR, TRUNCATED, SILENCE, BROKEN, Meaning(ReplyKind.ALIAS)]
)


@given(st.integers(1, 3), st.integers(1, 3), st.booleans(), st.lists(DOES, min_size=40))
def test_every_course_ends_in_time(
    count: int, attempts: int, tcp: bool, does: list[Meaning | str]
) -> None:
    """Whatever nameservers do: the inquiry ends, within its lifetime, and believes no failure."""
    script: Iterator[Meaning | str] = iter(does * 3)
    servers = Nameservers(count)
    patience = Patience(timeout_s=1, attempts=attempts, lifetime_s=5, tcp=tcp)
    for _ in range(2):
        run = Run(servers, lambda _: next(script), patience)
        assert run.now <= 5
        assert len(run.tries) <= count * (attempts + 1) * 3
        if isinstance(run.result, Meaning):
            assert run.result.kind in (ReplyKind.RECORDS, ReplyKind.NO_NAME, ReplyKind.ALIAS)
        else:
            assert run.result.errors or patience.lifetime_s <= run.now
