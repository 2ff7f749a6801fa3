"""The PROXY protocol, versions 1 and 2: headers that carry the original addresses of a connection.

Read and written as in HAProxy's specification (doc/proxy-protocol.txt, 2020/03/05), which the
sections below refer to. A header stands once, before the first byte of the stream.
"""

from __future__ import annotations

import enum
import ipaddress
import re
import struct
from collections.abc import Iterable

from gateway.core.proxy_tlvs import (
    PASSED_ON,
    Tlv,
    TlvType,
    crc32c,
    find_problem,
    find_tlvs,
)
from gateway.core.records import dataclass
from gateway.core.socket_address import MAPPED_BYTES, SocketAddress, packed

MAX_V1_BYTES = 107
"""The longest line of version 1 with its CR and LF, section 2.1."""

MAX_V2_BYTES = 4096
"""The most bytes after the first 16 of a header of version 2. The specification allows 65,535 and
wants a header to fit 536; this is enough for the certificate that some senders add."""

PREFIX_BYTES = 16
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"

_V1 = b"PROXY "
_V1_PORT = "0|[1-9][0-9]{0,4}"
_VERSION = 0x20
_LOCAL, _PROXY = 0, 1
_UNSPEC, _INET, _INET6, _UNIX = 0, 1, 2, 3
_STREAM = 1
_ADDRESS_BYTES = {_UNSPEC: 0, _INET: 12, _INET6: 36, _UNIX: 216}
_UNIX_BYTES = 108
_SHOWN_BYTES = 16
"""How much of what is no header an error shows."""


class Version(enum.StrEnum):
    """The words of ``--proxy-out`` that turn it on."""

    V1 = "v1"
    V2 = "v2"


@dataclass(frozen=True, slots=True)
class Route:
    """The addresses of the original connection: the client's, and the one that it connected to."""

    source: SocketAddress
    destination: SocketAddress


@dataclass(frozen=True, slots=True)
class Header:
    """A complete header. ``size``: what it takes of the stream; what follows is the stream's.

    ``route`` is None if the connection's own addresses count: the sender's own connection (LOCAL),
    or one whose addresses it does not know. ``tlvs`` are those to be passed on.
    """

    size: int
    route: Route | None
    tlvs: tuple[Tlv, ...] = ()


@dataclass(frozen=True, slots=True)
class Malformed:
    """What came is no header; ``problem`` says why."""

    problem: str


def read_header(data: bytes) -> Header | Malformed | None:
    """The header that ``data`` begins with; None while it may still become one.

    What it is does not depend on how the bytes are cut: what cannot become a header is told at its
    first wrong byte where that is possible, and bytes after the header change nothing.
    """
    if not data:
        return None
    for prefix, read in ((_V1, _read_v1), (SIGNATURE, _read_v2)):
        if data.startswith(prefix):
            return read(data)
        if prefix.startswith(data):
            return None
    return Malformed(f"expected a PROXY protocol header, got {data[:_SHOWN_BYTES]!r}")


def write_header(version: Version, route: Route | None, tlvs: Iterable[Tlv] = ()) -> bytes:
    """The header for a relayed connection; ``route`` is None if its addresses are not known."""
    return _write_v1(route) if version is Version.V1 else _write_v2(route, tlvs)


def write_own(version: Version, route: Route) -> bytes:
    """The header for a connection that the gateway makes for itself, as a health check.

    Version 1 has no LOCAL; section 2.1 wants the addresses of the connection itself there, because
    some receivers refuse UNKNOWN.
    """
    if version is Version.V1:
        return _write_v1(route)
    return SIGNATURE + bytes((_VERSION | _LOCAL, _UNSPEC, 0, 0))


# -- version 1 --------------------------------------------------------------------------------


def _read_v1(data: bytes) -> Header | Malformed | None:
    start = data[:MAX_V1_BYTES]
    end = re.search(rb"[\r\n]", start)
    if end is None or (end.end() == len(start) and end[0] == b"\r"):
        return None if len(start) < MAX_V1_BYTES else Malformed("the line does not end")
    line, after = start[: end.start()], start[end.start() : end.start() + 2]
    if after != b"\r\n":
        return Malformed("the line does not end with CR and LF")
    size = len(line) + 2
    words = line.decode("latin-1").split(" ")
    match words:
        case [_, "UNKNOWN", *_]:
            return Header(size, None)
        case [_, "TCP4" | "TCP6" as family, source, destination, source_port, destination_port]:
            hosts = [_read_host(text, family) for text in (source, destination)]
            ports = [_read_port(text) for text in (source_port, destination_port)]
            if "" in hosts or -1 in ports:
                return Malformed(f"wrong addresses: {line!r}")
            return Header(size, Route((hosts[0], ports[0]), (hosts[1], ports[1])))
    return Malformed(f"expected TCP4, TCP6 or UNKNOWN and addresses: {line!r}")


def _read_host(text: str, family: str) -> str:
    """The address in its one spelling; "" if it is none of the family."""
    try:
        if family == "TCP4":
            return str(ipaddress.IPv4Address(text))
        return "" if "%" in text else _host_from(ipaddress.IPv6Address(text).packed)
    except ValueError:
        return ""


def _read_port(text: str) -> int:
    port = int(text) if re.fullmatch(_V1_PORT, text) else -1
    return port if port <= 0xFFFF else -1


