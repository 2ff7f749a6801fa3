"""The probes that are due, in order, and those that run: not too many at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from supervisor.system.connections import CLOSE_S
from supervisor.system.limits import UNLIMITED

MAX_CONCURRENT = 128
"""Probes that run at once; each has one descriptor."""

Begin = Callable[[], Coroutine[Any, Any, None]]
"""Begins a probe; the coroutine is the rest of it, up to the end of its connection."""


class ProbeQueue:
    """At most one probe for each name. Owns the tasks of the probes until :meth:`close`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: dict[str, Begin] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._running = 0
        """Without those that have their result and only leave."""
        self._paused = False
        self.max_sockets = UNLIMITED
        """How many sockets the probes may hold; the master has other uses for its descriptors."""

    def __contains__(self, name: str) -> bool:
        """Whether a probe waits for its turn."""
        return name in self._waiting

    def put(self, name: str, begin: Begin) -> None:
        """A probe is due; it begins when there is room."""
        self._waiting[name] = begin
        self.begin_due()

    def drop(self, name: str) -> None:
        """Nobody wants the probe any more, if it waits."""
        self._waiting.pop(name, None)

    def free(self) -> None:
        """A probe has its result and only leaves; :meth:`begin_due` uses its room."""
        self._running -= 1

    def begin_due(self) -> None:
        while self._waiting and not self._paused and self._running < MAX_CONCURRENT:
            if self._tasks and len(self._tasks) >= self.max_sockets:
                return
            name = next(iter(self._waiting))
            begin = self._waiting.pop(name)
            self._running += 1
            task = self._loop.create_task(begin(), name=f"probe {name}")
            self._tasks.add(task)
            task.add_done_callback(self._end)

    async def pause(self) -> None:
        """Begin no probe until :meth:`resume`; those under way may end in order for CLOSE_S.

        An upgrade closes the sockets of the old image, and etcd logs what it cuts.
        """
        self._paused = True
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_S)

    def resume(self) -> None:
        """Go on with what is due."""
        self._paused = False
        self.begin_due()

    async def close(self) -> None:
        """Begin no more, let those under way leave in order for CLOSE_S, cut the rest."""
        self._waiting.clear()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_S)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _end(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self.begin_due()
