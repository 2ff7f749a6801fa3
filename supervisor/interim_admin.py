"""A process that answers at the admin address while the master executes its next image.

An image needs up to a second, on a busy host two, until it serves the admin address again. A
liveness probe with a timeout of one second would fail meanwhile. So the old image forks a child
that answers with what was known at that moment, and the next image ends it as soon as it serves.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Collection, Mapping, Sequence
from typing import NoReturn

from gateway.core.log import Log
from gateway.core.records import dataclass
from gateway.process_title import set_title
from supervisor.admin.sockets import AdminSocket
from supervisor.core.admin.views import GatewayView
from supervisor.system.forked_child import go_through_checklist, handlers_held, open_pidfd
from supervisor.system.tasks import run_in_loop

LONGEST_S = 15.0
"""If the next image does not serve by then, probes had better notice."""

END_S = 2.0

KIND = "interim-admin"
"""The first part of the descriptors' names in the handover state."""


class InterimAdmin:
    """The process of this master, if there is one: that of the image before, or a child of ours."""

    def __init__(self) -> None:
        self._process: _Process | None = None

    def take_over(self, named: Mapping[str, int]) -> None:
        """The process of the image before; ``named`` are its descriptors, ours from now on."""
        if len(named) == 2:
            self._process = _Process(named[f"{KIND}.pid"], named[f"{KIND}.alive"])
            return
        for fd in named.values():
            os.close(fd)

    def start(
        self, sockets: Sequence[AdminSocket], view: GatewayView, log: Log, *, names: Collection[str]
    ) -> None:
        """Fork a process that serves ``sockets``; returns in the master only.

        Does nothing while there is one. Without a descriptor or a process for it, clients wait.
        """
        if self._process is None:
            self._process = _fork(_Answers(sockets, view, log, names))

    async def end(self) -> None:
        """End the process, if there is one, because the master serves."""
        process, self._process = self._process, None
        if process is not None:
            await process.end()

    def named_descriptors(self) -> dict[str, int]:
        """For the next image; they stay ours."""
        return {} if self._process is None else self._process.named_descriptors()


class _Process:
    """One process, from the master's side. Owns its pidfd and the pipe that it lives by.

    The process ends when the last copy of ``alive_w`` is closed, whoever closes it.
    """

    def __init__(self, pidfd: int, alive_w: int) -> None:
        self._pidfd = pidfd
        self._alive_w = alive_w

    def named_descriptors(self) -> dict[str, int]:
        return {f"{KIND}.pid": self._pidfd, f"{KIND}.alive": self._alive_w}

    async def end(self) -> None:
        """Let it answer what it has accepted and end, END_S at most, and reap it."""
        os.close(self._alive_w)
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        try:
            with contextlib.suppress(OSError):  # there is no room to watch it: it has all the time
                loop.add_reader(self._pidfd, ended.set)
            await asyncio.wait_for(ended.wait(), END_S)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        finally:
            loop.remove_reader(self._pidfd)
            self._reap()

    def _reap(self) -> None:
        """Wait for the process, which has exited or was killed."""
        with contextlib.suppress(ChildProcessError):  # as PID 1 the master reaps everybody
            os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)
        os.close(self._pidfd)


@dataclass(frozen=True, slots=True)
class _Answers:
    """What the process answers, to whom, and under which names."""

    sockets: Sequence[AdminSocket]
    view: GatewayView
    log: Log
    names: Collection[str]


def _fork(answers: _Answers) -> _Process | None:
    """Fork the child; None if it cannot be had."""
    try:
        alive_r, alive_w = os.pipe()
    except OSError:
        return None
    try:
        with handlers_held() as handled:
            pid = os.fork()
            if pid == 0:
                _run_child(answers, alive_r, handled)
        return _Process(open_pidfd(pid), alive_w)
    except OSError:
        os.close(alive_w)
        return None
    finally:
        os.close(alive_r)


def _run_child(answers: _Answers, alive_r: int, handled: Sequence[signal.Signals]) -> NoReturn:
    """Serve to the end of the pipe; an exception never reaches the master's stack."""
    try:
        go_through_checklist([alive_r, *(each.sock.fileno() for each in answers.sockets)], handled)
        set_title("admin address during an upgrade", ",".join(answers.view.listen))
        run_in_loop(lambda: _serve(answers, alive_r))
    finally:
        os._exit(0)


async def _serve(answers: _Answers, alive_r: int) -> None:
    from supervisor.admin.server import AdminServer

    over = asyncio.Event()
    asyncio.get_running_loop().add_reader(alive_r, over.set)
    server = AdminServer(lambda: answers.view, answers.log, names=lambda: answers.names)
    await server.serve(answers.sockets)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(over.wait(), LONGEST_S)
    await server.pause()
    await server.close()
