"""The preflight of an upgrade: a child executes the new image, which tries a start and ends.

What the child tries is in ``trial_start``. It is a group of processes of its own: signals of a
terminal or of ``pkill`` at the master do not reach it, and it can be ended as a whole.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence

from supervisor.core.handover_state import HandoverState
from supervisor.handover.state import write_state
from supervisor.system import signals
from supervisor.system.forked_child import SYSTEMD_VARIABLES
from supervisor.system.limits import describe_shortage

PREFLIGHT_VARIABLE = "ETCD_GATEWAY_PREFLIGHT"
"""The descriptor of the handover state: the child tries a start with it and starts nothing."""

PREFLIGHT_S = 120.0
"""An import of everything takes 0.5 s; on a host whose CPUs were shared with a dozen busy processes
a trial took more than 30 s. The old image serves meanwhile, so it costs nothing to wait."""

PASSED = "the trial of a start went well"
"""What a child says that would start. A script that ends with 0 and is no gateway says nothing; nor
does an earlier build, which is asked for its version."""

KILLED = f"signal {signal.SIGKILL:d}"
OUT_OF_MEMORY = ", as the kernel does it for want of memory; expected room for a second program"
"""A trial is the first process that the kernel kills then."""

_KEPT_BYTES = 4096
_PROGRAM = "etcd-gateway: "
_VERSION = "etcd-gateway "


class Preflight:
    """Tries new images, one at a time, and waits for the end of each child that it started."""

    def __init__(self) -> None:
        self._pids: set[int] = set()

    async def run(self, state: HandoverState, deadline_s: float = PREFLIGHT_S) -> str | None:
        """Try the new image with this handover state; None if it would start, else why not."""
        try:
            with _inheritable_state(state) as document:
                trial = self._start(state.command, {PREFLIGHT_VARIABLE: str(document)})
            failure = await _end_of(trial, deadline_s)
            if failure is None and not trial.has_passed:
                version = self._start(_ask_for_version(state.command))
                await _end_of(version, deadline_s)
                if not version.told_version:
                    failure = "it ended without a trial of its start, as no gateway does"
        except OSError as error:
            return f"cannot start the new image: {describe_shortage(error)}"
        return failure

    def owns(self, pid: int) -> bool:
        """Whether the process is a child whose end is waited for here."""
        return pid in self._pids

    def _start(self, argv: tuple[str, ...], variables: Mapping[str, str] | None = None) -> _Child:
        child = _Child(argv, variables or {}, on_gone=self._pids.discard)
        self._pids.add(child.pid)
        return child


def handed_over(environ: Mapping[str, str]) -> int | None:
    """The descriptor of the handover state if this process is a preflight's child."""
    document = environ.get(PREFLIGHT_VARIABLE, "")
    return int(document) if document else None


class _Child:
    """Owns the child, its pidfd and the pipe of its output until :meth:`close`."""

    def __init__(
        self, argv: tuple[str, ...], variables: Mapping[str, str], *, on_gone: Callable[[int], None]
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_gone = on_gone
        self._said = b""
        self.has_passed = False
        self.told_version = False
        self._over = asyncio.Event()
        self._status: str | None = None
        with contextlib.ExitStack() as undo:
            self._output_r, output_w = os.pipe()
            undo.callback(os.close, output_w)
            with contextlib.ExitStack() as undo_all:
                undo_all.callback(os.close, self._output_r)
                self.pid = _spawn(argv, variables, output_w)
                undo_all.callback(self._end_unwatched)
                self._pidfd = os.pidfd_open(self.pid)
                undo_all.callback(os.close, self._pidfd)
                os.set_blocking(self._output_r, False)
                self._loop.add_reader(self._output_r, self._read)
                undo_all.callback(self._loop.remove_reader, self._output_r)
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
        return self._status and (self._reason() or self._status)

    def close(self) -> None:
        """End it with all its children, and reap it as soon as it is gone; waits for nothing."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._loop.remove_reader(self._output_r)
        os.close(self._output_r)

    def _reap(self) -> None:
        """The child has exited."""
        self._loop.remove_reader(self._pidfd)
        with contextlib.suppress(ChildProcessError):
            ended = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)
            if ended is not None and (ended.si_code, ended.si_status) != (os.CLD_EXITED, 0):
                what = "exit status" if ended.si_code == os.CLD_EXITED else "signal"
                self._status = f"{what} {ended.si_status}"
                if self._status == KILLED:
                    self._status += OUT_OF_MEMORY
        os.close(self._pidfd)
        self._on_gone(self.pid)
        self._over.set()

    def _read(self) -> bool:
        """Whether there was something to read."""
        try:
            data = os.read(self._output_r, _KEPT_BYTES)
        except BlockingIOError:
            return False
        if not data:
            self._loop.remove_reader(self._output_r)
        said = self._said + data  # the interpreter may print pages behind it (PYTHONVERBOSE)
        for line in said.decode(errors="replace").splitlines():
            self.has_passed = self.has_passed or line == f"{_PROGRAM}{PASSED}"
            self.told_version = self.told_version or line.startswith(_VERSION)
        self._said = said[-_KEPT_BYTES:]
        return bool(data)

    def _reason(self) -> str:
        """What it said itself, else the last line of what it printed; "" if that is nothing."""
        said = self._said.decode(errors="replace").splitlines()
        lines = [line for line in said if line.strip() and line != f"{_PROGRAM}{PASSED}"]
        own = [line.removeprefix(_PROGRAM) for line in lines if line.startswith(_PROGRAM)]
        return "; ".join(own[-2:] or lines[-1:])

    def _end_unwatched(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


async def _end_of(child: _Child, deadline_s: float) -> str | None:
    """Why it ended, None if well."""
    try:
        return await child.wait(deadline_s)
    finally:
        child.close()


@contextlib.contextmanager
def _inheritable_state(state: HandoverState) -> Iterator[int]:
    """The state's descriptor, for children."""
    document = write_state(state)
    try:
        os.set_inheritable(document, True)
        yield document
    finally:
        os.close(document)


def _ask_for_version(command: Sequence[str]) -> tuple[str, ...]:
    """The same program, for its version; whatever follows its name is left out."""
    program = itertools.takewhile(lambda word: word != "start", command)
    return (*program, "--version")


def _spawn(argv: tuple[str, ...], variables: Mapping[str, str], output_w: int) -> int:
    """The pid of a child that prints to ``output_w``."""
    environ = {**os.environ, **variables}
    for name in SYSTEMD_VARIABLES:
        environ.pop(name, None)
    return os.posix_spawn(
        argv[0],
        argv,
        environ,
        file_actions=[(os.POSIX_SPAWN_DUP2, output_w, fd) for fd in (1, 2)],
        setpgroup=0,
        setsigmask=signals.HANDLED,
    )
