"""Requests for a resolution: what the next one has to do, and who waits for its end.

Requests that arrive during a resolution (200 SIGHUPs, for example) are all served by the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import field

from gateway.core.records import dataclass
from supervisor.core.config import Config

PAUSE_S = 0.05
"""Between two resolutions that nobody asked for. Something that is due at once whatever is done
about it, by a mistake, must not keep the master from everything else; what is due in order is due
after half a second at the earliest."""


class ReloadFailedError(Exception):
    """The new targets cannot be used and the old ones stay in use; the text says why."""


Waiter = asyncio.Future[None]


@dataclass(slots=True)
class Request:
    """All requests that one resolution serves.

    ``candidate``: the configuration of the newest reload; ``on_taken()`` is to be called if it is
    taken. ``everything``: ask and check anew whatever was answered and checked before.
    """

    candidate: Config | None = None
    on_taken: Callable[[], None] = lambda: None
    everything: bool = False
    again: bool = False
    waiters: list[Waiter] = field(default_factory=list)

    def __bool__(self) -> bool:
        return self.everything or self.again

    def succeed(self) -> None:
        """Tell those who wait that the resolution is over."""
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_result(None)

    def fail(self, reason: str) -> None:
        """Tell those who wait that nothing came of it."""
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_exception(ReloadFailedError(reason))

    def cancel(self) -> None:
        for waiter in self.waiters:
            waiter.cancel()


class Requests:
    """Collects the requests until :meth:`take`."""

    def __init__(self) -> None:
        self._next = Request()
        self._kick = asyncio.Event()

    def refresh(self) -> None:
        """Everything is to be asked and checked now."""
        self._next.everything = True
        self._kick.set()

    def resolve_again(self) -> None:
        """What is known counts differently now; only what is due is asked."""
        self._next.again = True
        self._kick.set()

    def look_again(self) -> None:
        """Something may be due earlier than it was."""
        self._kick.set()

    def try_candidate(self, config: Config, on_taken: Callable[[], None]) -> Waiter:
        """The targets of a new configuration are to be resolved; what is returned says how it went.

        It raises ReloadFailedError.
        """
        waiter: Waiter = asyncio.get_running_loop().create_future()
        self._next.candidate, self._next.on_taken = config, on_taken
        self._next.waiters.append(waiter)
        self.refresh()
        return waiter

    def take(self) -> Request:
        """What there is to do now; the caller answers those who wait."""
        taken, self._next = self._next, Request()
        return taken

    async def wait(self, due_at: Callable[[], float | None]) -> None:
        """Until there is a request, or what :meth:`look_again` may change is due."""
        now = asyncio.get_running_loop().time
        earliest_at = now() + PAUSE_S
        while True:
            due = due_at()
            due = None if due is None else max(due, earliest_at)
            if self._next or (due is not None and due <= now()):
                return
            self._kick.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(due):
                    await self._kick.wait()

    def cancel(self) -> None:
        """There will be no further resolution."""
        self._next.cancel()
