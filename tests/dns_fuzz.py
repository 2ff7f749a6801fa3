"""Replies of nameservers that are wrong in every way, and what may follow from each of them.

A case begins with an honest reply to a query and is then changed: bytes, flags, counts, records of
other names and types, pointers, its end. What may follow is decided here by reading the bytes anew,
with a small parser that shares nothing with the one under test.
"""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

from supervisor.core.discovery.outcomes import srv_record
from supervisor.core.discovery.replies import Meaning, ReplyKind, read_meaning
from supervisor.discovery.dns_message import (
    MalformedReplyError,
    Query,
    compose_query,
    parse_reply,
)

HEADER = struct.Struct("!HHHHHH")
QR, OPCODE, AA, TC, RA, RCODE = 0x8000, 0x7800, 0x0400, 0x0200, 0x0080, 0x000F
NAMES = ("web.fuzz.test", "alias.fuzz.test", "other.test", "x." * 60 + "test", "fuzz.test")
KINDS = ("A", "AAAA", "SRV")
DATA = {
    "A": ("10.0.0.1", "10.0.0.2", "0.0.0.0"),
    "AAAA": ("fd00::1", "::ffff:10.0.0.1"),
    "SRV": ("0 0 1 web.fuzz.test.", "1 2 65535 .", "0 0 0 other.test."),
    "CNAME": ("alias.fuzz.test.", "web.fuzz.test.", "other.test."),
    "NS": ("ns.other.test.",),
    "SOA": ("ns.test. admin.test. 1 2 3 4 5", "ns.test. admin.test. 1 2 3 4 4294967295"),
    "TXT": ('"' + "x" * 200 + '"',),
}
TTLS = (0, 5, 300, 2**31 - 1)


@dataclass(frozen=True, slots=True)
class Case:
    """One query and the bytes that came for it."""

    query: Query
    name: str
    kind: str
    wire: bytes


class Cases:
    """Makes cases; the same seed makes the same ones, and only a few hundred begin differently."""

    def __init__(self, seed: int, beginnings: int = 300) -> None:
        self._chance = chance = random.Random(seed)
        self._beginnings = []
        for _ in range(beginnings):
            name, kind = chance.choice(NAMES), chance.choice(KINDS)
            query = compose_query(name, kind, edns=chance.random() < 0.5)
            self._beginnings.append(Case(query, name, kind, _reply(query, name, kind, chance)))

    def next(self) -> Case:
        return _damaged(self._chance.choice(self._beginnings), self._chance)


def make_reply(query: Query, name: str, kind: str, chance: random.Random) -> Case:
    """A wrong reply to this query, or by chance an honest one."""
    return _damaged(Case(query, name, kind, _reply(query, name, kind, chance)), chance)


def _damaged(case: Case, chance: random.Random) -> Case:
    wire = bytearray(case.wire)
    for _ in range(chance.choice((0, 0, 1, 1, 2, 5))):
        _damage(wire, chance)
    return Case(case.query, case.name, case.kind, bytes(wire))


def check(case: Case) -> Meaning | None:
    """Read the case as the resolver does, and hold what follows against the bytes.

    Returns the meaning, None if the bytes are no reply. An AssertionError is a finding; so is any
    other exception.
    """
    try:
        reply = parse_reply(case.wire, case.query)
    except MalformedReplyError:
        assert _answers(case), "bytes that answer another query were not ignored"
        return None
    if reply is None:
        return None
    assert _answers(case), "a reply to another query was taken"
    meaning = read_meaning(reply, case.name, case.kind, edns=True)
    flags = HEADER.unpack_from(case.wire)[1]
    rcode = flags & RCODE
    match meaning.kind:
        case ReplyKind.RECORDS:
            assert rcode == 0
            assert not flags & TC
            assert meaning.records
            for record in meaning.records:
                assert record.kind == case.kind
                assert _in_wire(record.data, case), "a record that was not in the reply"
            if case.kind == "SRV":
                for record in meaning.records:
                    assert 0 <= srv_record(record.data).port <= 65535
        case ReplyKind.NO_NAME:
            assert rcode == 3
            assert not flags & TC
        case ReplyKind.NO_RECORDS:
            assert rcode == 0
            assert flags & (AA | RA) or reply.soa_ttl_s is not None, "a lame answer was believed"
        case ReplyKind.ALIAS:
            assert rcode == 0
            assert meaning.alias != case.name
        case ReplyKind.TRUNCATED:
            assert flags & TC
        case ReplyKind.NO_EDNS | ReplyKind.FAILED:
            assert meaning.text
    assert 0 <= meaning.ttl_s < 2**31
    return meaning


