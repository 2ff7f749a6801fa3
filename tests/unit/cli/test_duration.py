"""Durations are Go's: what Go takes is taken, what it writes comes back."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.core.duration import MAX_NS, UNITS_NS, format_duration, parse_duration

MOST_HOURS = MAX_NS // UNITS_NS["h"]


@pytest.mark.parametrize(
    ("text", "seconds", "canonical"),
    [
        ("0", 0.0, "0s"),
        ("+0", 0.0, "0s"),
        ("0s", 0.0, "0s"),
        ("300ms", 0.3, "300ms"),
        ("1m30s", 90.0, "1m30s"),
        ("1m", 60.0, "1m0s"),
        ("1.5h", 5400.0, "1h30m0s"),
        ("1h", 3600.0, "1h0m0s"),
        ("+1s", 1.0, "1s"),
        (".5s", 0.5, "500ms"),
        ("1.s", 1.0, "1s"),
        ("1.5s", 1.5, "1.5s"),
        ("0.1s", 0.1, "100ms"),
        ("2h45m30.5s", 9930.5, "2h45m30.5s"),
        ("1us", 1e-6, "1µs"),
        ("1µs", 1e-6, "1µs"),
        ("1μs", 1e-6, "1µs"),
        ("7ns", 7e-9, "7ns"),
        ("0.9ns", 0.0, "0s"),
        ("1s1ms1s", 2.001, "2.001s"),
        ("000000000000000000000000001s", 1.0, "1s"),
        ("0.1000000000000000000000000000000s", 0.1, "100ms"),
    ],
)
def test_durations_of_go(text: str, seconds: float, canonical: str) -> None:
    """What Go reads is read, and written back in Go's canonical form."""
    assert parse_duration(text) == seconds
    assert format_duration(seconds) == canonical


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "expected a duration"),
        ("+", "expected a duration"),
        (".", "expected a duration"),
        (".s", "expected a duration"),
        ("s", "expected a duration"),
        ("1d", "expected a duration"),
        ("1e3s", "expected a duration"),
        ("1h1x", "expected a duration"),
        ("1 s", "expected a duration"),
        (" 1s", "expected a duration"),
        ("1s\n", "expected a duration"),
        ("++1s", "expected a duration"),
        ("١s", "expected a duration"),
        ("5", "unit is missing"),
        ("1.5", "unit is missing"),
        ("0.0", "unit is missing"),
        ("-1s", "negative"),
        ("-0", "negative"),
        ("2562048h", "too long"),
        ("9" * 5000 + "s", "too long"),
        ("2562047h" * 2, "too long"),
    ],
)
def test_what_is_no_duration(text: str, reason: str) -> None:
    """Everything else is refused with what was expected."""
    with pytest.raises(ValueError, match=reason):
        parse_duration(text)


@given(st.integers(0, MAX_NS - 10**6))
def test_written_durations_are_read_back(total_ns: int) -> None:
    """A canonical duration means the seconds that it was written from."""
    seconds = total_ns / 1e9
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, rel=1e-15, abs=1e-9)


@given(
    st.lists(
        st.tuples(st.integers(0, MOST_HOURS // 6), st.sampled_from(sorted(UNITS_NS))),
        min_size=1,
        max_size=6,
    )
)
def test_parts_add_up(parts: list[tuple[int, str]]) -> None:
    """A duration is the sum of its parts, whatever their order."""
    text = "".join(f"{count}{unit}" for count, unit in parts)
    total_ns = sum(count * UNITS_NS[unit] for count, unit in parts)
    assert parse_duration(text) == total_ns / 1e9


@given(st.text() | st.text("0123456789.+-hmsnuµ", max_size=20))
def test_any_text_is_a_duration_or_a_value_error(text: str) -> None:
    """No text raises anything but ValueError, and nothing negative comes out."""
    with contextlib.suppress(ValueError):
        assert parse_duration(text) >= 0
