"""What is remembered of DNS, and when it is asked again."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.core.discovery.answers import (
    FIRST_RETRY_S,
    MAX_FIRST_RETRY_S,
    MAX_JITTER_S,
    MAX_RETRY_S,
    MAX_TTL_S,
    MIN_TTL_S,
    Answers,
    Refresh,
)
from supervisor.core.discovery.endpoints import Discovered
from supervisor.core.discovery.questions import (
    Answer,
    Failure,
    Negative,
    Outcome,
    Question,
    QuestionKind,
    SrvRecord,
)

Q = Question(QuestionKind.HOST, "a.test")
OTHER = Question(QuestionKind.HOST, "b.test")
GOOD = Answer(60, addresses=("10.0.0.1",))
NO = Negative("NXDOMAIN", 60)
TTL = Refresh("ttl", confirm_s=30)


def take(answers: Answers, outcome: Outcome, now: float, refresh: Refresh = TTL) -> None:
    answers.take(Q, outcome, now=now, refresh=refresh, draw=lambda _: 0)


def test_what_was_never_asked_is_due() -> None:
    """A new question is due at once and has no outcome."""
    answers = Answers()
    assert answers.due([Q], 0) == (Q,)
    assert answers.lookup(Q) is None
    assert answers.next_at([Q, OTHER]) == math.inf
    assert not answers.trusted(Q)


@pytest.mark.parametrize(("ttl_s", "due_at"), [(0, MIN_TTL_S), (60, 60), (86400, MAX_TTL_S)])
def test_the_ttl_is_followed_within_its_clamp(ttl_s: float, due_at: float) -> None:
    """An answer is asked again after its TTL, no sooner than 5 s and no later than 5 min."""
    answers = Answers()
    take(answers, Answer(ttl_s, addresses=("10.0.0.1",)), 0)
    assert answers.next_at([Q, OTHER]) == due_at
    assert answers.due([Q], due_at - 0.1) == ()
    assert answers.due([Q, OTHER], due_at) == (Q, OTHER)
    assert answers.trusted(Q)


def test_jitter_is_a_tenth_and_thirty_seconds_at_most() -> None:
    """Jitter only delays, by a tenth of the TTL, which is thirty seconds of the longest."""
    answers = Answers()
    answers.take(Q, GOOD, now=0, refresh=TTL, draw=lambda n: n)
    assert answers.next_at([Q, OTHER]) == pytest.approx(66)
    answers.take(Q, Answer(0), now=0, refresh=TTL, draw=lambda n: n)
    assert answers.next_at([Q, OTHER]) == pytest.approx(5.5)
    due_at = answers.next_at([Q, OTHER])
    answers.take(Q, Answer(86400), now=due_at, refresh=TTL, draw=lambda n: n)
    assert answers.next_at([Q, OTHER]) - due_at == pytest.approx(MAX_TTL_S + MAX_JITTER_S) == 330


@pytest.mark.parametrize(
    ("refresh", "answer", "interval_s"),
    [(Refresh("fixed", 60), GOOD, 60), (TTL, Answer(86400, addresses=("10.0.0.1",)), MAX_TTL_S)],
)
def test_an_interval_of_ours_begins_anywhere(
    refresh: Refresh, answer: Answer, interval_s: float
) -> None:
    """After a start, and after a reload that asks early; not after a question that was due."""

    def ask(now: float) -> float:
        answers.take(Q, answer, now=now, refresh=refresh, draw=lambda n: n // 2)
        return answers.next_at([Q, OTHER]) - now

    answers = Answers()
    whole_s = interval_s * 1.05
    assert ask(0) == pytest.approx(whole_s / 2)
    assert ask(answers.next_at([Q, OTHER])) == pytest.approx(whole_s)
    assert ask(answers.next_at([Q, OTHER]) - 1) == pytest.approx(whole_s / 2)


def test_a_ttl_is_never_cut_short() -> None:
    """Before its end a cache would only give the old answer."""
    answers = Answers()
    answers.take(Q, GOOD, now=0, refresh=TTL, draw=lambda n: n // 2)
    assert answers.next_at([Q, OTHER]) == 63
    answers.take(Q, GOOD, now=30, refresh=TTL, draw=lambda n: n // 2)
    assert answers.next_at([Q, OTHER]) == 93


def test_a_fixed_interval_and_off() -> None:
    """A fixed interval replaces the TTL; off asks never again, but retries failures."""
    answers = Answers()
    take(answers, GOOD, 0, Refresh("fixed", 7))
    assert answers.next_at([Q, OTHER]) == 7
    take(answers, GOOD, 0, Refresh("off"))
    assert answers.next_at([Q, OTHER]) == math.inf
    take(answers, Failure("timeout"), 0, Refresh("off"))
    assert answers.next_at([Q, OTHER]) == FIRST_RETRY_S


def test_errors_keep_their_order() -> None:
    """A line of the log is said again when it changed; records that rotate are no change."""
    answers = Answers()
    for outcome in (GOOD, Failure("timeout")):
        for question in (Q, OTHER):
            answers.take(question, outcome, now=0, refresh=TTL, draw=lambda _: 0)
    told = ("host a.test: timeout", "host b.test: timeout")
    assert answers.errors([Q, OTHER]) == answers.errors([OTHER, Q]) == told


def test_last_good_is_kept_on_failure_and_retried_with_backoff() -> None:
    """A failure after a good answer keeps it; retries double up to the longest delay."""
    answers = Answers()
    take(answers, GOOD, 0)
    for expected in (0.5, 1, 2, 4, 8, 16, MAX_RETRY_S, MAX_RETRY_S):
        take(answers, Failure("timeout"), 100)
        assert answers.lookup(Q) == GOOD
        assert answers.next_at([Q, OTHER]) == 100 + expected
    assert answers.errors([Q]) == ("host a.test: timeout",)
    assert answers.errors([OTHER]) == ()
    assert not answers.trusted(Q)
    take(answers, GOOD, 200)
    assert answers.errors([Q]) == ()


def test_without_a_good_answer_retries_stay_quick() -> None:
    """While nothing is known, a failure is retried every few seconds for ever."""
    answers = Answers()
    for _ in range(50):
        take(answers, Failure("timeout"), 0)
    assert answers.next_at([Q, OTHER]) == MAX_FIRST_RETRY_S
    assert answers.lookup(Q) == Failure("timeout")
    assert answers.errors([Q]) == ()
    take(answers, Failure("timeout"), 0, Refresh("fixed", 2))
    assert answers.next_at([Q, OTHER]) == 2


def test_a_failure_after_a_no_keeps_the_no() -> None:
    """A name that was known to be absent stays so through a failure."""
    answers = Answers()
    take(answers, NO, 0)
    take(answers, Failure("timeout"), 1)
    assert answers.lookup(Q) == NO


def test_a_first_no_is_believed() -> None:
    """Without a good answer before, a definite no counts at once."""
    answers = Answers()
    take(answers, NO, 0)
    assert answers.lookup(Q) == NO
    assert answers.trusted(Q)
    assert answers.next_at([Q, OTHER]) == 60


def test_a_no_after_a_good_answer_is_distrusted_until_confirmed() -> None:
    """A no after a good answer counts once it was confirmed for long enough, and not before."""
    answers = Answers()
    take(answers, GOOD, 0)
    take(answers, NO, 100)
    assert answers.lookup(Q) == GOOD
    assert answers.errors([Q]) == ("host a.test: NXDOMAIN (not yet trusted)",)
    take(answers, Failure("timeout"), 110)
    take(answers, NO, 129)
    assert answers.lookup(Q) == GOOD
    assert answers.next_at([Q, OTHER]) == 130, "asked again when the confirmation would be complete"
    take(answers, NO, 130)
    assert answers.lookup(Q) == NO
    assert answers.trusted(Q)


def test_a_good_answer_ends_the_distrust() -> None:
    """A good answer in between starts the confirmation anew."""
    answers = Answers()
    take(answers, GOOD, 0)
    take(answers, NO, 10)
    take(answers, GOOD, 20)
    take(answers, NO, 45)
    assert answers.lookup(Q) == GOOD


def test_an_unanswered_family_keeps_its_last_good_addresses() -> None:
    """If only AAAA failed, the IPv6 addresses known before stay beside the new IPv4 ones."""
    answers = Answers()
    take(answers, Answer(60, addresses=("10.0.0.1", "fd00::1")), 0)
    late = Answer(60, addresses=("10.0.0.2",), unanswered=frozenset({6}), error="AAAA: timeout")
    take(answers, late, 1)
    held = answers.lookup(Q)
    assert isinstance(held, Answer)
    assert held.addresses == ("10.0.0.2", "fd00::1")
    assert answers.errors([Q]) == ("host a.test: AAAA: timeout",)


def test_an_unanswered_family_without_a_past_is_no_obstacle() -> None:
    """If AAAA never answered, the IPv4 addresses alone are the answer."""
    answers = Answers()
    late = Answer(60, addresses=("10.0.0.2",), unanswered=frozenset({6}), error="AAAA: timeout")
    take(answers, late, 1)
    assert answers.lookup(Q) == late


def test_an_answer_of_one_family_is_an_answer() -> None:
    """A nameserver that never answers AAAA is no failure of DNS, until nothing is answered."""
    answers = Answers()
    take(answers, Answer(60, addresses=("10.0.0.2",), unanswered=frozenset({6}), error="x"), 0)
    assert answers.trusted(Q)
    take(answers, Failure("timeout"), 60)
    assert not answers.trusted(Q)
    take(answers, GOOD, 61)
    take(answers, NO, 62)
    assert not answers.trusted(Q)


def test_an_answer_of_no_use_is_asked_for_again_soon() -> None:
    """A family got no answer, and this host has no way to the other one's addresses: the rest of
    the answer may be all that it can use. After a while it is asked for less often."""
    answers = Answers()
    half = Answer(60, addresses=("fd00::1",), unanswered=frozenset({4}), error="A: timeout")
    waited, now = [], 0.0
    for _ in range(8):
        answers.take(Q, half, now=now, refresh=TTL, draw=lambda _: 0, useless=True)
        waited.append(answers.next_at([Q]) - now)
        now = answers.next_at([Q])
    assert waited == [0.5, 1, 2, 4, 8, 16, 30, 30]
    take(answers, half, now)
    assert answers.next_at([Q]) - now == 60
    answers.take(Q, half, now=now, refresh=TTL, draw=lambda _: 0, useless=True)
    assert answers.next_at([Q]) - now == 0.5
    half = Answer(6, addresses=("fd00::1",), unanswered=frozenset({4}), error="A: timeout")
    for _ in range(8):
        answers.take(Q, half, now=now, refresh=TTL, draw=lambda _: 0, useless=True)
    assert answers.next_at([Q]) - now == 6


def test_questions_of_no_interest_are_forgotten_and_copies_are_independent() -> None:
    """keep() forgets the others; a copy goes its own way."""
    answers = Answers()
    take(answers, GOOD, 0)
    twin = answers.copy()
    answers.keep([OTHER])
    assert answers.lookup(Q) is None
    assert twin.lookup(Q) == GOOD


def test_the_search_list_counts_for_some_hosts() -> None:
    """For those that are held by a question of that kind."""
    answers = Answers()
    answers.remember([Discovered("a.test:1", "a.test", 1, ("10.0.0.1",))], 0.0)
    assert answers.searched == {"a.test"}
    answers.keep([Q])
    assert answers.searched == set()


@pytest.mark.parametrize(
    ("refresh", "step_s"),
    [
        (TTL, 5.0),
        (Refresh("off", confirm_s=30), 5.0),
        (Refresh("fixed", 2.0, confirm_s=30), 2.0),
        (Refresh("ttl", confirm_s=90), 15.0),
        (Refresh("ttl", confirm_s=3600), 30.0),
        (Refresh("ttl", confirm_s=3), 3.0),
    ],
)
def test_a_no_of_a_moment_is_asked_about_again_before_it_is_believed(
    refresh: Refresh, step_s: float
) -> None:
    """Two short denials, half a minute apart, must not look like one that lasts."""
    answers = Answers()
    take(answers, GOOD, 0, refresh)
    take(answers, NO, 100, refresh)
    assert answers.next_at([Q]) == 100 + step_s
    take(answers, GOOD, 100 + step_s, refresh)
    take(answers, NO, 200, refresh)
    assert answers.lookup(Q) == GOOD


OUTCOMES = st.lists(st.tuples(st.sampled_from([GOOD, NO, Failure("x")]), st.floats(0, 100)))


@given(OUTCOMES, st.sampled_from([TTL, Refresh("fixed", 9), Refresh("off")]), st.floats(0, 0.999))
def test_a_good_answer_is_lost_only_by_a_confirmed_no(
    outcomes: list[tuple[Outcome, float]], refresh: Refresh, draw: int
) -> None:
    """Whatever comes in whatever rhythm: the next question lies ahead, and a good answer is held
    unless noes were heard, and no good answer, for the whole time of confirmation."""
    answers, now, good_at, no_at = Answers(), 0.0, None, None
    for outcome, delay_s in outcomes:
        now += delay_s
        answers.take(Q, outcome, now=now, refresh=refresh, draw=lambda _: draw)
        assert answers.next_at([Q, OTHER]) > now
        if outcome == GOOD:
            good_at, no_at = now, None
        elif outcome == NO and good_at is not None:
            no_at = now if no_at is None else no_at
            if now - no_at >= refresh.confirm_s:
                good_at = None
        assert (answers.lookup(Q) == GOOD) == (good_at is not None)


def test_what_a_former_master_had_in_use_is_held_and_asked_for_at_once() -> None:
    """Its records under the names that named them, its addresses for both kinds of host names."""
    owner, other = "_etcd-client._tcp.test", "_etcd-client-ssl._tcp.test"
    found = (
        Discovered("a.test:1", "a.test", 1, ("10.0.0.1",), 0, 5, srv=True, owners=(owner,)),
        Discovered("b.test:2", "b.test", 2, ("10.0.0.2",), 1, 6, srv=True, owners=(owner, other)),
        Discovered("c.test:3", "c.test", 3, ("10.0.0.3",)),
        Discovered("d.test:1", "d.test", 1, ("10.0.0.4", "10.0.0.5")),
        Discovered("d.test:2", "d.test", 2, ("10.0.0.5",)),
    )
    answers = Answers()
    answers.remember(found, 7.0)
    srv = Question(QuestionKind.SRV, owner)
    a, b = SrvRecord(0, 5, 1, "a.test"), SrvRecord(1, 6, 2, "b.test")
    assert answers.lookup(srv) == Answer(0.0, records=(a, b))
    assert answers.lookup(Question(QuestionKind.SRV, other)) == Answer(0.0, records=(b,))
    for kind in (QuestionKind.HOST, QuestionKind.SEARCH):
        assert answers.lookup(Question(kind, "c.test")) == Answer(0.0, addresses=("10.0.0.3",))
    of_both_ports = answers.lookup(Question(QuestionKind.HOST, "d.test"))
    assert of_both_ports == Answer(0.0, addresses=("10.0.0.4", "10.0.0.5"))
    assert answers.due([srv, Q], 7.0) == (srv, Q)
    answers.take(srv, Failure("SERVFAIL"), now=7.0, refresh=TTL, draw=lambda _: 0)
    assert answers.lookup(srv) == Answer(0.0, records=(a, b))
    assert answers.errors([srv]) == (f"SRV {owner}: SERVFAIL",)
