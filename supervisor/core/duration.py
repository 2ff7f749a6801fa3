"""Durations in Go's spelling (``300ms``, ``1m30s``, ``1.5h``), read as Go's ParseDuration does.

Counted in whole nanoseconds while parsing, so that ``0.1s`` and ``100ms`` are the same float.
"""

from __future__ import annotations

import re

UNITS_NS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,  # U+00B5, micro sign
    "μs": 1_000,  # U+03BC, Greek mu
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60 * 1_000_000_000,
    "h": 3600 * 1_000_000_000,
}

MAX_NS = 2**63 - 1
"""The longest duration of Go, about 292 years."""

EXPECTED = "expected a duration such as 300ms, 1m30s or 1.5h"

_PART = re.compile(r"([0-9]*)(?:\.([0-9]*))?(ns|us|µs|μs|ms|s|m|h)")
_NUMBER = re.compile(r"[0-9]*(\.[0-9]*)?")

_WORDED = re.compile(
    r"([0-9]+(?:\.[0-9]+)?) *(msecs?|s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?)"
)
"""As other programs take it, systemd and nginx among them."""

_DAYS = re.compile(r"([0-9]{1,6}) *(?:d|days?)")


def parse_duration(text: str) -> float:
    """Seconds; never negative. ``ValueError`` says what was expected."""
    rest = text.removeprefix("+")
    if rest == "0":
        return 0.0
    if rest.startswith("-"):
        raise ValueError(f"a negative duration makes no sense, {EXPECTED}")
    if _NUMBER.fullmatch(rest) and rest.strip("."):
        raise ValueError(f"the unit is missing, {EXPECTED}, did you mean {rest}s?")
    total_ns = 0
    at = 0
    while at < len(rest) or not rest:
        part = _PART.match(rest, at)
        if part is None or not (part[1] or part[2]):
            raise ValueError(EXPECTED + _meant(rest.lower()))
        total_ns += _to_ns(part[1], part[2] or "", UNITS_NS[part[3]])
        if total_ns > MAX_NS:
            raise ValueError("too long, expected at most 2562047h")
        at = part.end()
    return total_ns / 1e9


def format_duration(seconds: float) -> str:
    """Go's canonical spelling: ``1m0s``, ``1.5s``, ``300ms``, ``0s``."""
    total_ns = round(seconds * 1e9)
    if total_ns == 0:
        return "0s"
    if total_ns < UNITS_NS["s"]:
        unit = next(unit for unit in ("ms", "µs", "ns") if total_ns >= UNITS_NS[unit])
        return _decimal(total_ns, unit)
    minutes, rest_ns = divmod(total_ns, UNITS_NS["m"])
    hours, minutes = divmod(minutes, 60)
    text = _decimal(rest_ns, "s")
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text


def _meant(text: str) -> str:
    """The duration as a question, if it was written in the words of another program."""
    if days := _DAYS.fullmatch(text):
        return f", did you mean {24 * int(days[1])}h?"
    if worded := _WORDED.fullmatch(text):
        unit = "ms" if worded[2].startswith("ms") else worded[2][0]
        return f", did you mean {worded[1]}{unit}?"
    return ""


def _to_ns(whole: str, fraction: str, unit_ns: int) -> int:
    """``whole.fraction`` units; digits below a nanosecond are cut off, as Go does."""
    # More digits than this cannot matter, and int() refuses absurdly long ones.
    whole = whole.lstrip("0")
    if len(whole) > 19:
        return MAX_NS + 1
    fraction = fraction[:18]
    scale: int = 10 ** len(fraction)
    return int(whole or "0") * unit_ns + int(fraction or "0") * unit_ns // scale


def _decimal(total_ns: int, unit: str) -> str:
    whole, rest = divmod(total_ns, UNITS_NS[unit])
    if not rest:
        return f"{whole}{unit}"
    digits = len(str(UNITS_NS[unit])) - 1
    return f"{whole}.{rest:0{digits}d}".rstrip("0") + unit
