"""DNS messages on the wire: queries are composed and replies parsed, by dnspython."""

from __future__ import annotations

import struct

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from gateway.core.records import dataclass
from supervisor.core.discovery.replies import Record, Reply

EDNS_PAYLOAD_BYTES = 1232
"""Fits one unfragmented packet everywhere (DNS flag day 2020); longer answers come over TCP."""

HEADER = struct.Struct("!HHHHHH")
QR, OPCODE, TC, RCODE = 0x8000, 0x7800, 0x0200, 0x000F
"""Masks of the header's second word (RFC 1035, 4.1.1)."""

NOERROR, NXDOMAIN = 0, 3


class BadNameError(ValueError):
    """The name cannot be asked for; the text says why."""


class MalformedReplyError(Exception):
    """The reply answers our query and cannot be parsed."""


@dataclass(frozen=True, slots=True)
class Query:
    """One query: ``wire`` is what is sent; ``question`` its question section as sent."""

    wire: bytes
    question: bytes

    @property
    def id(self) -> bytes:
        return self.wire[:2]


def compose_query(name: str, kind: str, *, edns: bool) -> Query:
    """A query for the records ``kind`` of the absolute name; raises BadNameError."""
    try:
        message = dns.message.make_query(
            dns.name.from_text(name),
            kind,
            use_edns=0 if edns else False,
            payload=EDNS_PAYLOAD_BYTES,
        )
        plain = dns.message.make_query(message.question[0].name, kind, use_edns=False)
        return Query(message.to_wire(), plain.to_wire()[HEADER.size :])
    except (dns.exception.DNSException, ValueError) as error:
        raise BadNameError(f"{name!r} cannot be asked for: {error}") from None


def parse_reply(wire: bytes, query: Query) -> Reply | None:
    """The reply to ``query``; None if the bytes are something else.

    Bytes behind the message are ignored, as glibc and Go ignore them.
    Raises MalformedReplyError for a reply to this very query that makes no sense.
    """
    if not _answers(wire, query):
        return None
    if HEADER.unpack_from(wire)[1] & TC:
        return Reply(truncated=True)  # the rest may end in the middle of a record
    try:
        message = dns.message.from_wire(wire, ignore_trailing=True)
        return _reply(message)
    except (dns.exception.DNSException, ValueError, struct.error) as error:
        raise MalformedReplyError(f"a malformed reply ({type(error).__name__})") from None


def _answers(wire: bytes, query: Query) -> bool:
    """Whether this is a reply to the query: same id, same question.

    The question may be missing where the server says that it did not understand the query.
    """
    if len(wire) < HEADER.size or wire[:2] != query.id:
        return False
    _, flags, questions, *_ = HEADER.unpack_from(wire)
    if not flags & QR or flags & OPCODE:
        return False
    if questions == 0:
        return flags & RCODE not in (NOERROR, NXDOMAIN)
    question = wire[HEADER.size : HEADER.size + len(query.question)]
    # Letters of labels are below 64 in no length byte, so lower() changes none of these.
    return questions == 1 and question.lower() == query.question.lower()


def _reply(message: dns.message.Message) -> Reply:
    soas = [each for each in message.authority if each.rdtype == dns.rdatatype.SOA]
    return Reply(
        rcode=dns.rcode.to_text(message.rcode()),
        authoritative=bool(message.flags & dns.flags.AA),
        recursive=bool(message.flags & dns.flags.RA),
        answer=tuple(
            Record(
                _text(rrset.name),
                dns.rdatatype.to_text(rrset.rdtype),
                _ttl_s(rrset.ttl),
                _data(rdata),
            )
            for rrset in message.answer
            if rrset.rdclass == dns.rdataclass.IN
            for rdata in rrset
        ),
        soa_ttl_s=min(
            (min(_ttl_s(soa.ttl), _ttl_s(each.minimum)) for soa in soas for each in soa),
            default=None,
        ),
        referral=any(each.rdtype == dns.rdatatype.NS for each in message.authority),
    )


def _ttl_s(ttl: int) -> float:
    """A TTL with the highest bit set means 0 (RFC 2181, 8)."""
    return float(ttl) if ttl < 2**31 else 0.0


def _data(rdata: object) -> str:
    """The record's data as zone files have it, with names in lower case without the last dot.

    The root, which is the target of an SRV record for no service, stays a dot.
    """
    text = str(rdata).lower()
    return text if text.split(" ")[-1] == "." else text.removesuffix(".")


def _text(name: dns.name.Name) -> str:
    return name.to_text(omit_final_dot=True).lower()
