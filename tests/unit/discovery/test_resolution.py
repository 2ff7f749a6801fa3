"""The value of one resolution: how DNS did, and what is said of it."""

from __future__ import annotations

import pytest

from supervisor.core.discovery.endpoints import Problem
from supervisor.core.discovery.questions import Question, QuestionKind
from supervisor.core.discovery.resolution import DnsResult, Resolution, judge_dns

SSL, PLAIN = Question(QuestionKind.SRV, "_ssl.test"), Question(QuestionKind.SRV, "_plain.test")
ONE, TWO = Question(QuestionKind.HOST, "one.test"), Question(QuestionKind.HOST, "two.test")


@pytest.mark.parametrize(
    ("owners", "hosts", "trusted", "expected"),
    [
        ([], [], [], DnsResult.NOT_ASKED),
        ([SSL, PLAIN], [ONE], [SSL, PLAIN], DnsResult.SUCCESS),
        ([SSL, PLAIN], [ONE], [SSL, ONE], DnsResult.FAILURE),
        ([], [ONE, TWO], [TWO], DnsResult.SUCCESS),
        ([], [ONE, TWO], [], DnsResult.FAILURE),
    ],
)
def test_every_srv_question_counts_and_one_host_is_enough(
    owners: list[Question], hosts: list[Question], trusted: list[Question], expected: DnsResult
) -> None:
    """An SRV question that fails may hide every endpoint; a host that fails hides itself."""
    assert judge_dns(owners, hosts, trusted.__contains__) is expected


def test_what_was_left_out_is_said_with_its_reason() -> None:
    """A refusal, a check that waits and a loop are told apart, and all of them in the error."""
    result = Resolution(
        problems=(Problem("host a: NXDOMAIN", definite=True),),
        refused={"b:1": "does not speak TLS"},
        waiting={"c:1": "timeout"},
        loops={"d:1": "0.0.0.0:1"},
        stale=("host e: SERVFAIL",),
    )
    assert result.incomplete == "host a: NXDOMAIN; host e: SERVFAIL"
    assert result.error == (
        "host a: NXDOMAIN; host e: SERVFAIL; b:1: does not speak TLS; c:1: TLS check: timeout;"
        " d:1: is the gateway's own listen address 0.0.0.0:1"
    )
    assert not result.definite
    assert Resolution(problems=result.problems).definite
