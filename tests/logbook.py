"""A log that remembers."""

from __future__ import annotations

from asyncio import AbstractEventLoop
from typing import Any, Self


class Logbook:
    """Keeps every line, level and message first; for tests that ask what was said."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    @property
    def messages(self) -> list[str]:
        return [line["msg"] for line in self.lines]

    @property
    def dropped(self) -> int:
        return 0

    def lines_of(self, msg: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["msg"] == msg]

    def said(self, msg: str) -> list[dict[str, Any]]:
        """The fields of the lines with this message, and nothing else of them."""
        return [
            {key: value for key, value in line.items() if key not in ("level", "msg")}
            for line in self.lines_of(msg)
        ]

    def debug(self, msg: str, **fields: Any) -> None:
        self.lines.append({"level": "debug", "msg": msg} | fields)

    def info(self, msg: str, **fields: Any) -> None:
        self.lines.append({"level": "info", "msg": msg} | fields)

    def warn(self, msg: str, **fields: Any) -> None:
        self.lines.append({"level": "warn", "msg": msg} | fields)

    def error(self, msg: str, **fields: Any) -> None:
        self.lines.append({"level": "error", "msg": msg} | fields)

    def bind(self, **fields: Any) -> Self:
        return self

    def set_level(self, level: str) -> None: ...

    def attach(self, loop: AbstractEventLoop) -> None: ...

    def close(self) -> None: ...
