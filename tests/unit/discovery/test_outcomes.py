"""What becomes of the replies to a question: records, addresses, a definite no, a failure."""

from __future__ import annotations

from supervisor.core.discovery.outcomes import join_families, srv_outcome
from supervisor.core.discovery.questions import Answer, Failure, Negative, SrvRecord
from supervisor.core.discovery.replies import Meaning, Record, ReplyKind


def meaning(*data: str, kind: str = "A", ttl_s: float = 60.0) -> Meaning:
    records = tuple(Record("name", kind, ttl_s, each) for each in data)
    return Meaning(ReplyKind.RECORDS, records=records, ttl_s=ttl_s)


def test_srv_records_are_read() -> None:
    """Priority, weight, port and target; a target "." beside others is one record of them."""
    outcome = srv_outcome(meaning("1 2 2379 a.example", "0 0 0 .", kind="SRV"))
    assert outcome == Answer(
        60.0, records=(SrvRecord(1, 2, 2379, "a.example"), SrvRecord(0, 0, 0, ""))
    )


def test_a_single_dot_is_a_definite_no() -> None:
    """RFC 2782: the service is decidedly not available at this domain."""
    assert isinstance(srv_outcome(meaning("0 0 0 .", kind="SRV")), Negative)


def test_both_families_are_joined_with_the_smaller_ttl() -> None:
    """All addresses of a host are one answer."""
    outcome = join_families({4: meaning("192.0.2.1"), 6: meaning("2001:db8::1", ttl_s=30.0)})
    assert outcome == Answer(30.0, addresses=("192.0.2.1", "2001:db8::1"))


def test_one_family_without_a_reply_is_noted() -> None:
    """What is there counts, and the other family's addresses may still be in use."""
    outcome = join_families({4: meaning("192.0.2.1"), 6: Failure("timeout")})
    assert outcome == Answer(
        60.0, addresses=("192.0.2.1",), unanswered=frozenset({6}), error="AAAA: timeout"
    )


def test_one_family_that_is_denied_is_no_error() -> None:
    """Most hosts have addresses of one family only."""
    outcome = join_families({4: meaning("192.0.2.1"), 6: Negative("no AAAA records", 5.0)})
    assert outcome == Answer(60.0, addresses=("192.0.2.1",))


def test_a_failure_beside_a_no_is_a_failure() -> None:
    """Nobody knows whether the host has addresses of the other family."""
    outcome = join_families({4: Negative("no A records", 5.0), 6: Failure("timeout", silent=True)})
    assert outcome == Failure("timeout", silent=True)
    both = join_families({4: Failure("SERVFAIL"), 6: Failure("SERVFAIL")})
    assert both == Failure("SERVFAIL")


def test_a_name_that_does_not_exist_needs_no_reply_about_the_other_family() -> None:
    """NXDOMAIN is about the name; but only if it is said of A, where it is never said in error."""
    no = Negative("NXDOMAIN", 5.0, no_name=True)
    assert join_families({4: no, 6: Failure("timeout")}) == Negative("NXDOMAIN", 5.0)
    assert join_families({4: Failure("timeout"), 6: no}) == Failure("timeout")
    assert join_families({4: no, 6: meaning("2001:db8::1")}) == Answer(
        60.0, addresses=("2001:db8::1",)
    )


def test_a_no_of_both_families_is_a_no() -> None:
    """With their common reason, or a general one, believed for the shorter time."""
    same = {4: Negative("NXDOMAIN", 9.0), 6: Negative("NXDOMAIN", 5.0)}
    assert join_families(same) == Negative("NXDOMAIN", 5.0)
    other = {4: Negative("no A records", 9.0), 6: Negative("no AAAA records", 5.0)}
    assert join_families(other) == Negative("no addresses", 5.0)
