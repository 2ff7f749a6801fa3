"""What is said of a value that cannot be used."""

from __future__ import annotations

from supervisor.core.printable import escape_unprintable

MAX_SHOWN = 200
"""Characters of a wrong value that an error shows."""


class ConfigError(Exception):
    """A value that cannot be used; one line that names the source, the value, the expectation."""

    def __init__(self, source: str, value: str | None, expected: str) -> None:
        shown = source if value is None else f"{source} {quote(value)}"
        super().__init__(f"{shown}: {expected}")


def quote(text: str) -> str:
    """A value as an error shows it: in quotes, on one line, not endless."""
    if len(text) > MAX_SHOWN:
        text = text[:MAX_SHOWN] + "…"
    return f'"{escape_unprintable(text)}"'
