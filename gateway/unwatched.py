"""Descriptors that the poller is to watch and the kernel has no room for: they wait until it has.

The kernel bounds what all epolls of one user watch (fs.epoll.max_user_watches, epoll(7)), and needs
memory for each watch. Nobody hears of the events of a descriptor that waits here.
"""

from __future__ import annotations

import asyncio
import errno
import select
from collections.abc import Callable, Container

NO_WATCHES = "no more descriptors may be watched (fs.epoll.max_user_watches): further clients wait"
NO_MEMORY = "there is no memory for one more client: further clients wait"

NO_ROOM_TO_WATCH = {errno.ENOSPC: NO_WATCHES, errno.ENOMEM: NO_MEMORY}
"""What epoll_ctl(2) says of this host and not of the descriptor: try again later."""

AGAIN_S = 0.1
"""After how long it is asked again whether there is room."""


class Unwatched:
    """Registers with the epoll later what it did not take.

    ``alive``: the descriptors whose events somebody waits for; borrowed, and up to date.
    ``on_failed(fd, error)``: one that waited can never be watched.
    ``on_short(why)``: one has to wait. ``on_room()``: none has to any more.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        epoll: select.epoll,
        *,
        alive: Container[int],
        on_failed: Callable[[int, Exception], None],
    ) -> None:
        self._loop = loop
        self._epoll = epoll
        self._alive = alive
        self._on_failed = on_failed
        self.on_short: Callable[[str], None] = lambda _: None
        self.on_room: Callable[[], None] = lambda: None
        self._events: dict[int, int] = {}
        """The events that each waits for, the oldest first.

        Some are closed by now: then their number is nobody's, or another descriptor's.
        """
        self._retry: asyncio.TimerHandle | None = None

    @property
    def short(self) -> bool:
        """Whether the host was short of something a moment ago."""
        return self._retry is not None

    def wait(self, fd: int, events: int, why: str) -> None:
        """``fd`` could not be registered for want of room; ``why``: of NO_ROOM_TO_WATCH."""
        self._events[fd] = events
        self.run_short(why)

    def run_short(self, why: str) -> None:
        """The host is short of something: who wants more of it waits for a moment."""
        if self._retry is None:
            self._retry = self._loop.call_later(AGAIN_S, self._register)
            self.on_short(why)

    def change(self, fd: int, events: int) -> bool:
        """Let it wait for other events; False if it does not wait here."""
        if fd not in self._events:
            return False
        self._events[fd] = events
        return True

    def forget(self, fd: int) -> bool:
        """Nobody waits for its events any more; False if it did not wait here."""
        return self._events.pop(fd, None) is not None

    def close(self) -> None:
        if self._retry is not None:
            self._retry.cancel()

    def _register(self) -> None:
        """Register those that wait, as far as there is room."""
        for fd, events in tuple(self._events.items()):
            try:
                if fd in self._alive:
                    self._epoll.register(fd, events)
            except FileExistsError:
                pass  # another one, which got the number of one that was closed
            except OSError as error:
                if error.errno in NO_ROOM_TO_WATCH:
                    self._retry = self._loop.call_later(AGAIN_S, self._register)
                    return
                self._on_failed(fd, error)
            self._events.pop(fd, None)
        self._retry = None
        self.on_room()