def _answers(case: Case) -> bool:
    """Whether the header and the question are those of a reply to the query."""
    if len(case.wire) < HEADER.size:
        return False
    number, flags, questions, *_ = HEADER.unpack_from(case.wire)
    if number != HEADER.unpack_from(case.query.wire)[0] or not flags & QR or flags & OPCODE:
        return False
    if questions == 0:
        return flags & RCODE not in (0, 3)
    end = HEADER.size + len(case.query.question)
    same = case.wire[HEADER.size : end].lower() == case.query.question.lower()
    return questions == 1 and same


def _in_wire(data: str, case: Case) -> bool:
    """Whether the record's data is somewhere among the bytes."""
    if case.kind == "SRV":
        priority, weight, port, _ = data.split(" ", 3)
        return struct.pack("!HHH", int(priority), int(weight), int(port)) in case.wire
    return dns.rrset.from_text("x.", 0, "IN", case.kind, data)[0].to_wire() in case.wire


def _reply(query: Query, name: str, kind: str, chance: random.Random) -> bytes:
    """A reply that is at least well formed."""
    response = dns.message.make_response(dns.message.from_wire(query.wire))
    response.flags |= chance.choice((0, 0, dns.flags.AA, dns.flags.RA, dns.flags.TC))
    response.set_rcode(dns.rcode.Rcode(chance.choice((0, 0, 0, 0, 1, 2, 3, 4, 5, 9, 16))))
    if chance.random() < 0.7:
        response.answer.append(_rrset(name, kind, chance))
    for section in (response.answer, response.authority, response.additional):
        for _ in range(chance.choice((0, 0, 1, 3))):
            owner = chance.choice((name, *NAMES))
            section.append(_rrset(owner, chance.choice(tuple(DATA)), chance))
    return response.to_wire(max_size=65535)


def _rrset(name: str, kind: str, chance: random.Random) -> dns.rrset.RRset:
    count = chance.randint(1, len(DATA[kind])) if kind not in ("CNAME", "SOA") else 1
    data = chance.sample(DATA[kind], count)
    ttl = chance.choice(TTLS)
    return dns.rrset.from_text_list(dns.name.from_text(name), ttl, "IN", kind, data)


def _damage(wire: bytearray, chance: random.Random) -> None:
    """Change the bytes in one of the ways in which they get changed."""
    if not wire:
        return
    at = chance.randrange(len(wire))
    match chance.randrange(8):
        case 0:
            wire[at] ^= 1 << chance.randrange(8)
        case 1:
            wire[at] = chance.randrange(256)
        case 2:
            del wire[at:]
        case 3:
            wire += chance.randbytes(chance.choice((1, 4, 300)))
        case 4:  # a compression pointer, often to itself or ahead
            wire[at : at + 2] = struct.pack("!H", 0xC000 | chance.choice((at, 12, at + 1, 0x3FFF)))
        case 5:  # one of the header's words
            word = 2 * chance.randrange(6)
            wire[word : word + 2] = chance.randbytes(2)
        case 6:  # a part twice, or moved
            part = wire[at : at + chance.randrange(64)]
            target = chance.randrange(len(wire))
            wire[target:target] = part
        case _:
            del wire[at : at + chance.randrange(16)]
