"""An authoritative nameserver for one zone file, over UDP and TCP, on loopback.

The file is read again when it changed, so a record is changed by editing it. A file that cannot be
used is reported, and the last good zone stays.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import cast

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import dns.zone

from gateway.core.records import dataclass

_HOST = "127.0.0.1"
_UDP_BYTES = 512  # RFC 1035: what a client without EDNS takes
_TCP_IDLE_S = 10.0


@dataclass(frozen=True, slots=True)
class Record:
    """One SRV record of the demo's zone and the target that it names."""

    target: str
    port: int
    priority: int
    weight: int


def compose_zone(origin: str, owner: str, records: tuple[Record, ...], *, ttl_s: int) -> str:
    """The zone file: one SRV record for each of ``records`` and an address for each target."""
    lines = [
        f"$ORIGIN {origin}.",
        f"$TTL {ttl_s}",
        f"@ SOA ns hostmaster 1 3600 600 86400 {ttl_s}",
        "@ NS ns",
        f"ns A {_HOST}",
        "",
        "; owner TTL SRV priority weight port target",
    ]
    lines += [f"{owner} SRV {r.priority} {r.weight} {r.port} {r.target}" for r in records]
    lines += ["", *(f"{r.target} A {_HOST}" for r in records), ""]
    return "\n".join(lines)


class Nameserver:
    """Owns its two sockets; ``report`` gets a line when the file cannot be used."""

    def __init__(self, origin: str, zone_file: Path, report: Callable[[str], None]) -> None:
        self._origin = dns.name.from_text(origin)
        self._zone_file = zone_file
        self._report = report
        self._seen: tuple[int, int, int] | None = None
        self._zone: dns.zone.Zone | None = None
        self._transport: asyncio.BaseTransport | None = None
        self._server: asyncio.Server | None = None

    async def start(self) -> int:
        """Open both sockets on one port of the kernel's choice; the port."""
        loop = asyncio.get_running_loop()
        tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        tcp.bind((_HOST, 0))
        port = cast("int", tcp.getsockname()[1])
        self._server = await asyncio.start_server(self._serve_tcp, sock=tcp)
        self._transport, _ = await loop.create_datagram_endpoint(
            lambda: _Datagrams(self), local_addr=(_HOST, port)
        )
        return port

    def close(self) -> None:
        """Close both sockets."""
        if self._server is not None:
            self._server.close()
        if self._transport is not None:
            self._transport.close()

    def answer(self, wire: bytes, *, udp: bool) -> bytes | None:
        """The response to a query, truncated where UDP asks for it; None to what is no query."""
        try:
            query = dns.message.from_wire(wire)
        except dns.exception.DNSException:
            return None
        if query.flags & dns.flags.QR:
            return None
        response = dns.message.make_response(query)
        if query.opcode() != dns.opcode.QUERY:
            response.set_rcode(dns.rcode.NOTIMP)
        elif len(query.question) != 1:
            response.set_rcode(dns.rcode.FORMERR)
        else:
            self._look_up(query.question[0], response)
        size = max(query.payload, _UDP_BYTES) if udp else 65535
        return response.to_wire(max_size=size, prefer_truncation=True)

    def _look_up(self, question: dns.rrset.RRset, response: dns.message.Message) -> None:
        self._read_again()
        zone, name = self._zone, question.name
        if zone is None or not name.is_subdomain(self._origin):
            response.set_rcode(dns.rcode.REFUSED)
            return
        response.flags |= dns.flags.AA
        found = zone.get_rrset(name, question.rdtype)
        if found is not None:
            response.answer.append(found)
            _add_addresses(zone, found, response)
            return
        if not any(known.is_subdomain(name) for known in zone.nodes):
            response.set_rcode(dns.rcode.NXDOMAIN)
        soa = zone.get_rrset(self._origin, dns.rdatatype.SOA)
        if soa is not None:
            response.authority.append(soa)

    def _read_again(self) -> None:
        """Take the file if it changed (an origin without a node is a KeyError of dnspython)."""
        try:
            stat = self._zone_file.stat()
            seen = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            if seen == self._seen:
                return
            self._seen = seen
            text = self._zone_file.read_text()
            self._zone = dns.zone.from_text(text, self._origin, relativize=False)
        except (OSError, ValueError, KeyError, dns.exception.DNSException) as error:
            self._report(f"zone file {self._zone_file} cannot be used, kept the last: {error}")

    async def _serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                async with asyncio.timeout(_TCP_IDLE_S):
                    (size,) = struct.unpack("!H", await reader.readexactly(2))
                    wire = self.answer(await reader.readexactly(size), udp=False)
                if wire is None:
                    return
                writer.write(struct.pack("!H", len(wire)) + wire)
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()


def _add_addresses(
    zone: dns.zone.Zone, found: dns.rrset.RRset, response: dns.message.Message
) -> None:
    if found.rdtype != dns.rdatatype.SRV:
        return
    for record in found:
        address = zone.get_rrset(record.target, dns.rdatatype.A)
        if address is not None:
            response.additional.append(address)


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, nameserver: Nameserver) -> None:
        self._nameserver = nameserver
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        wire = self._nameserver.answer(data, udp=True)
        if wire is not None and self._transport is not None:
            self._transport.sendto(wire, addr)
