"""The demo's nameserver: answers from a zone file as an authoritative server does."""

from __future__ import annotations

from pathlib import Path

import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.zone
import pytest

from supervisor.demo.nameserver import Nameserver, Record, compose_zone

RECORDS = (Record("infra0", 1001, 0, 2), Record("infra1", 1002, 1, 0))
OWNER = "_etcd-client._tcp.cluster.test"


class Desk:
    """A nameserver without sockets, and what it complained about."""

    def __init__(self, directory: Path) -> None:
        self.zone_file = directory / "zone"
        self.complaints: list[str] = []
        self.nameserver = Nameserver("cluster.test", self.zone_file, self.complaints.append)
        self.write(RECORDS)

    def write(self, records: tuple[Record, ...]) -> None:
        self.zone_file.write_text(
            compose_zone("cluster.test", "_etcd-client._tcp", records, ttl_s=5)
        )

    def ask(self, name: str, kind: str, *, edns: int = -1, udp: bool = True) -> dns.message.Message:
        query = dns.message.make_query(name, kind, use_edns=edns)
        wire = self.nameserver.answer(query.to_wire(), udp=udp)
        assert wire is not None
        response = dns.message.from_wire(wire)
        assert query.is_response(response)
        return response


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_srv_answer_carries_the_addresses_of_its_targets(desk: Desk) -> None:
    """An SRV query is answered with authority, the records, and their addresses beside them."""
    response = desk.ask(OWNER, "SRV")
    assert response.flags & dns.flags.AA
    found = sorted(str(record) for record in response.answer[0])
    assert found == ["0 2 1001 infra0.cluster.test.", "1 0 1002 infra1.cluster.test."]
    assert {str(rrset[0]) for rrset in response.additional} == {"127.0.0.1"}
    assert len(response.additional) == 2


def test_address_of_a_target(desk: Desk) -> None:
    """An address query is answered with the address and the zone's TTL."""
    (rrset,) = desk.ask("INFRA0.cluster.test", "A").answer
    assert (str(rrset[0]), rrset.ttl) == ("127.0.0.1", 5)


@pytest.mark.parametrize(
    ("name", "kind", "rcode"),
    [
        ("infra9.cluster.test", "A", dns.rcode.NXDOMAIN),
        ("infra0.cluster.test", "AAAA", dns.rcode.NOERROR),
        ("_tcp.cluster.test", "SRV", dns.rcode.NOERROR),
    ],
)
def test_negative_answers_carry_the_soa(
    desk: Desk, name: str, kind: str, rcode: dns.rcode.Rcode
) -> None:
    """A name without the type differs from a name that does not exist; both tell how long."""
    response = desk.ask(name, kind)
    assert (response.rcode(), response.answer) == (rcode, [])
    assert len(response.authority) == 1


def test_other_domains_are_refused(desk: Desk) -> None:
    """A name outside of the zone is refused."""
    assert desk.ask("example.com", "A").rcode() == dns.rcode.REFUSED


def test_changed_file_is_followed(desk: Desk) -> None:
    """The next answer after the file changed is the new one."""
    assert len(desk.ask(OWNER, "SRV").answer[0]) == 2
    desk.write(RECORDS[:1])
    assert len(desk.ask(OWNER, "SRV").answer[0]) == 1


@pytest.mark.parametrize("text", ["what is this", "", "$ORIGIN cluster.test.\n@ A 127.0.0.1\n"])
def test_unusable_file_keeps_the_last_zone(desk: Desk, text: str) -> None:
    """A file that cannot be used is reported once, and the last good zone still answers."""
    desk.ask(OWNER, "SRV")
    desk.zone_file.write_text(text)
    assert len(desk.ask(OWNER, "SRV").answer[0]) == 2
    assert len(desk.ask(OWNER, "SRV").answer[0]) == 2
    assert len(desk.complaints) == 1


def test_absent_file_refuses_everything(desk: Desk) -> None:
    """Without any zone every question is refused."""
    desk.zone_file.unlink()
    assert desk.ask(OWNER, "SRV").rcode() == dns.rcode.REFUSED


def test_long_answer_is_truncated_on_udp_only(desk: Desk) -> None:
    """What does not fit into the client's datagram says so, and is complete over TCP."""
    desk.write(tuple(Record(f"infra{i}", 1000 + i, 0, 1) for i in range(80)))
    assert desk.ask(OWNER, "SRV").flags & dns.flags.TC
    complete = desk.ask(OWNER, "SRV", udp=False)
    assert not complete.flags & dns.flags.TC
    assert len(complete.answer[0]) == 80
    assert len(desk.ask(OWNER, "SRV", edns=0).answer) == 0


def test_what_is_no_query_gets_no_answer(desk: Desk) -> None:
    """Garbage and responses are dropped: answering them would make loops."""
    response = dns.message.make_response(dns.message.make_query(OWNER, "SRV"))
    assert desk.nameserver.answer(b"\x00\x01garbage", udp=True) is None
    assert desk.nameserver.answer(response.to_wire(), udp=True) is None


def test_other_operations_are_not_implemented(desk: Desk) -> None:
    """An operation other than a query is refused by its own code, an empty query as malformed."""
    query = dns.message.make_query(OWNER, "SRV")
    query.set_opcode(dns.opcode.NOTIFY)
    empty = dns.message.make_query(OWNER, "SRV")
    empty.question.clear()
    for message, rcode in ((query, dns.rcode.NOTIMP), (empty, dns.rcode.FORMERR)):
        wire = desk.nameserver.answer(message.to_wire(), udp=True)
        assert wire is not None
        assert dns.message.from_wire(wire).rcode() == rcode
