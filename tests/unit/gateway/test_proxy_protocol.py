"""The PROXY protocol against its specification, byte by byte, and against everything else."""

from __future__ import annotations

import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.proxy_protocol import (
    MAX_V1_BYTES,
    MAX_V2_BYTES,
    SIGNATURE,
    Header,
    Malformed,
    Route,
    Version,
    read_header,
    write_header,
    write_own,
)
from gateway.core.proxy_tlvs import Tlv, crc32c
from gateway.core.socket_address import SocketAddress, host_of

V4 = Route(("192.168.0.1", 56324), ("192.168.0.11", 443))
V6 = Route(("2001:db8::1", 56324), ("2001:db8::11", 443))

EXAMPLE = (
    b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\nGET / HTTP/1.1\r\nHost: 192.168.0.11\r\n\r\n"
)
"""The example of section 2.1."""


def v2(command: int, family: int, block: bytes, length: int | None = None) -> bytes:
    return (
        SIGNATURE
        + struct.pack("!BBH", command, family, len(block) if length is None else length)
        + block
    )


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


V4_BLOCK = bytes((192, 168, 0, 1, 192, 168, 0, 11)) + struct.pack("!HH", 56324, 443)
V6_BLOCK = bytes.fromhex(
    "20010db800000000000000000000000120010db8000000000000000000000011"
) + struct.pack("!HH", 56324, 443)

MAPPED_BLOCK = bytes(10) + b"\xff\xff\1\2\3\4" + bytes(16) + bytes(4)


def with_sum(command: int, family: int, addresses: bytes, others: bytes = b"") -> bytes:
    """A header with a right checksum, made without our own writer."""
    blank = v2(command, family, addresses + tlv(3, bytes(4)) + others)
    at = 16 + len(addresses) + 3
    return blank[:at] + crc32c(blank).to_bytes(4, "big") + blank[at + 4 :]


@pytest.mark.parametrize(
    "header",
    [
        v2(0x21, 0x21, MAPPED_BLOCK),
        b"PROXY TCP6 ::ffff:1.2.3.4 ::1 1 2\r\n",
        b"PROXY TCP6 ::ffff:102:304 ::1 1 2\r\n",
    ],
)
def test_a_client_of_an_ipv4_mapped_address_is_an_ipv4_client(header: bytes) -> None:
    """However the header spells it: --allow and the log know it by its IPv4 address."""
    read = read_header(header)
    assert isinstance(read, Header)
    assert read.route is not None
    assert host_of(read.route.source) == "1.2.3.4"


def test_the_example_of_the_specification() -> None:
    """The example's addresses are read, and the request after them is the stream's."""
    header = read_header(EXAMPLE)
    assert isinstance(header, Header)
    assert header.route == V4
    assert EXAMPLE[header.size :].startswith(b"GET / HTTP/1.1\r\n")
    assert write_header(Version.V1, V4) == EXAMPLE[: header.size]


@pytest.mark.parametrize(
    ("line", "route"),
    [
        (
            b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
            Route(("255.255.255.255", 65535), ("255.255.255.255", 65535)),
        ),
        (
            b"PROXY TCP6 " + b"ffff:" * 7 + b"ffff " + b"ffff:" * 7 + b"ffff 65535 65535\r\n",
            Route(
                (":".join(["ffff"] * 8), 65535),
                (":".join(["ffff"] * 8), 65535),
            ),
        ),
        (b"PROXY TCP6 ::1 2001:DB8::A 0 1\r\n", Route(("::1", 0), ("2001:db8::a", 1))),
        (
            b"PROXY TCP6 ::ffff:10.0.0.1 ::ffff:a00:2 1 2\r\n",
            Route(("10.0.0.1", 1), ("10.0.0.2", 2)),
        ),
        (b"PROXY UNKNOWN\r\n", None),
        (
            b"PROXY UNKNOWN " + b"ffff:" * 7 + b"ffff " + b"ffff:" * 7 + b"ffff 65535 65535\r\n",
            None,
        ),
        (b"PROXY UNKNOWN \xff anything\r\n", None),
    ],
)
def test_lines_of_the_specification(line: bytes, route: Route | None) -> None:
    """Every kind of line that the specification lists is read, up to the longest."""
    assert len(line) <= MAX_V1_BYTES
    assert read_header(line + b"\r\nPROXY") == Header(len(line), route)