def _write_v1(route: Route | None) -> bytes:
    match route:
        case Route((source, source_port, *_), (destination, destination_port, *_)):
            family, ends = _same_family(source, destination)
            hosts = " ".join(_host_text(end) for end in ends)
            name = "TCP4" if family == _INET else "TCP6"
            return f"PROXY {name} {hosts} {source_port} {destination_port}\r\n".encode()
    return b"PROXY UNKNOWN\r\n"


def _host_text(end: bytes) -> str:
    if end.startswith(MAPPED_BYTES):
        # Sets of four digits alone: not every receiver knows the mixed spelling with dots, which
        # Python's own text has from 3.13 on.
        return end.hex(":", 2)
    return str(ipaddress.ip_address(end))


# -- version 2 --------------------------------------------------------------------------------


def _read_v2(data: bytes) -> Header | Malformed | None:
    """Section 2.2: each field is looked at as soon as it is there."""
    fields = data[len(SIGNATURE) : PREFIX_BYTES]
    command = _LOCAL
    if fields:
        command = fields[0] & 0x0F
        if fields[0] & 0xF0 != _VERSION or command not in (_LOCAL, _PROXY):
            return Malformed(f"unknown version and command {fields[0]:#04x}")
    if len(fields) > 1 and command == _PROXY and (fields[1] >> 4 > _UNIX or fields[1] & 0x0F > 2):
        return Malformed(f"unknown family and transport {fields[1]:#04x}")
    if len(fields) < 4:
        return None
    length = int.from_bytes(fields[2:], "big")
    if length > MAX_V2_BYTES:
        return Malformed(f"{length} bytes of addresses, expected at most {MAX_V2_BYTES}")
    size = PREFIX_BYTES + length
    if len(data) < size:
        return None
    return _read_whole_v2(data[:size], command)


def _read_whole_v2(header: bytes, command: int) -> Header | Malformed:
    family, transport = header[13] >> 4, header[13] & 0x0F
    start = PREFIX_BYTES + _ADDRESS_BYTES.get(family, 0)
    # A receiver discards all of LOCAL, and ignores the addresses of an unspecified family: what is
    # not understood there is no mistake.
    lenient = command == _LOCAL or family == _UNSPEC
    found = find_tlvs(header, start)
    if found is None:
        return Header(len(header), None) if lenient else Malformed("its TLVs do not fit its length")
    if problem := find_problem(header, found):
        return Malformed(problem)
    if command == _LOCAL:
        return Header(len(header), None)
    route = _read_route(header, family) if transport == _STREAM else None
    tlvs = tuple((kind, value) for kind, _, value in found if kind in PASSED_ON)
    return Header(len(header), route, tlvs)


def _read_route(header: bytes, family: int) -> Route | None:
    match family:
        case 1 | 2:
            width = 4 if family == _INET else 16
            source, destination, source_port, destination_port = struct.unpack_from(
                f"!{width}s{width}sHH", header, PREFIX_BYTES
            )
            return Route(
                (_host_from(source), source_port), (_host_from(destination), destination_port)
            )
        case 3:
            ends = struct.unpack_from(f"{_UNIX_BYTES}s{_UNIX_BYTES}s", header, PREFIX_BYTES)
            return Route(_read_path(ends[0]), _read_path(ends[1]))
    return None


def _read_path(field: bytes) -> bytes:
    if field.startswith(b"\0"):
        return field.rstrip(b"\0")  # an abstract name, or none at all
    return field.partition(b"\0")[0]


def _write_v2(route: Route | None, tlvs: Iterable[Tlv]) -> bytes:
    kind, addresses = _v2_addresses(route)
    others = b"".join(struct.pack("!BH", *(each[0], len(each[1]))) + each[1] for each in tlvs)
    checksum_at = PREFIX_BYTES + len(addresses) + 3
    block = addresses + struct.pack("!BHI", TlvType.CRC32C, 4, 0) + others
    header = SIGNATURE + struct.pack("!BBH", _VERSION | _PROXY, kind, len(block)) + block
    checksum = crc32c(header).to_bytes(4, "big")
    return header[:checksum_at] + checksum + header[checksum_at + 4 :]


def _v2_addresses(route: Route | None) -> tuple[int, bytes]:
    """Family with transport, and the block of addresses."""
    match route:
        case Route((source, source_port, *_), (destination, destination_port, *_)):
            family, ends = _same_family(source, destination)
            ports = struct.pack("!HH", source_port, destination_port)
            return family << 4 | _STREAM, b"".join(ends) + ports
        case Route(str() | bytes() as from_path, str() | bytes() as to_path):
            return _UNIX << 4 | _STREAM, _path_field(from_path) + _path_field(to_path)
    return _UNSPEC, b""


def _path_field(path: str | bytes) -> bytes:
    whole = path if isinstance(path, bytes) else path.encode("utf-8", "surrogateescape")
    return whole[:_UNIX_BYTES].ljust(_UNIX_BYTES, b"\0")


# -- both -------------------------------------------------------------------------------------


def _host_from(whole: bytes) -> str:
    """The address as text; an IPv4-mapped one as the IPv4 address that it stands for."""
    return str(
        ipaddress.ip_address(whole.removeprefix(MAPPED_BYTES) if len(whole) == 16 else whole)
    )


def _same_family(source: str, destination: str) -> tuple[int, list[bytes]]:
    """Both addresses as bytes, IPv4 beside IPv6 as IPv4-mapped."""
    ends = [packed(source), packed(destination)]
    if len(ends[0]) == len(ends[1]):
        return _INET if len(ends[0]) == 4 else _INET6, ends
    return _INET6, [MAPPED_BYTES + end if len(end) == 4 else end for end in ends]
