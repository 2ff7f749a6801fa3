"""The demo's processes: each is started, watched through a pidfd, and stopped.

No thread and no asyncio child watcher (that of Python 3.11 is a thread).
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_libc = ctypes.CDLL(None)


def _end_with_parent(parent: int) -> None:
    """In the child, before exec: the kernel ends the child if the demo dies unexpectedly."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:  # it died before the kernel was told
        os.kill(os.getpid(), signal.SIGTERM)


class _Lines(asyncio.Protocol):
    """Cuts what a child writes into lines."""

    def __init__(self, on_line: Callable[[str], None]) -> None:
        self._on_line = on_line
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._on_line(line.decode(errors="replace"))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's name
        if self._rest:
            self._on_line(self._rest.decode(errors="replace"))


class Child:
    """One process; owns its pidfd and the reading end of its standard error.

    Each child has a session of its own, so Ctrl-C reaches only the demo, which ends its children in
    order.
    """

    def __init__(self, process: subprocess.Popen[bytes], on_exit: Callable[[int], None]) -> None:
        self._process = process
        self._on_exit = on_exit
        self._pidfd = os.pidfd_open(process.pid)
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        self._stderr: asyncio.BaseTransport | None = None
        self._loop.add_reader(self._pidfd, self._reap)

    @classmethod
    def launch(
        cls,
        argv: Sequence[str],
        *,
        log: Path | None,
        env: Mapping[str, str],
        on_exit: Callable[[int], None],
    ) -> Child:
        """Start ``argv``; its output goes to the file ``log``, or to ``read_lines`` if None."""
        with open(log or os.devnull, "ab") as output:
            process = subprocess.Popen(  # noqa: S603 - our own programs, no shell
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.PIPE if log is None else output,
                env=env,
                start_new_session=True,
                preexec_fn=partial(_end_with_parent, os.getpid()),  # noqa: PLW1509 - there are no threads here
            )
        return cls(process, on_exit)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def read_lines(self, on_line: Callable[[str], None]) -> None:
        """Call ``on_line`` with every line that the child writes on its standard error."""
        pipe = self._process.stderr
        self._stderr, _ = await self._loop.connect_read_pipe(lambda: _Lines(on_line), pipe)

    async def kill(self) -> None:
        """End it without a warning, as a crash would; return when it is gone."""
        self._send(signal.SIGKILL)
        await self._ended.wait()

    async def stop(self, limit_s: float) -> None:
        """Ask it to end, kill it if it has not after ``limit_s``, return when it is gone."""
        self._send(signal.SIGTERM)
        try:
            async with asyncio.timeout(limit_s):
                await self._ended.wait()
        except TimeoutError:
            await self.kill()
        finally:
            if self._stderr is not None:
                self._stderr.close()

    def _send(self, number: signal.Signals) -> None:
        if self._pidfd >= 0:
            signal.pidfd_send_signal(self._pidfd, number)

    def _reap(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = -1
        status = self._process.wait()
        self._ended.set()
        self._on_exit(status)