def test_lengths_of_the_specification() -> None:
    """The longest lines that are written have the lengths that the specification gives them."""
    most = ("255.255.255.255", 65535)
    assert len(write_header(Version.V1, Route(most, most))) == 56
    most = (":".join(["ffff"] * 8), 65535)
    assert len(write_header(Version.V1, Route(most, most))) == 104
    assert len(write_header(Version.V1, None)) == 15


@pytest.mark.parametrize(
    "line",
    [
        b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\n",
        b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\r\n",
        b"PROXY UNKNOWN \n\r\n",
        b"PROXY  TCP4 192.168.0.1 192.168.0.11 56324 443\r\n",
        b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443 \r\n",
        b"PROXY TCP4 192.168.0.1 192.168.0.11 56324\r\n",
        b"PROXY TCP4 192.168.0.01 192.168.0.11 56324 443\r\n",
        b"PROXY TCP4 192.168.0.256 192.168.0.11 56324 443\r\n",
        b"PROXY TCP4 192.168.0.1 192.168.0 56324 443\r\n",
        b"PROXY TCP4 192.168.0.1 192.168.0.11 056324 443\r\n",
        b"PROXY TCP4 192.168.0.1 192.168.0.11 65536 443\r\n",
        b"PROXY TCP4 192.168.0.1 192.168.0.11 +1 443\r\n",
        b"PROXY TCP4 192.168.0.1 192.168.0.11 \xb2 443\r\n",
        b"PROXY TCP4 ::1 ::1 1 2\r\n",
        b"PROXY TCP6 192.168.0.1 192.168.0.11 1 2\r\n",
        b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
        b"PROXY TCP6 1::2::3 ::1 1 2\r\n",
        b"PROXY UDP4 192.168.0.1 192.168.0.11 1 2\r\n",
        b"PROXY tcp4 192.168.0.1 192.168.0.11 1 2\r\n",
        b"PROXY UNKNOWNS\r\n",
        b"PROXY \r\n",
        b"PROXY\r\n",
        b"proxy UNKNOWN\r\n",
        b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n",
        b"PROXY UNKNOWN " + b"x" * 91 + b"\r\r\n",
        b"PROXY UNKNOWN " + b"x" * 200,
        b"GET / HTTP/1.1\r\n",
        b"\x16\x03\x01",
        b"\r\n\r\n\0\r\nQUIT\r",
    ],
)
def test_what_is_no_header(line: bytes) -> None:
    """What does not match to the letter is refused, with words that show it."""
    result = read_header(line)
    assert isinstance(result, Malformed)
    assert result.problem.isprintable()


@pytest.mark.parametrize(
    ("header", "route"),
    [
        (v2(0x21, 0x11, V4_BLOCK), V4),
        (v2(0x21, 0x21, V6_BLOCK), V6),
        (
            v2(0x21, 0x21, bytes(10) + b"\xff\xff\1\2\3\4" + bytes(16) + bytes(4)),
            Route(("1.2.3.4", 0), ("::", 0)),
        ),
        (v2(0x21, 0x31, b"/run/a".ljust(108, b"\0") + bytes(108)), Route(b"/run/a", b"")),
        (v2(0x21, 0x31, b"\0ab".ljust(108, b"\0") + b"x" * 108), Route(b"\0ab", b"x" * 108)),
        (v2(0x20, 0x00, b""), None),
        (v2(0x20, 0x11, V4_BLOCK), None),
        (v2(0x20, 0xFF, b"anything"), None),
        (v2(0x21, 0x00, b""), None),
        (v2(0x21, 0x00, b"anything"), None),
        (v2(0x21, 0x01, b""), None),
        (v2(0x21, 0x10, V4_BLOCK), None),
        (v2(0x21, 0x12, V4_BLOCK), None),
        (v2(0x21, 0x22, V6_BLOCK), None),
        (v2(0x21, 0x32, bytes(216)), None),
        (v2(0x21, 0x11, V4_BLOCK + tlv(4, b"") + tlv(0x20, b"x" * 700)), V4),
        (v2(0x21, 0x11, V4_BLOCK + tlv(4, bytes(MAX_V2_BYTES - 15))), V4),
        (with_sum(0x21, 0x11, V4_BLOCK), V4),
        (with_sum(0x21, 0x21, V6_BLOCK, tlv(4, b"padding")), V6),
        (with_sum(0x20, 0x00, b""), None),
    ],
)
def test_binary_headers(header: bytes, route: Route | None) -> None:
    """Both commands and every family are read; unspecified ones leave the connection's own."""
    assert read_header(header + b"\0more") == Header(len(header), route)


