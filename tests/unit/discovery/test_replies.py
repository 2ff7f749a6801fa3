"""What a reply means: an answer, a definite no, or a failure of the server that sent it."""

from __future__ import annotations

import itertools

import pytest

from supervisor.core.discovery.replies import (
    DEFAULT_NEGATIVE_TTL_S,
    MAX_ALIASES,
    Meaning,
    Record,
    Reply,
    ReplyKind,
    read_meaning,
)

ONE = Record("web.test", "A", 60, "10.0.0.1")
ALIAS = Record("web.test", "CNAME", 5, "real.test")
REAL = Record("real.test", "A", 60, "10.0.0.1")


def read(reply: Reply, *, edns: bool = True) -> Meaning:
    return read_meaning(reply, "web.test", "A", edns=edns)


def test_records_and_aliases() -> None:
    """The records of the name count, or those at the end of its aliases, with the smallest TTL."""
    assert read(Reply(answer=(ONE,))).records == (ONE,)
    meaning = read(Reply(answer=(ALIAS, REAL, Record("other.test", "A", 1, "10.0.0.9"))))
    assert (meaning.kind, meaning.records, meaning.ttl_s) == (ReplyKind.RECORDS, (REAL,), 5)


def test_an_alias_that_ends_in_the_reply_is_asked_for() -> None:
    """A server that is not responsible for the target leaves it to us to ask."""
    meaning = read(Reply(answer=(ALIAS,)))
    assert (meaning.kind, meaning.alias, meaning.ttl_s) == (ReplyKind.ALIAS, "real.test", 5)


def test_an_alias_without_records_is_a_no_if_an_soa_says_so() -> None:
    """With an SOA record the server speaks for the target too."""
    meaning = read(Reply(answer=(ALIAS,), soa_ttl_s=30))
    assert (meaning.kind, meaning.ttl_s) == (ReplyKind.NO_RECORDS, 5)


def test_a_renamed_domain_is_an_alias() -> None:
    """A DNAME stands before the alias that was made of it (RFC 6672), and is not the answer."""
    domain = Record("test", "DNAME", 60, "new.test")
    alias = Record("web.test", "CNAME", 5, "web.new.test")
    real = Record("web.new.test", "A", 60, "10.0.0.1")
    assert read(Reply(answer=(domain, alias, real))).records == (real,)
    no = read(Reply(answer=(domain, alias), soa_ttl_s=30, authoritative=True))
    assert (no.kind, no.ttl_s) == (ReplyKind.NO_RECORDS, 5)


@pytest.mark.parametrize(
    ("aliases", "kind"),
    [(MAX_ALIASES, ReplyKind.RECORDS), (MAX_ALIASES + 1, ReplyKind.FAILED)],
)
def test_the_longest_chain(aliases: int, kind: ReplyKind) -> None:
    """So many aliases are followed, and no more."""
    names = ["web.test", *(f"{i}.test" for i in range(aliases))]
    chain = (Record(a, "CNAME", 5, b) for a, b in itertools.pairwise(names))
    reply = Reply(answer=(*chain, Record(names[-1], "A", 60, "10.0.0.1")))
    assert read(reply).kind is kind


@pytest.mark.parametrize("length", [MAX_ALIASES, 1])
def test_endless_aliases_are_a_failure(length: int) -> None:
    """Neither a long chain nor a ring of aliases is followed for ever."""
    ring = tuple(
        Record(f"{i}.test" if i else "web.test", "CNAME", 1, f"{(i + 1) % length or 'web'}.test")
        for i in range(length)
    )
    assert read(Reply(answer=ring)).kind is ReplyKind.FAILED


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (Reply(rcode="NXDOMAIN"), ReplyKind.NO_NAME),
        (Reply(rcode="SERVFAIL"), ReplyKind.FAILED),
        (Reply(rcode="REFUSED", recursive=True), ReplyKind.FAILED),
        (Reply(rcode="FORMERR"), ReplyKind.NO_EDNS),
        (Reply(rcode="NOTIMP"), ReplyKind.NO_EDNS),
        (Reply(rcode="BADVERS"), ReplyKind.NO_EDNS),
        (Reply(truncated=True), ReplyKind.TRUNCATED),
        (Reply(authoritative=True), ReplyKind.NO_RECORDS),
        (Reply(recursive=True), ReplyKind.NO_RECORDS),
        (Reply(soa_ttl_s=3), ReplyKind.NO_RECORDS),
        (Reply(soa_ttl_s=3, referral=True), ReplyKind.NO_RECORDS),
        (Reply(authoritative=True, referral=True), ReplyKind.NO_RECORDS),
        (Reply(), ReplyKind.FAILED),
        (Reply(referral=True), ReplyKind.FAILED),
        (Reply(referral=True, recursive=True), ReplyKind.FAILED),
        (Reply(answer=(REAL,), authoritative=True), ReplyKind.FAILED),
        (Reply(answer=(Record("web.test", "AAAA", 9, "::1"),), recursive=True),
         ReplyKind.NO_RECORDS),
    ],
)  # fmt: skip
def test_what_counts_as_a_no(reply: Reply, kind: ReplyKind) -> None:
    """A no needs a server that speaks for the name; a lame answer is that server's failure."""
    meaning = read(reply)
    assert meaning.kind is kind
    assert meaning.text


def test_without_an_opt_record_edns_is_not_to_blame() -> None:
    """FORMERR to a plain query is a failure."""
    assert read(Reply(rcode="FORMERR"), edns=False).kind is ReplyKind.FAILED


def test_how_long_a_no_is_believed() -> None:
    """The SOA record says it; without one it is a guess."""
    assert read(Reply(rcode="NXDOMAIN", soa_ttl_s=7)).ttl_s == 7
    assert read(Reply(rcode="NXDOMAIN")).ttl_s == DEFAULT_NEGATIVE_TTL_S


def test_flags_are_written_as_dig_writes_them() -> None:
    """The trace shows who claimed what."""
    assert Reply(authoritative=True, recursive=True).flags == ("aa", "ra")
    assert Reply(truncated=True).flags == ("tc",)
