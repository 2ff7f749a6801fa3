"""SRV records of which nothing can be used, in place of others that led somewhere."""

from __future__ import annotations

import pytest

from supervisor.core.discovery.dead_end import find_dead_ends
from supervisor.core.discovery.questions import (
    Answer,
    Failure,
    Negative,
    Outcome,
    Question,
    QuestionKind,
    SrvRecord,
)
from supervisor.core.discovery.targets import Owner

SSL, PLAIN = Owner("_a-ssl._tcp.test", tls=True), Owner("_a._tcp.test", tls=False)
OWNERS = (SSL, PLAIN)
OLD, NEW = SrvRecord(0, 0, 1, "old.test"), SrvRecord(0, 0, 1, "new.test")
ADDRESS = Answer(60, addresses=("10.0.0.1",))
NO, FAILURE = Negative("NXDOMAIN", 60), Failure("SERVFAIL")
BEFORE: dict[Question, Outcome] = {SSL.question: NO, PLAIN.question: Answer(60, (OLD,))}


def find(
    new: Outcome | None, *, records: tuple[SrvRecord, ...] = (NEW,), old: Outcome = ADDRESS
) -> dict[Question, Negative | Failure]:
    held: dict[Question, Outcome | None] = {
        SSL.question: NO,
        PLAIN.question: Answer(9, records),
        Question(QuestionKind.HOST, "old.test"): old,
        Question(QuestionKind.HOST, "new.test"): new,
    }
    return find_dead_ends(OWNERS, held.get, BEFORE)


def test_targets_without_addresses_are_a_no() -> None:
    """It is believed as a no is, after the time that the answer itself gives."""
    outcome = find(NO)[PLAIN.question]
    assert isinstance(outcome, Negative)
    assert outcome.ttl_s == 9
    assert outcome.error.startswith(
        "the new records lead nowhere: host new.test (SRV _a._tcp.test): NXDOMAIN"
    )


@pytest.mark.parametrize("outcome", [FAILURE, None])
def test_targets_that_cannot_be_looked_up_are_a_failure(outcome: Outcome | None) -> None:
    """Nobody knows what they have."""
    assert isinstance(find(outcome)[PLAIN.question], Failure)


def test_records_that_cannot_be_used_are_a_no() -> None:
    """Port 0, for example."""
    assert isinstance(find(NO, records=(SrvRecord(0, 0, 0, "old.test"),))[PLAIN.question], Negative)


def test_records_that_lead_somewhere_are_used() -> None:
    """One target that has an address is enough; literal addresses need none."""
    assert find(ADDRESS) == {}
    assert find(NO, records=(NEW, OLD)) == {}
    assert find(NO, records=(SrvRecord(0, 0, 1, "10.0.0.9"),)) == {}


def test_nothing_better_is_known() -> None:
    """Records that are no others, or others that led nowhere either, are no way back."""
    assert find(NO, records=(OLD,), old=NO) == {}
    assert find(NO, old=NO) == {}
    assert find_dead_ends(OWNERS, {PLAIN.question: NO}.get, BEFORE) == {}
    assert find_dead_ends(OWNERS, {PLAIN.question: Answer(9, (NEW,))}.get, {}) == {}