@pytest.mark.parametrize(
    "header",
    [
        v2(0x11, 0x11, V4_BLOCK),
        v2(0x31, 0x11, V4_BLOCK),
        v2(0x22, 0x11, V4_BLOCK),
        v2(0x2F, 0x11, V4_BLOCK),
        v2(0x21, 0x41, V4_BLOCK),
        v2(0x21, 0x13, V4_BLOCK),
        v2(0x21, 0x11, V4_BLOCK[:-1]),
        v2(0x21, 0x21, V4_BLOCK),
        v2(0x21, 0x31, bytes(215)),
        v2(0x21, 0x11, V4_BLOCK, length=MAX_V2_BYTES + 1),
        v2(0x21, 0x11, V4_BLOCK + b"\4"),
        v2(0x21, 0x11, V4_BLOCK + b"\4\0\2x"),
        v2(0x21, 0x11, V4_BLOCK + tlv(3, bytes(4))),
        v2(0x21, 0x11, V4_BLOCK + tlv(3, bytes(3))),
        v2(0x21, 0x00, tlv(3, bytes(4))),
        v2(0x20, 0x00, tlv(3, bytes(4))),
        with_sum(0x21, 0x11, V4_BLOCK, tlv(3, bytes(4))),
        v2(0x21, 0x11, V4_BLOCK + tlv(5, bytes(129))),
        v2(0x21, 0x11, V4_BLOCK + tlv(2, b"x" * 256)),
    ],
)
def test_binary_headers_that_are_refused(header: bytes) -> None:
    """Unassigned values, lengths that do not fit and wrong checksums are refused."""
    assert isinstance(read_header(header), Malformed)


def test_a_checksum_of_every_wrong_bit() -> None:
    """One wrong bit anywhere in a header with a checksum is noticed, or it is another header.

    But for the type of the checksum: another type is not a checksum.
    """
    whole = with_sum(0x21, 0x11, V4_BLOCK, tlv(5, b"id"))
    for bit in set(range(len(whole) * 8)) - set(range(28 * 8, 29 * 8)):
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        result = read_header(bytes(changed))
        # LOCAL, and an unspecified family, are accepted with whatever they carry.
        assert not isinstance(result, Header) or result.route is None


SAMPLES = [
    EXAMPLE,
    b"PROXY UNKNOWN\r\nrest",
    write_header(Version.V1, V6) + b"\r\n",
    with_sum(0x21, 0x11, V4_BLOCK, tlv(2, b"example.com") + tlv(5, b"id")) + b"rest",
    v2(0x20, 0, b"") + b"\0",
    v2(0x21, 0x31, bytes(216)),
]


@pytest.mark.parametrize("data", SAMPLES)
def test_cut_at_every_byte(data: bytes) -> None:
    """A header is complete with its last byte, never before, and the same then as later."""
    whole = read_header(data)
    assert isinstance(whole, Header)
    for size in range(len(data) + 1):
        assert read_header(data[:size]) == (None if size < whole.size else whole)


@given(
    data=st.one_of(
        st.binary(max_size=300),
        st.builds(lambda rest: b"PROXY " + rest, st.binary(max_size=200)),
        st.builds(
            lambda words: b"PROXY " + " ".join(words).encode() + b"\r\n",
            st.lists(
                st.sampled_from(
                    ["TCP4", "TCP6", "UNKNOWN", "1.2.3.4", "::1", "0", "65535", "99999", ""]
                )
            ),
        ),
        st.builds(lambda rest: SIGNATURE + rest, st.binary(max_size=300)),
        st.builds(v2, st.sampled_from([0x20, 0x21]), st.integers(0, 255), st.binary(max_size=300)),
    )
)
def test_anything(data: bytes) -> None:
    """Whatever comes is a header, none, or not yet one; however it is cut, it stays that."""
    whole = read_header(data)
    decided = whole is not None
    for size in range(len(data)):
        part = read_header(data[:size])
        if part is not None:
            assert decided
            assert type(part) is type(whole)
            if isinstance(part, Header):
                assert part == whole
                assert part.size <= size
    if whole is None:
        assert len(data) < 16 + MAX_V2_BYTES
    if isinstance(whole, Header):
        assert read_header(data + b"x") == whole


