"""What may follow the addresses in a header of version 2."""

from __future__ import annotations

import pytest

from gateway.core.proxy_tlvs import TlvType, crc32c, find_problem, find_tlvs

PREFIX = b"sixteen bytes ..and addresses"


def test_known_checksums() -> None:
    """The checksum is CRC32c: the check value of its catalogue entry, and those of RFC 3720."""
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43


def test_tlvs_are_found_with_their_place() -> None:
    """Empty values too; the place is that of the value in the whole header."""
    header = PREFIX + b"\x02\0\x04name" + b"\xe0\0\0"
    assert find_tlvs(header, len(PREFIX)) == [
        (TlvType.AUTHORITY, len(PREFIX) + 3, b"name"),
        (0xE0, len(header), b""),
    ]
    assert find_tlvs(PREFIX, len(PREFIX)) == []


@pytest.mark.parametrize("rest", [b"\x02", b"\x02\0", b"\x02\0\x05name", b"\x02\xff\xffname"])
def test_tlvs_that_do_not_fill_the_header(rest: bytes) -> None:
    """One that ends early, or late, makes all of them unknown."""
    assert find_tlvs(PREFIX + rest, len(PREFIX)) is None


def test_addresses_that_do_not_fit_the_header() -> None:
    """Where the header ends before its TLVs would begin, there are none to find."""
    assert find_tlvs(PREFIX, len(PREFIX) + 1) is None


def test_values_have_a_length_that_receivers_take() -> None:
    """Types that are skipped may be as long as they are."""
    assert find_problem(b"", [(TlvType.UNIQUE_ID, 0, bytes(128)), (0xE0, 0, bytes(4000))]) == ""
    problem = "a TLV of type 5 has 129 bytes, expected at most 128"
    assert find_problem(b"", [(TlvType.UNIQUE_ID, 0, bytes(129))]) == problem


def test_a_checksum_is_over_the_header_with_zeros_in_its_place() -> None:
    """There may be one, and it has four bytes."""
    blank = PREFIX + b"\x03\0\x04" + bytes(4)
    header = blank[:-4] + crc32c(blank).to_bytes(4, "big")
    found = find_tlvs(header, len(PREFIX))
    assert found is not None
    assert find_problem(header, found) == ""
    assert find_problem(b"S" + header[1:], found) == "the checksum is wrong"
    assert find_problem(header, found * 2) == "expected one checksum of 4 bytes"
