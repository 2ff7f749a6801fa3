"""A timer that has at most one call ahead of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

AFTER_FAILURE_S = 1.0
"""When a call that raised is made again."""


class Timer:
    """Calls ``call`` once, later. Owned by whoever has to stop it.

    A start that comes while the timer runs changes nothing: events that follow each other closely
    must not put the call off. A call that raises is made again: most of them start the timer anew
    at their end, and what they look after would never be looked at again.
    """

    __slots__ = ("_call", "_handle", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
        self._loop = loop
        self._call = call
        self._handle: asyncio.TimerHandle | None = None

    @property
    def running(self) -> bool:
        return self._handle is not None

    def start(self, delay_s: float) -> None:
        """Call in ``delay_s`` seconds, unless the timer runs already."""
        if self._handle is None:
            self._handle = self._loop.call_later(delay_s, self._fire)

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _fire(self) -> None:
        self._handle = None
        try:
            self._call()
        except Exception:
            self.start(AFTER_FAILURE_S)
            raise