def test_a_thousand_random_headers() -> None:
    """Headers with random bytes changed, cut off or put in raise nothing."""
    draw = random.Random(17)
    results = set()
    for _ in range(1000):
        data = bytearray(draw.choice(SAMPLES))
        for _ in range(draw.randrange(4)):
            at = draw.randrange(len(data))
            data[at : at + draw.randrange(3)] = draw.randbytes(draw.randrange(3))
        results.add(type(read_header(bytes(data))))
    assert results == {Header, Malformed, type(None)}


PORTS = st.integers(0, 65535)
IPV4 = st.ip_addresses(v=4).map(str)
IPV6 = st.ip_addresses(v=6).map(str).filter(lambda host: not host.startswith("::ffff:"))
PATHS = st.one_of(
    st.just(b""),
    st.binary(min_size=1, max_size=107).filter(lambda b: b"\0" not in b),
    st.binary(min_size=1, max_size=90)
    .filter(lambda b: not b.endswith(b"\0"))
    .map(lambda b: b"\0" + b),
)
ROUTES = st.one_of(
    st.builds(lambda *a: Route(a[:2], a[2:]), IPV4, PORTS, IPV4, PORTS),
    st.builds(lambda *a: Route(a[:2], a[2:]), IPV6, PORTS, IPV6, PORTS),
    st.builds(Route, PATHS, PATHS),
    st.none(),
)
TLVS = st.lists(
    st.one_of(
        st.tuples(st.just(2), st.binary(max_size=255)),
        st.tuples(st.just(5), st.binary(max_size=128)),
    ),
    max_size=3,
)


@given(route=ROUTES, tlvs=TLVS)
def test_what_is_written_is_read(route: Route | None, tlvs: list[Tlv]) -> None:
    """Version 2 carries every kind of address and what is passed on, under a right checksum."""
    written = write_header(Version.V2, route, tlvs)
    assert read_header(written) == Header(len(written), route, tuple(tlvs))
    assert b"\3\0\4" in written


@given(route=ROUTES)
def test_what_version_1_carries(route: Route | None) -> None:
    """Version 1 carries IP addresses, and UNKNOWN for all others."""
    written = write_header(Version.V1, route)
    is_ip = route is not None and isinstance(route.source, tuple)
    assert read_header(written) == Header(len(written), route if is_ip else None)


MAPPED = ("::ffff:10.0.0.1", 1, 0, 0)


@pytest.mark.parametrize(
    ("source", "destination", "v1", "family"),
    [
        (MAPPED, MAPPED, b"PROXY TCP4 10.0.0.1 10.0.0.1 1 1\r\n", 0x11),
        (("::1", 1, 0, 0), ("::2", 2, 0, 0), b"PROXY TCP6 ::1 ::2 1 2\r\n", 0x21),
        (
            ("10.0.0.1", 1),
            ("::2", 2),
            b"PROXY TCP6 0000:0000:0000:0000:0000:ffff:0a00:0001 ::2 1 2\r\n",
            0x21,
        ),
        ("/run/a", ("::2", 2), b"PROXY UNKNOWN\r\n", 0x00),
        ("", "/run/a", b"PROXY UNKNOWN\r\n", 0x31),
    ],
)
def test_sockets_addresses(
    source: SocketAddress, destination: SocketAddress, v1: bytes, family: int
) -> None:
    """Addresses are written as sockets give them: mapped, of two families, and paths."""
    route = Route(source, destination)
    assert write_header(Version.V1, route) == v1
    assert write_header(Version.V2, route)[13] == family


def test_our_own_connections() -> None:
    """A health check says LOCAL in version 2, and the connection's own addresses in version 1."""
    assert write_own(Version.V2, V4) == SIGNATURE + b"\x20\0\0\0"
    assert read_header(write_own(Version.V2, V4)) == Header(16, None)
    assert write_own(Version.V1, V4) == write_header(Version.V1, V4)


def test_the_path_of_a_unix_socket_ends_at_its_first_zero_byte() -> None:
    """As for the kernel; an abstract name begins with one, and may have others inside."""
    ends = b"/run/a\0left over", b"\0abstract\0name"
    fields = b"".join(end.ljust(108, b"\0") for end in ends)
    read = read_header(SIGNATURE + b"\x21\x31" + len(fields).to_bytes(2, "big") + fields)
    assert isinstance(read, Header)
    assert read.route == Route(b"/run/a", b"\0abstract\0name")
