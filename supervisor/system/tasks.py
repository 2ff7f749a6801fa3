"""The tasks of a process: each is named, and none fails unseen."""

from __future__ import annotations

import asyncio
import errno
import sys
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

WATCHES = "fs.epoll.max_user_watches"
"""The limit that epoll_ctl(2) tells of by ENOSPC; it stands in the error as a file would."""

UNIX_SOCKETS = "AF_UNIX"
"""The address family that a service unit forbids by EAFNOSUPPORT; it stands there, too."""


def make_loop() -> asyncio.AbstractEventLoop:
    """A new event loop. OSError: the host is short of descriptors or memory, or has no AF_UNIX.

    asyncio's destructor of a loop that was only half made fails, and the interpreter would print
    that, with a traceback, before we could say anything.
    """
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        return asyncio.new_event_loop()
    except OSError as error:
        where = {errno.ENOSPC: WATCHES, errno.EAFNOSUPPORT: UNIX_SOCKETS}.get(error.errno or 0)
        failure = OSError(error.errno, error.strerror, where)
    finally:
        # The exception, and with it the half made loop, is gone by now.
        sys.unraisablehook = hook
    raise failure


def run_in_loop(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run ``main`` to its end; as asyncio.run, and OSError as :func:`make_loop`.

    The coroutine is made when there is a loop: one that nobody runs is warned of.
    """
    with asyncio.Runner(loop_factory=make_loop) as runner:
        return runner.run(main())


class Tasks:
    """Owns the tasks that it started until they end; ``on_failure(name, error)`` is told errors."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        on_failure: Callable[[str, BaseException], None],
    ) -> None:
        self._loop = loop
        self._on_failure = on_failure
        self._running: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Run ``work`` on the loop."""
        task = self._loop.create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._on_done)

    async def cancel(self) -> None:
        """Cancel what still runs, and wait until each task has given back what it owns."""
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_failure(task.get_name(), error)
