"""Log records as lines, JSON or readable, cut so that each fits one write."""

from __future__ import annotations

import itertools
from typing import Any

from gateway.core import json_codec
from supervisor.core.printable import escape_unprintable

_COLOURS = {"debug": "\x1b[2m", "info": "\x1b[32m", "warn": "\x1b[33m", "error": "\x1b[31m"}


def to_json_line(record: dict[str, Any], room: int) -> bytes:
    """The record as one line of JSON of at most ``room`` bytes; long fields are shortened."""
    line = _dump(record)
    if len(line) <= room:
        return line
    sizes = {key: len(_dump({key: value})) - 2 for key, value in record.items()}
    share = max(_share(sorted(sizes.values()), room - 2), 64)  # 64 bytes hold level and ts
    cut = {
        key: value if sizes[key] <= share else _shorten(value, share - len(key) - 4)
        for key, value in record.items()
    }
    while len(line := _dump(cut)) > room:  # too many fields: drop the last ones
        cut.popitem()
    return line


def _share(sizes: list[int], room: int) -> int:
    """The largest size that each field may have, so that all of them together fit ``room``.

    ``sizes`` are in ascending order and do not fit. Small fields keep their size, and the large
    ones share what is left.
    """
    i = 0
    while sizes[i] * (len(sizes) - i) <= room:
        room -= sizes[i]
        i += 1
    return room // (len(sizes) - i)


def _shorten(value: Any, room: int) -> Any:
    """The first items or characters of the value that fit ``room`` bytes of JSON."""
    if isinstance(value, list | tuple):
        sizes = itertools.accumulate(len(_dump(item)) for item in value)
        most = room - len('["and 1000000 more"]')
        kept = sum(1 for _ in itertools.takewhile(lambda size: size <= most, sizes))
        if kept:
            return [*value[:kept], f"and {len(value) - kept} more"]
    text = value if isinstance(value, str) else _dump(value).decode()
    text = text[: max(room, 0)]
    while text and (size := len(_dump(text + "…")) - 1) > room:
        text = text[: int(len(text) * max(room, 0) / size)]
    return text + "…"


def _dump(value: Any) -> bytes:
    try:
        return json_codec.dumps_record(value)
    except TypeError:
        # JSON has no surrogates (from the command line) and orjson no integers beyond 64 bits:
        # they are written as text, so that the line is not lost.
        return json_codec.dumps_record(_as_text(value))


def _as_text(value: Any) -> Any:
    if isinstance(value, dict):
        return {_as_text(str(key)): _as_text(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_as_text(each) for each in value]
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int) and abs(value) < 2**53:
        return value
    return str(value).encode("utf-8", "backslashreplace").decode()


def to_console_line(record: dict[str, Any], room: int, *, stamp: bool, colour: bool) -> bytes:
    """The record as one readable line of at most ``room`` bytes; no value begins another line."""
    level = record["level"]
    start, end = (_COLOURS[level], "\x1b[0m") if colour else ("", "")
    words = [record["ts"]] if stamp else []
    words += [f"{start}{level:<5}{end}", escape_unprintable(str(record["msg"]))]
    words += [
        f"{escape_unprintable(key)}={_quoted(value)}"
        for key, value in record.items()
        if key not in ("level", "ts", "msg")
    ]
    return _cut(" ".join(words), room - 1) + b"\n"


def _quoted(value: Any) -> str:
    text = value if isinstance(value, str) else str(value)
    if isinstance(value, list | tuple):
        text = ",".join(str(each) for each in value)
    if text and text.isprintable() and not any(mark in text for mark in ' "='):
        return text
    return '"' + escape_unprintable(text).replace('"', '\\"') + '"'


def _cut(text: str, room: int) -> bytes:
    data = text.encode("utf-8", "backslashreplace")
    if len(data) <= room:
        return data
    return data[: room - 3].decode("utf-8", "ignore").encode() + "…".encode()
