"""The log: one line for each event on standard error, as JSON or readable on a terminal.

No logging library is used: importing structlog took 60 ms of the 250 ms that a start may take, and
no library limits a line to one atomic write (ADR 0011).
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
import weakref
from collections.abc import Callable, Mapping
from typing import Any

from gateway.log_sink import MAX_LINE_BYTES, LineSink
from supervisor.core.log_line import to_console_line, to_json_line

LEVELS = {"debug": 10, "info": 20, "warn": 30, "error": 40}

_SYSLOG_PRIORITY = {"debug": b"<7>", "info": b"<6>", "warn": b"<4>", "error": b"<3>"}
"""The journal reads the priority at the beginning of a line and removes it, sd-daemon(3)."""

_FLUSH_S = 0.5
"""How long a process that ends waits for the reader of its log."""

Tap = Callable[[dict[str, Any]], None]


def make_log(
    level: str, line_format: str, stream_fd: int = 2, *, tap: Tap | None = None
) -> LineLog:
    """The process's log on ``stream_fd``, which stays the caller's.

    ``level`` is one of ``debug``, ``info``, ``warn``, ``error``; ``line_format`` one of
    ``json``, ``console``, ``auto``. ``tap`` is called with every record that is written, uncut.
    """
    return LineLog(_Output(level, line_format, stream_fd, tap), {})


def take_library_messages(log: LineLog) -> None:
    """Have warnings and errors of libraries in the log, as lines like all others.

    Without a handler, the logging module would print them to standard error as they are.
    """
    root = logging.getLogger()
    root.handlers[:] = [_LibraryMessages(log)]


class LineLog:
    """Writes a message and its fields as one line; implements :class:`gateway.core.log.Log`."""

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

    def answer(self, msg: str, **fields: Any) -> None:
        """Write what an operator has just asked for, whatever the level is."""
        self._output.emit("info", msg, self._fields, fields)

    def bind(self, **fields: Any) -> LineLog:
        """A log that adds these fields to every line; same output, same level."""
        return LineLog(self._output, {**self._fields, **fields})

    def set_level(self, level: str) -> None:
        """Set the level of this log and of all that share its output."""
        self._output.threshold = LEVELS[level]

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have the loop write the lines that the reader could not take at once."""
        self._output.attach(loop)

    def after_fork(self) -> None:
        """In a forked child whose descriptors are closed: forget the parent's queue of lines.

        The stream itself must be open still. Bound logs stay usable.
        """
        self._output.after_fork()

    def flush(self, deadline_s: float = _FLUSH_S) -> None:
        """Wait for the reader of the log, ``deadline_s`` at most; for the end of a process."""
        self._output.sink().flush(deadline_s)

    def close(self) -> None:
        """Flush, then close the log's descriptors; the stream itself stays open."""
        self._output.close()

    @property
    def dropped(self) -> int:
        """Lines lost so far in this process."""
        return self._output.sink().dropped


class _LibraryMessages(logging.Handler):
    def __init__(self, log: LineLog) -> None:
        super().__init__(logging.WARNING)
        self._line_log = log

    def emit(self, record: logging.LogRecord) -> None:
        tell = self._line_log.error if record.levelno >= logging.ERROR else self._line_log.warn
        tell("message of a library", library=record.name, error=record.getMessage())


class _Output:
    """The part that all bound logs of a process share: the sink, the level and the format."""

    def __init__(self, level: str, line_format: str, stream_fd: int, tap: Tap | None) -> None:
        self.threshold = LEVELS[level]
        self._stream_fd = stream_fd
        self._tap = tap
        terminal = _is_terminal(stream_fd)
        self._console = line_format == "console" or (line_format == "auto" and terminal)
        plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
        self._colour = terminal and not plain
        self._journal = _is_journal(stream_fd)
        self._sink: LineSink | None = None
        self._told_dropped = 0
        self._last_bound: Mapping[str, Any] = {}
        self._second = -1
        self._second_text = ""
        _outputs.add(self)

    def sink(self) -> LineSink:
        """The sink, opened for the first line, so that a forked child opens one of its own."""
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
            self._tap(dict(record))
        prefix = _SYSLOG_PRIORITY[level] if self._journal else b""
        room = MAX_LINE_BYTES - len(prefix)
        if self._console:
            line = to_console_line(record, room, stamp=not self._journal, colour=self._colour)
        else:
            line = to_json_line(record, room)
        sink.write(prefix + line)

    def _tell_dropped(self) -> None:
        """Log how many lines were dropped, with the bound fields of the last line."""
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
        self._tap = None  # the tap collects the lines of the parent
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


def _is_terminal(fd: int) -> bool:
    try:
        return os.isatty(fd)
    except OSError:
        return False


def _is_journal(fd: int) -> bool:
    """Whether ``fd`` is the journal's stream, by JOURNAL_STREAM of systemd.exec(5)."""
    try:
        status = os.fstat(fd)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


_outputs: weakref.WeakSet[_Output] = weakref.WeakSet()


def _forget_in_child() -> None:
    for output in _outputs:
        output.after_fork()


# A child that does not call after_fork() would write to descriptors that were closed and reused.
os.register_at_fork(after_in_child=_forget_in_child)
