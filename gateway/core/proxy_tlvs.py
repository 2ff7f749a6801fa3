"""What may follow the addresses in a PROXY protocol header of version 2: TLVs, one the checksum.

A TLV is a type of one byte, a length of two, and a value: section 2.2 of HAProxy's specification
(doc/proxy-protocol.txt, 2020/03/05), which the sections below refer to.
"""

from __future__ import annotations

import enum
import functools


class TlvType(enum.IntEnum):
    """The types of section 2.2 that are more than skipped."""

    AUTHORITY = 0x02
    CRC32C = 0x03
    UNIQUE_ID = 0x05


PASSED_ON = {TlvType.AUTHORITY: 255, TlvType.UNIQUE_ID: 128}
"""The types that are passed on, and how many bytes each may have: the specification's limit of a
unique id, and HAProxy's limit of an authority."""

Tlv = tuple[int, bytes]
"""Type and value."""

FoundTlv = tuple[int, int, bytes]
"""Type, position of the value in the header, and value."""


def find_tlvs(header: bytes, start: int) -> list[FoundTlv] | None:
    """The TLVs from ``start`` on; None if they do not fill the header to its end."""
    found: list[FoundTlv] = []
    while start < len(header):
        value_at = start + 3
        end = value_at + int.from_bytes(header[start + 1 : value_at], "big")
        if end > len(header):
            return None
        found.append((header[start], value_at, header[value_at:end]))
        start = end
    return found if start == len(header) else None


def find_problem(header: bytes, found: list[FoundTlv]) -> str:
    """What is wrong with those that are more than skipped; "" if nothing is."""
    for kind, _, value in found:
        if kind in PASSED_ON and len(value) > (most := PASSED_ON[TlvType(kind)]):
            return f"a TLV of type {kind} has {len(value)} bytes, expected at most {most}"
    sums = [(at, value) for kind, at, value in found if kind == TlvType.CRC32C]
    if not sums:
        return ""
    (at, value), *others = sums
    if others or len(value) != 4:
        return "expected one checksum of 4 bytes"
    if crc32c(header[:at] + bytes(4) + header[at + 4 :]) != int.from_bytes(value, "big"):
        return "the checksum is wrong"
    return ""


def crc32c(data: bytes) -> int:
    """CRC32C, the checksum of section 2.2.3 (RFC 4960, appendix B); 60 ns a byte."""
    table = _crc_table()
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ table[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


@functools.cache
def _crc_table() -> tuple[int, ...]:
    table = []
    for index in range(256):
        crc = index
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)  # the Castagnoli polynomial, reflected
        table.append(crc)
    return tuple(table)
