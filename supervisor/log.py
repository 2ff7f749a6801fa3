"""The log: one line per event on standard error, JSON for machines or plain for a terminal.

Written here and not with a logging library: importing structlog took 60 ms of the 250 ms that a
start may take, and a line of ours must fit one atomic write, which none of them knows (ADR 0011).
"""

from __future__ import annotations

import asyncio
import os
import time
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from gateway.sink import MAX_LINE_BYTES, LineSink

LEVELS = {"debug": 10, "info": 20, "warn": 30, "error": 40}

_SYSLOG_PRIORITY = {"debug": b"<7>", "info": b"<6>", "warn": b"<4>", "error": b"<3>"}
"""The journal reads these off the line's start and removes them, sd-daemon(3)."""

_COLOURS = {"debug": "\x1b[2m", "info": "\x1b[32m", "warn": "\x1b[33m", "error": "\x1b[31m"}

_JSON = orjson.OPT_APPEND_NEWLINE | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_NON_STR_KEYS

_FLUSH_S = 0.5
"""How long the end of a process waits for a late reader of its log."""

Tap = Callable[[dict[str, Any]], None]


def make_log(
    level: str, line_format: str, stream_fd: int = 2, *, tap: Tap | None = None
) -> LineLog:
    """The process's log on ``stream_fd``, which stays the caller's.

    ``level`` is one of ``debug``, ``info``, ``warn``, ``error``; ``line_format`` one of
    ``json``, ``console``, ``auto``. ``tap`` is called with every record that is written, uncut.
    """
    return LineLog(_Output(level, line_format, stream_fd, tap), {})


