"""An authoritative nameserver of the tests' own, over UDP and TCP, that misbehaves on request.

It runs in a thread of the test process, so that it answers whatever the test is doing.
"""

from __future__ import annotations

import contextlib
import enum
import select
import selectors
import socket
import struct
import threading
from collections.abc import Iterable
from typing import Self

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from gateway.core.address import HostPort


class Fault(enum.Enum):
    """What the nameserver does instead of answering."""

    TIMEOUT = enum.auto()
    """Says nothing."""
    SERVFAIL = enum.auto()
    REFUSED = enum.auto()
    NXDOMAIN = enum.auto()
    EMPTY = enum.auto()
    """NOERROR without records, from a server that says it is responsible."""
    REFERRAL = enum.auto()
    """NOERROR without records, and the names of other servers."""
    NOTHING = enum.auto()
    """NOERROR without anything, from a server that is neither responsible nor recursive."""
    FORMERR = enum.auto()
    NOTIMP = enum.auto()
    TRUNCATE = enum.auto()
    """Over UDP only: an empty answer with the TC bit."""
    WRONG_ID = enum.auto()
    """A forged answer with another id first, then silence."""
    GARBAGE = enum.auto()
    """Bytes that are no DNS message."""
    HANG_UP = enum.auto()
    """Truncated over UDP, and closed without an answer over TCP."""
    TRUNCATE_TCP = enum.auto()
    """Truncated over both, which makes no sense."""
    STRAY_TCP = enum.auto()
    """Truncated over UDP; over TCP an answer with another id comes before the right one."""


