"""Figures as the tables show them: lengths of time, and numbers of bytes."""

from __future__ import annotations

NARROW_COLUMNS = 110
"""Fewer than these have no room for all figures beside a name of usual length."""


def lasting(seconds: float) -> str:
    """A length of time in its two largest units."""
    left = max(round(seconds), 0)
    for unit, length, smaller, part in (
        ("d", 86400, "h", 3600),
        ("h", 3600, "m", 60),
        ("m", 60, "s", 1),
    ):
        if left >= length:
            return f"{left // length}{unit}{left % length // part}{smaller}"
    return f"{left}s"


def size(count: float) -> str:
    """Bytes with a binary unit."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
