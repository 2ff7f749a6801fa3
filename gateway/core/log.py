"""The logger that both planes are handed: a message, then fields by name."""

from __future__ import annotations

from typing import Any, Protocol, Self


class Log(Protocol):
    """Never raises and never blocks; what cannot be written is dropped and counted."""

    def debug(self, msg: str, **fields: Any) -> None: ...
    def info(self, msg: str, **fields: Any) -> None: ...
    def warn(self, msg: str, **fields: Any) -> None: ...
    def error(self, msg: str, **fields: Any) -> None: ...

    def bind(self, **fields: Any) -> Self:
        """A logger that adds these fields to every line."""
        ...

    def set_level(self, level: str) -> None:
        """From now on, lines below this level are not written: ``debug`` .. ``error``."""
        ...

    def attach(self, loop: Any) -> None:
        """Let ``loop``, an asyncio event loop, write what the reader could not take at once."""
        ...

    def close(self) -> None:
        """At the end of a process: wait briefly for a late reader, give descriptors back."""
        ...

    @property
    def dropped(self) -> int:
        """Lines lost so far in this process."""
        ...