class NameServer:
    """``with NameServer() as dns: dns.set("a.test.", "A", "10.0.0.1")``.

    ``queries`` lists what was asked, as ``("a.test", "A", "udp")``. ``faults`` maps a name, or a
    name and a type, or "" (everything) to a fault. Stopped and started again it keeps its port.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self._host = host
        self._port = port
        self._zone: dict[tuple[str, str], tuple[int, tuple[str, ...]]] = {}
        self._thread: threading.Thread | None = None
        self._wake_w: socket.socket | None = None
        self.faults: dict[str | tuple[str, str], Fault] = {}
        self.queries: list[tuple[str, str, str]] = []
        self.edns_fault: Fault | None = None
        """Happens to queries with an OPT record only."""
        self.trailing = b""
        """Behind every reply."""
        self.edns_queries = 0
        self.late_s = 0.0
        """How long it takes to reply over UDP."""
        self.follows_aliases = True
        self.negative_ttl = 5

    @property
    def address(self) -> HostPort:
        return HostPort(self._host, self._port)

    def set(self, name: str, kind: str, *records: str, ttl: int = 5) -> None:
        """Records of one name and type, in the notation of zone files; none: removed."""
        zone = dict(self._zone)
        zone.pop((_key(name), kind), None)
        if records:
            zone[_key(name), kind] = (ttl, records)
        self._zone = zone

    def clear(self) -> None:
        """No records at all."""
        self._zone = {}

    def asked(self, name: str, kind: str) -> int:
        """How often something was asked."""
        return sum(1 for query in self.queries if query[:2] == (_key(name), kind))

    def start(self) -> None:
        for _ in range(20):  # a port that is free for both
            udp = socket.socket(_family(self._host), socket.SOCK_DGRAM)
            tcp = socket.socket(_family(self._host), socket.SOCK_STREAM)
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                udp.bind((self._host, self._port))
                tcp.bind((self._host, udp.getsockname()[1]))
                break
            except OSError:
                udp.close()
                tcp.close()
        else:
            raise AssertionError(f"no port for a nameserver at {self.address}")
        self._port = udp.getsockname()[1]
        tcp.listen()
        wake_r, self._wake_w = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, args=(udp, tcp, wake_r), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        if self._thread is not None and self._wake_w is not None:
            self._wake_w.close()
            self._thread.join(60)
            self._thread = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _serve(self, udp: socket.socket, tcp: socket.socket, wake_r: socket.socket) -> None:
        with udp, tcp, wake_r, selectors.DefaultSelector() as selector:
            for sock in (udp, tcp, wake_r):
                selector.register(sock, selectors.EVENT_READ)
            while True:
                ready = {key.fileobj for key, _ in selector.select()}
                if wake_r in ready:
                    return
                if udp in ready:
                    wire, peer = udp.recvfrom(65535)
                    replies = self._answer(wire, "udp")
                    if select.select([wake_r], [], [], self.late_s)[0]:
                        return
                    for reply in replies:
                        udp.sendto(reply, peer)
                if tcp in ready:
                    self._serve_tcp(tcp)

    def _serve_tcp(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError), listener.accept()[0] as sock:
            sock.settimeout(20)
            with sock.makefile("rb") as stream:
                (length,) = struct.unpack("!H", stream.read(2))
                wire = stream.read(length)
            for reply in self._answer(wire, "tcp"):
                sock.sendall(struct.pack("!H", len(reply)) + reply)

    def _answer(self, wire: bytes, transport: str) -> Iterable[bytes]:
        try:
            query = dns.message.from_wire(wire)
        except dns.exception.DNSException:
            return []
        question = query.question[0]
        name, kind = _key(str(question.name)), dns.rdatatype.to_text(question.rdtype)
        self.queries.append((name, kind, transport))
        fault = self.faults.get((name, kind)) or self.faults.get(name) or self.faults.get("")
        if query.edns >= 0:
            self.edns_queries += 1
            fault = fault or self.edns_fault
        replies = (
            self._misbehave(query, fault, transport)
            if fault
            else [
                self._resolve(query, most=(query.payload or 512) if transport == "udp" else 65535)
            ]
        )
        return [reply + self.trailing for reply in replies]

    def _misbehave(
        self, query: dns.message.Message, fault: Fault, transport: str
    ) -> Iterable[bytes]:
        response = dns.message.make_response(query)
        match fault:
            case Fault.TIMEOUT:
                return []
            case Fault.SERVFAIL | Fault.REFUSED | Fault.NXDOMAIN | Fault.FORMERR | Fault.NOTIMP:
                response.set_rcode(dns.rcode.from_text(fault.name))
            case Fault.EMPTY:
                response.flags |= dns.flags.AA
            case Fault.REFERRAL:
                response.authority.append(_rrset("test", "NS", (60, ("ns.elsewhere.test.",))))
            case Fault.NOTHING:
                pass
            case Fault.STRAY_TCP if transport == "tcp":
                wire = self._resolve(query)
                return [bytes([wire[0] ^ 0x55]) + wire[1:], wire]
            case Fault.TRUNCATE | Fault.HANG_UP if transport == "tcp":
                return [] if fault is Fault.HANG_UP else [self._resolve(query)]
            case Fault.TRUNCATE | Fault.HANG_UP | Fault.TRUNCATE_TCP | Fault.STRAY_TCP:
                response.flags |= dns.flags.TC
            case Fault.WRONG_ID:
                answer = dns.message.from_wire(self._resolve(query))
                answer.id ^= 0x5555
                return [answer.to_wire()]
            case Fault.GARBAGE:
                return [b"\x00garbage" * 7]
        return [response.to_wire()]

    def _resolve(self, query: dns.message.Message, most: int = 65535) -> bytes:
        """The honest answer; truncated if it is longer than ``most`` bytes."""
        response = dns.message.make_response(query)
        response.flags |= dns.flags.AA
        question = query.question[0]
        name, kind = _key(str(question.name)), dns.rdatatype.to_text(question.rdtype)
        while (alias := self._zone.get((name, "CNAME"))) and kind != "CNAME":
            response.answer.append(_rrset(name, "CNAME", alias))
            name = _key(alias[1][0])
            if not self.follows_aliases:
                return response.to_wire()
        if found := self._zone.get((name, kind)):
            response.answer.append(_rrset(name, kind, found))
        else:
            if not any(owner == name for owner, _ in self._zone):
                response.set_rcode(dns.rcode.NXDOMAIN)
            ttl = self.negative_ttl
            soa = (ttl, (f"ns.test. admin.test. 1 5 5 5 {ttl}",))
            response.authority.append(_rrset(name.rpartition(".")[2] or ".", "SOA", soa))
        try:
            return response.to_wire(max_size=most)
        except dns.exception.TooBig:
            response.answer.clear()
            response.flags |= dns.flags.TC
            return response.to_wire()


def _key(name: str) -> str:
    return name.lower().removesuffix(".")


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _rrset(name: str, kind: str, found: tuple[int, tuple[str, ...]]) -> dns.rrset.RRset:
    ttl, records = found
    owner = dns.name.from_text(name)
    return dns.rrset.from_text_list(owner, ttl, dns.rdataclass.IN, kind, records)
