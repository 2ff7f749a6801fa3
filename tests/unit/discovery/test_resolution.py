"""The value of one resolution: how DNS did, and what is said of it."""

from __future__ import annotations

import pytest

from supervisor.core.discovery.endpoints import Discovered, Problem
from supervisor.core.discovery.questions import Question, QuestionKind
from supervisor.core.discovery.resolution import MAX_ERRORS, DnsResult, Resolution, judge_dns

SRV = Question(QuestionKind.SRV, "_x.test")
ONE, TWO = Question(QuestionKind.HOST, "one.test"), Question(QuestionKind.HOST, "two.test")


@pytest.mark.parametrize(
    ("in_use", "trusted", "asked", "expected"),
    [
        ([], [], False, DnsResult.NO_NAMES),
        ([SRV, ONE], [SRV, ONE], False, DnsResult.NOT_ASKED),
        ([SRV, ONE, TWO], [SRV, ONE, TWO], True, DnsResult.SUCCESS),
        ([SRV, ONE, TWO], [ONE, TWO], True, DnsResult.FAILURE),
        ([SRV, ONE, TWO], [SRV, ONE], True, DnsResult.FAILURE),
    ],
)
def test_every_name_in_use_counts(
    in_use: list[Question], trusted: list[Question], asked: bool, expected: DnsResult
) -> None:
    """One that fails makes each resolution a failure, whether it was due in it or not."""
    assert judge_dns(in_use, trusted.__contains__, asked=asked) is expected


def test_what_was_left_out_is_said_with_its_reason() -> None:
    """A refusal, a check that waits and a loop are told apart, and all of them in the error."""
    result = Resolution(
        problems=(Problem("host a: NXDOMAIN", definite=True),),
        refused={"b:1": "does not speak TLS"},
        waiting={"c:1": "timeout"},
        loops={"d:1": "0.0.0.0:1"},
        stale=("host e: SERVFAIL",),
    )
    assert result.incomplete == "host e: SERVFAIL; host a: NXDOMAIN"
    assert result.error == (
        "host e: SERVFAIL; host a: NXDOMAIN; b:1: does not speak TLS; c:1: TLS check: timeout;"
        " d:1: is the gateway's own listen address 0.0.0.0:1"
    )
    assert not result.definite
    assert Resolution(problems=result.problems).definite


def test_failures_are_not_hidden_by_what_is_definite() -> None:
    """Records that are wrong for good are told behind the failures, which come and go."""
    wrong = tuple(Problem(f"record {n}: port 0", definite=True) for n in range(MAX_ERRORS))
    failed = Problem("host a: timeout", definite=False)
    result = Resolution(problems=(*wrong, failed), stale=("host b: SERVFAIL",))
    assert result.error.startswith("host b: SERVFAIL; host a: timeout; record 0: port 0; ")
    assert result.incomplete == result.error


def test_an_endpoint_that_is_used_is_not_told_as_left_out() -> None:
    """What is wrong with one of its addresses is told all the same."""
    both = Discovered("a:1", "a", 1, ("10.0.0.1",))
    result = Resolution((both,), refused={"a:1": "speaks no TLS", "b:1": "speaks no TLS"})
    assert result.left_out == {"b:1": "speaks no TLS"}
    assert result.partly_used == {"a:1": "speaks no TLS"}
    assert result.error == "a:1: speaks no TLS; b:1: speaks no TLS"