class LineLog:
    """A message and fields, as one line; implements :class:`gateway.core.log.Log`."""

    __slots__ = ("_fields", "_output")

    def __init__(self, output: _Output, fields: Mapping[str, Any]) -> None:
        self._output = output
        self._fields = fields

    def debug(self, msg: str, **fields: Any) -> None:
        if self._output.threshold <= 10:
            self._output.emit("debug", msg, self._fields, fields)

    def info(self, msg: str, **fields: Any) -> None:
        if self._output.threshold <= 20:
            self._output.emit("info", msg, self._fields, fields)

    def warn(self, msg: str, **fields: Any) -> None:
        if self._output.threshold <= 30:
            self._output.emit("warn", msg, self._fields, fields)

    def error(self, msg: str, **fields: Any) -> None:
        self._output.emit("error", msg, self._fields, fields)

    def bind(self, **fields: Any) -> LineLog:
        """A log that adds these fields to every line; same output, same level."""
        return LineLog(self._output, {**self._fields, **fields})

    def set_level(self, level: str) -> None:
        """For this log and all that share its output."""
        self._output.threshold = LEVELS[level]

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let the loop write what the reader could not take at once."""
        self._output.attach(loop)

    def after_fork(self) -> None:
        """In a child, after descriptors were closed: forget the parent's queue and descriptors.

        The stream itself has to be still open. Bound logs stay usable.
        """
        self._output.after_fork()

    def flush(self, deadline_s: float = _FLUSH_S) -> None:
        """At the end of a process: wait at most that long for the reader."""
        self._output.sink().flush(deadline_s)

    def close(self) -> None:
        """Flush briefly, and give back descriptors (not the stream's own)."""
        self._output.close()

    @property
    def dropped(self) -> int:
        """Lines lost so far in this process."""
        return self._output.sink().dropped


class _Output:
    """What all bound logs of a process share: the sink, the level, the format."""

    def __init__(self, level: str, line_format: str, stream_fd: int, tap: Tap | None) -> None:
        self.threshold = LEVELS[level]
        self._stream_fd = stream_fd
        self._tap = tap
        terminal = _is_terminal(stream_fd)
        self._console = line_format == "console" or (line_format == "auto" and terminal)
        self._colour = terminal and not os.environ.get("NO_COLOR")
        self._journal = _is_journal(stream_fd)
        self._sink: LineSink | None = None
        self._told_dropped = 0
        self._last_bound: Mapping[str, Any] = {}
        self._second = -1
        self._second_text = ""
        _outputs.add(self)

    def sink(self) -> LineSink:
        """Opened at the first line, so that a child opens its own after its checklist."""
        if self._sink is None:
            self._sink = LineSink(self._stream_fd)
            self._sink.on_room = self._tell_dropped
        return self._sink

    def emit(
        self, level: str, msg: str, bound: Mapping[str, Any], fields: Mapping[str, Any]
    ) -> None:
        sink = self.sink()
        self._last_bound = bound
        self._tell_dropped()
        record = {"level": level, "ts": self._timestamp(), "msg": msg, **bound, **fields}
        if self._tap is not None:
            self._tap(record)
        prefix = _SYSLOG_PRIORITY[level] if self._journal else b""
        room = MAX_LINE_BYTES - len(prefix)
        line = self._plain(record, room) if self._console else to_json_line(record, room)
        sink.write(prefix + line)

    def _tell_dropped(self) -> None:
        """As soon as the reader can be told what it missed, in the name of who logged last."""
        sink = self.sink()
        if sink.dropped != self._told_dropped and not sink.queued:
            dropped, self._told_dropped = sink.dropped - self._told_dropped, sink.dropped
            self.emit("warn", "log lines dropped", self._last_bound, {"dropped": dropped})

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        self.sink().attach(loop)

    def after_fork(self) -> None:
        if self._sink is not None:
            self._sink.abandon()
        self._sink = None
        self._tap = None  # what the parent collects is the parent's
        self._told_dropped = 0

    def close(self) -> None:
        if self._sink is not None:
            self._sink.flush(_FLUSH_S)
            self._sink.close()
            self._sink = None

    def _timestamp(self) -> str:
        second, rest_ns = divmod(time.time_ns(), 1_000_000_000)
        if second != self._second:
            self._second = second
            self._second_text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._second_text}.{rest_ns // 1000:06d}Z"

    def _plain(self, record: dict[str, Any], room: int) -> bytes:
        start, end = (_COLOURS[record["level"]], "\x1b[0m") if self._colour else ("", "")
        level = f"{start}{record['level']:<5}{end}"
        words = [level, _printable(str(record["msg"]))]
        if not self._journal:  # which stamps lines itself
            words.insert(0, record["ts"])
        words += [
            f"{key}={_quoted(value)}"
            for key, value in record.items()
            if key not in ("level", "ts", "msg")
        ]
        return _cut(" ".join(words), room - 1).encode("utf-8", "backslashreplace") + b"\n"


def to_json_line(record: dict[str, Any], room: int = MAX_LINE_BYTES) -> bytes:
    """The record as one line of JSON of at most ``room`` bytes; the longest fields are cut."""
    line = _dump(record)
    if len(line) <= room:
        return line
    sizes = {key: len(_dump({key: value})) - 2 for key, value in record.items()}
    share = max(_share(sorted(sizes.values()), room - 2), 64)  # level and ts are never cut
    cut = {
        key: value if sizes[key] <= share else _shorten(value, share - len(key) - 4)
        for key, value in record.items()
    }
    while len(line := _dump(cut)) > room:  # a great many fields: those at the end go
        cut.popitem()
    return line


def _share(sizes: list[int], room: int) -> int:
    """The most that each may have, so that together they have at most ``room``."""
    for i, size in enumerate(sizes):
        share = room // (len(sizes) - i)
        if size > share:
            return share
        room -= size
    return room


def _shorten(value: Any, room: int) -> Any:
    """As much of it as fits ``room`` bytes of JSON: the first items, the first characters."""
    if isinstance(value, list | tuple):
        left = room - len('["and 1000000 more"]')
        for kept, item in enumerate(value):
            left -= len(_dump(item))  # the newline counts for the comma
            if left < 0 and kept:
                return [*value[:kept], f"and {len(value) - kept} more"]
            if left < 0:
                break
    text = value if isinstance(value, str) else _dump(value).decode()
    text = text[: max(room, 0)]
    while text and (size := len(_dump(text + "…")) - 1) > room:
        text = text[: int(len(text) * max(room, 0) / size)]
    return text + "…"


def _dump(value: Any) -> bytes:
    try:
        return orjson.dumps(value, default=str, option=_JSON)
    except TypeError:
        # Surrogates from the command line, integers beyond 64 bits: as text, but never lost.
        return orjson.dumps(_as_text(value), option=_JSON)


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


def _quoted(value: Any) -> str:
    text = value if isinstance(value, str) else str(value)
    if isinstance(value, list | tuple):
        text = ",".join(str(each) for each in value)
    if text and text.isprintable() and not any(mark in text for mark in ' "='):
        return text
    return '"' + _printable(text).replace('"', '\\"') + '"'


def _printable(text: str) -> str:
    """Without anything that could move a terminal's cursor or begin a line."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def _cut(text: str, room: int) -> str:
    if len(text) * 4 <= room:
        return text
    data = text.encode("utf-8", "backslashreplace")
    if len(data) <= room:
        return text
    return data[: room - 3].decode("utf-8", "ignore") + "…"


def _is_terminal(fd: int) -> bool:
    try:
        return os.isatty(fd)
    except OSError:
        return False


def _is_journal(fd: int) -> bool:
    """Whether ``fd`` is the journal's stream, as systemd.exec(5) tells with JOURNAL_STREAM."""
    try:
        status = os.fstat(fd)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


_outputs: weakref.WeakSet[_Output] = weakref.WeakSet()


def _forget_in_child() -> None:
    for output in _outputs:
        output.after_fork()


# A child that forgot after_fork() would write to numbers that mean something else by then.
os.register_at_fork(after_in_child=_forget_in_child)
