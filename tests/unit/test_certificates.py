"""When certificates end, and when the log warns of it."""

from __future__ import annotations

import datetime

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from supervisor.core.certificates import CertificateEnd, CertificateEnds, find_end

PLACE = ("a:1", "10.0.0.1", 1)
DAY_S = 86400.0


def der(not_after: datetime.datetime | None = None) -> bytes:
    leaf = trustme.CA().issue_cert("a.example", not_after=not_after)
    parsed = x509.load_pem_x509_certificate(leaf.cert_chain_pems[0].bytes())
    return parsed.public_bytes(Encoding.DER)


@pytest.mark.parametrize("year", [2031, 2049, 2050, 9998])
def test_the_end_is_read(year: int) -> None:
    """With two digits of the year, and with four."""
    end = datetime.datetime(year, 2, 3, 4, 5, 6, tzinfo=datetime.UTC)
    assert find_end(der(end)) == end.timestamp()


def element(tag: int, *inside: bytes) -> bytes:
    value = b"".join(inside)
    return bytes([tag, len(value)]) + value


def test_the_last_century_is_read_too() -> None:
    """From 50 on, two digits are of the last century; version 1 has no version."""
    validity = element(0x30, element(0x17, b"480101000000Z"), element(0x17, b"500101000000Z"))
    body = element(0x30, element(2, b"1"), element(0x30), element(0x30), validity)
    assert find_end(element(0x30, body)) == -631152000.0


def test_nonsense_has_no_end() -> None:
    """Whatever is cut off or is none is not read, and nothing is raised."""
    whole = der()
    for length in range(0, len(whole), 7):
        find_end(whole[:length])
    assert find_end(b"") is None
    assert find_end(whole[:100]) is None
    assert find_end(b"junk") is None
    wrong = element(0x30, element(0x17, b"260101000000Z"), element(0x04, b"260101000000Z"))
    body = element(0x30, element(2, b"1"), element(0x30), element(0x30), wrong)
    assert find_end(element(0x30, body)) is None


def test_a_certificate_that_ends_soon_is_told_once_a_day() -> None:
    """From fourteen days before, and whatever other certificates the server shows meanwhile."""
    ends = CertificateEnds()
    assert not ends.take(PLACE, 20 * DAY_S, 5.9 * DAY_S)
    assert ends.take(PLACE, 20 * DAY_S, 6.1 * DAY_S)
    assert not ends.take(PLACE, 20 * DAY_S, 7.0 * DAY_S)
    assert not ends.take(PLACE, 19 * DAY_S, 7.0 * DAY_S)
    assert ends.take(PLACE, 20 * DAY_S, 7.2 * DAY_S)
    assert not ends.take(PLACE, 90 * DAY_S, 9.0 * DAY_S)


def test_a_clock_that_is_set_back_silences_no_warning() -> None:
    """The log tells it again by the new clock, and then once a day as before."""
    ends = CertificateEnds()
    assert ends.take(PLACE, 20 * DAY_S, 15.0 * DAY_S)
    assert ends.take(PLACE, 20 * DAY_S, 7.0 * DAY_S)
    assert not ends.take(PLACE, 20 * DAY_S, 7.5 * DAY_S)
    assert ends.take(PLACE, 20 * DAY_S, 8.0 * DAY_S)


def test_the_first_of_several_counts() -> None:
    """An endpoint has as many certificates as addresses and ports."""
    ends = CertificateEnds()
    ends.take(PLACE, 300 * DAY_S, 0.0)
    ends.take(("a:1", "10.0.0.2", 1), 200 * DAY_S, 0.0)
    ends.take(("b:1", "10.0.0.3", 1), 100 * DAY_S, 0.0)
    assert ends.by_endpoint() == {"a:1": 200 * DAY_S, "b:1": 100 * DAY_S}
    ends.retain({PLACE})
    assert ends.by_endpoint() == {"a:1": 300 * DAY_S}


def test_the_next_master_goes_on() -> None:
    """It does not tell again what was told within the day."""
    ends, after = CertificateEnds(), CertificateEnds()
    ends.take(PLACE, DAY_S, 0.0)
    after.restore(ends.export())
    assert ends.export() == (CertificateEnd(*PLACE, DAY_S, 0.0),)
    assert not after.take(PLACE, DAY_S, 0.5 * DAY_S)
