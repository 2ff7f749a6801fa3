"""What one reply of a nameserver means: an answer, a definite no, or a failure of that server.

A :class:`Reply` is the message as plain data; the shell parses the wire format.
The rules are those of RFC 1034 and RFC 2308, and of what resolvers had to learn since: a server
that is not responsible for a name often answers NOERROR with nothing, or with a referral, and such
a *lame* answer says nothing about the name (glibc, res_send.c; Go, issue 15434).
"""

from __future__ import annotations

import enum
from collections.abc import Sequence

from gateway.core.records import dataclass

MAX_ALIASES = 16
"""The longest chain of CNAME records that is followed, in one reply or over several."""

DEFAULT_NEGATIVE_TTL_S = 60.0
"""How long a definite no is believed if the reply has no SOA record that says it (RFC 2308)."""

ALIAS_KINDS = ("CNAME", "DNAME")
"""What leads from one name to another. A DNAME is of a domain, and is followed by the CNAME that it
stands for (RFC 6672)."""

NO_EDNS_CODES = ("FORMERR", "NOTIMP", "BADVERS")
"""What servers say that do not understand an OPT record (RFC 6891, 7)."""


@dataclass(frozen=True, slots=True)
class Record:
    """One resource record; ``owner`` and names in ``data`` in lower case, without the last dot."""

    owner: str
    kind: str
    ttl_s: float
    data: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One DNS message. ``rcode`` is its name in upper case, such as ``NOERROR``.

    ``soa_ttl_s``: how long a negative answer may be believed, None without an SOA record.
    ``referral``: the authority section has NS records.
    """

    rcode: str = "NOERROR"
    authoritative: bool = False
    recursive: bool = False
    truncated: bool = False
    answer: tuple[Record, ...] = ()
    soa_ttl_s: float | None = None
    referral: bool = False

    @property
    def flags(self) -> tuple[str, ...]:
        """The header's flags that matter here, as ``dig`` writes them."""
        flags = (
            ("aa", self.authoritative),
            ("tc", self.truncated),
            ("ra", self.recursive),
        )
        return tuple(name for name, is_set in flags if is_set)


class ReplyKind(enum.StrEnum):
    """What a reply means for the question."""

    RECORDS = "answer"
    ALIAS = "alias"
    """The name is an alias, and the reply ends there: ask for its target."""
    NO_NAME = "no such name"
    NO_RECORDS = "no such records"
    TRUNCATED = "truncated"
    NO_EDNS = "no EDNS"
    """The server may have stumbled over the OPT record."""
    FAILED = "failed"
    """The server could not answer, or what it said is no answer to the question."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """A reply's meaning; ``text`` says why it is no answer, "" if it is one.

    ``ttl_s``: the smallest TTL on the way, aliases included, or how long to believe a no.
    ``alias``: the last name of the chain of aliases, the asked name itself if there is none.
    """

    kind: ReplyKind
    text: str = ""
    records: tuple[Record, ...] = ()
    ttl_s: float = DEFAULT_NEGATIVE_TTL_S
    alias: str = ""


def read_meaning(reply: Reply, name: str, kind: str, *, edns: bool) -> Meaning:
    """What ``reply`` says of the records ``kind`` of ``name``.

    ``edns``: the query had an OPT record.
    """
    if reply.truncated:
        return Meaning(ReplyKind.TRUNCATED, "truncated")
    no_ttl_s = DEFAULT_NEGATIVE_TTL_S if reply.soa_ttl_s is None else reply.soa_ttl_s
    if reply.rcode == "NXDOMAIN":
        return Meaning(ReplyKind.NO_NAME, "NXDOMAIN", ttl_s=no_ttl_s)
    if edns and reply.rcode in NO_EDNS_CODES:
        return Meaning(ReplyKind.NO_EDNS, reply.rcode)
    if reply.rcode != "NOERROR":
        return Meaning(ReplyKind.FAILED, reply.rcode)
    chain = _follow_aliases(reply.answer, name)
    if chain is None:
        return Meaning(ReplyKind.FAILED, "a chain of aliases that does not end")
    last, alias_ttl_s = chain
    records = tuple(each for each in reply.answer if each.owner == last and each.kind == kind)
    if records:
        ttl_s = min(alias_ttl_s, *(each.ttl_s for each in records))
        return Meaning(ReplyKind.RECORDS, records=records, ttl_s=ttl_s, alias=last)
    if last != name and reply.soa_ttl_s is None:
        return Meaning(ReplyKind.ALIAS, ttl_s=alias_ttl_s, alias=last)
    if text := _lame(reply, last):
        return Meaning(ReplyKind.FAILED, text)
    ttl_s = min(alias_ttl_s, no_ttl_s)
    return Meaning(ReplyKind.NO_RECORDS, f"no {kind} records", ttl_s=ttl_s, alias=last)


def _follow_aliases(answer: Sequence[Record], name: str) -> tuple[str, float] | None:
    """The last name of the chain that begins at ``name``, and its smallest TTL; None if endless."""
    aliases = {each.owner: each for each in answer if each.kind == "CNAME"}
    ttl_s = float("inf")
    for _ in range(MAX_ALIASES + 1):
        alias = aliases.get(name)
        if alias is None:
            return name, ttl_s
        name, ttl_s = alias.data, min(ttl_s, alias.ttl_s)
    return None


def _lame(reply: Reply, name: str) -> str:
    """Why a reply without the records says nothing about the name; "" if it is a definite no."""
    if any(each.owner != name and each.kind not in ALIAS_KINDS for each in reply.answer):
        return "an answer to another question"
    if reply.authoritative or reply.soa_ttl_s is not None:
        return ""
    if reply.referral:
        return "a lame answer (a referral)"
    return "" if reply.recursive else "a lame answer (nothing, and neither AA nor RA)"
