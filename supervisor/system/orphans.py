"""Orphans: in a container the gateway may be PID 1, and inherits every process without a parent.

Scripts of ``docker exec`` and of health checks leave some behind, and each of them that is not
waited for stays as a zombie and keeps its pid.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable

from gateway.timer import Timer

AGAIN_S = 0.05
"""Until children of our own that have exited were reaped by who started them."""


class OrphanReaper:
    """Reaps what PID 1 has adopted, and nothing else; does nothing in any other process.

    ``is_ours(pid)``: a child whose end somebody waits for. It is asked on the loop, between two
    callbacks, so a child that was just forked is known already.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, is_ours: Callable[[int], bool], *, pid: int
    ) -> None:
        """``pid``: of this process."""
        self._loop = loop
        self._is_ours = is_ours
        self._active = pid == 1
        self._again = Timer(loop, self._reap)

    def start(self) -> None:
        """To be called once every child of ours is known."""
        if self._active:
            self._loop.add_signal_handler(signal.SIGCHLD, self._reap)
            self._reap()

    def close(self) -> None:
        self._again.stop()
        if self._active:
            self._loop.remove_signal_handler(signal.SIGCHLD)

    def _reap(self) -> None:
        """Look who has exited, without taking it, until there is none or the first one is ours."""
        self._again.stop()
        with contextlib.suppress(ChildProcessError):
            while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                if self._is_ours(ended.si_pid):
                    self._again.start(AGAIN_S)
                    return
                os.waitid(os.P_PID, ended.si_pid, os.WEXITED | os.WNOHANG)
