"""The preflight of an upgrade: a child executes the new image, which tries a start and ends.

What the child tries is in ``trial_start``. It is a group of processes of its own: signals of a
terminal or of ``pkill`` at the master do not reach it, and it can be ended as a whole.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Mapping

from supervisor.core.handover_state import HandoverState
from supervisor.handover.state import write_state
from supervisor.system import signals
from supervisor.system.limits import describe_shortage
from supervisor.workers.fork import SYSTEMD_VARIABLES

PREFLIGHT_VARIABLE = "ETCD_GATEWAY_PREFLIGHT"
"""The descriptor of the handover state: the child tries a start with it and starts nothing."""

PREFLIGHT_S = 120.0
"""An import of everything takes 0.5 s; on a host whose CPUs were shared with a dozen busy processes
a trial took more than 30 s. The old image serves meanwhile, so it costs nothing to wait."""

PASSED = "the trial of a start went well"
"""What a child says that would start. A script that ends with 0 and is no gateway says nothing."""

_KEPT_BYTES = 4096
_PROGRAM = "etcd-gateway: "


class Preflight:
    """Tries new images, one at a time, and waits for the end of each child that it started."""

    def __init__(self) -> None:
        self._pids: set[int] = set()

    async def run(self, state: HandoverState, deadline_s: float = PREFLIGHT_S) -> str | None:
        """Try the new image with this handover state; None if it would start, else why not."""
        try:
            child = _Child(state, on_gone=self._pids.discard)
        except OSError as error:
            return f"cannot start the new image: {describe_shortage(error)}"
        self._pids.add(child.pid)
        try:
            return await child.wait(deadline_s)
        finally:
            child.close()

    def owns(self, pid: int) -> bool:
        """Whether the process is a child whose end is waited for here."""
        return pid in self._pids


def handed_over(environ: Mapping[str, str]) -> int | None:
    """The descriptor of the handover state if this process is a preflight's child."""
    document = environ.get(PREFLIGHT_VARIABLE, "")
    return int(document) if document else None


class _Child:
    """Owns the child, its pidfd and the pipe of its standard error until :meth:`close`."""

    def __init__(self, state: HandoverState, *, on_gone: Callable[[int], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_gone = on_gone
        self._said = b""
        self._over = asyncio.Event()
        self._status: str | None = None
        with contextlib.ExitStack() as undo:
            document = write_state(state)
            undo.callback(os.close, document)
            self._errors_r, errors_w = os.pipe()
            undo.callback(os.close, errors_w)
            with contextlib.ExitStack() as undo_all:
                undo_all.callback(os.close, self._errors_r)
                self.pid = _spawn(state.command, document, errors_w)
                undo_all.callback(self._end_unwatched)
                self._pidfd = os.pidfd_open(self.pid)
                undo_all.callback(os.close, self._pidfd)
                os.set_blocking(self._errors_r, False)
                self._loop.add_reader(self._errors_r, self._read)
                undo_all.callback(self._loop.remove_reader, self._errors_r)
                self._loop.add_reader(self._pidfd, self._reap)
                undo_all.pop_all()

    async def wait(self, deadline_s: float) -> str | None:
        """How it ended: None if well, else the reason."""
        try:
            await asyncio.wait_for(self._over.wait(), deadline_s)
        except TimeoutError:
            return f"not done within {deadline_s:g} s"
        while self._read():
            pass
        if self._status is None:
            said = f"{_PROGRAM}{PASSED}" in self._said.decode(errors="replace").splitlines()
            return None if said else "it ended without a trial of its start, as no gateway does"
        return self._reason() or self._status

    def close(self) -> None:
        """End it with all its children, and reap it as soon as it is gone; waits for nothing."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._loop.remove_reader(self._errors_r)
        os.close(self._errors_r)

    def _reap(self) -> None:
        """The child has exited."""
        self._loop.remove_reader(self._pidfd)
        with contextlib.suppress(ChildProcessError):
            ended = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)
            if ended is not None and (ended.si_code, ended.si_status) != (os.CLD_EXITED, 0):
                what = "exit status" if ended.si_code == os.CLD_EXITED else "signal"
                self._status = f"{what} {ended.si_status}"
        os.close(self._pidfd)
        self._on_gone(self.pid)
        self._over.set()

    def _read(self) -> bool:
        """Whether there was something to read."""
        try:
            data = os.read(self._errors_r, _KEPT_BYTES)
        except BlockingIOError:
            return False
        if not data:
            self._loop.remove_reader(self._errors_r)
        self._said = (self._said + data)[-_KEPT_BYTES:]
        return bool(data)

    def _reason(self) -> str:
        """What it said itself, else the last line of what it printed; "" if that is nothing."""
        lines = [line for line in self._said.decode(errors="replace").splitlines() if line.strip()]
        own = [line.removeprefix(_PROGRAM) for line in lines if line.startswith(_PROGRAM)]
        return "; ".join(own[-2:] or lines[-1:])

    def _end_unwatched(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def _spawn(argv: tuple[str, ...], document: int, errors_w: int) -> int:
    """The pid of a child that runs the new image."""
    environ = {**os.environ, PREFLIGHT_VARIABLE: str(document)}
    for name in SYSTEMD_VARIABLES:
        environ.pop(name, None)
    null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    os.set_inheritable(document, True)
    try:
        return os.posix_spawn(
            argv[0],
            argv,
            environ,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, null, 1),
                (os.POSIX_SPAWN_DUP2, errors_w, 2),
            ],
            setpgroup=0,
            setsigmask=signals.HANDLED,
        )
    finally:
        os.set_inheritable(document, False)
        os.close(null)
