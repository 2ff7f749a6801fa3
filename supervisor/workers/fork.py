"""Forks workers: each is a copy of the master until it runs.

The master runs the standard asyncio loop and forks inside a callback of it; the child never
returns into the master's stack.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from gateway.core import messages, wire
from gateway.core.log import Log
from gateway.core.records import dataclass
from gateway.descriptors import send

# Importing the worker imports uvloop before the fork: a fork takes 4 to 8 ms instead of 75 ms.
from gateway.worker import WorkerStart, run
from gateway.worker_spec import WorkerSpec
from supervisor.system.forked_child import go_through_checklist, handlers_held, open_pidfd

EXIT_WORKER_BUG = 70
"""sysexits EX_SOFTWARE: an exception left the worker's main function."""


@dataclass(slots=True)
class Child:
    """The master's side of a worker process; its owner closes the three descriptors."""

    pid: int
    pidfd: int
    pipe_w: int
    control: socket.socket
    ours: bool = True
    """Whether it is our child; the children of a former master are reaped by init."""

    def kill(self) -> None:
        """SIGKILL; no error if it is gone already."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def abandon(self) -> None:
        """Kill it, wait for its end and close everything: nobody could watch it."""
        self.kill()
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED)
        os.close(self.pidfd)
        os.close(self.pipe_w)
        self.control.close()

    def reap(self) -> str:
        """How it ended, after the pidfd became readable: ``exit 0``, ``SIGKILL`` or ``gone``.

        Real-time signals have no names: ``signal 40``.
        """
        if not self.ours:
            return "gone"
        try:
            status = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            return "gone"
        if status is None:
            return "gone"
        if status.si_code == os.CLD_EXITED:
            return f"exit {status.si_status}"
        try:
            return signal.Signals(status.si_status).name
        except ValueError:
            return f"signal {status.si_status}"


@dataclass(frozen=True, slots=True)
class _Ends:
    """The pipe and the control socket of a worker, both ends of each.

    ``room`` keeps a number for the pidfd until the worker lives: without one it could not be
    watched.
    """

    pipe_r: int
    pipe_w: int
    control: socket.socket
    control_child: socket.socket
    room: int

    def close(self) -> None:
        os.close(self.pipe_r)
        os.close(self.pipe_w)
        self.control.close()
        self.control_child.close()
        os.close(self.room)


def fork_workers(
    specs: Sequence[WorkerSpec],
    *,
    make_log: Callable[[WorkerSpec], Log],
    entry: Callable[[WorkerStart], int] = run,
) -> list[Child | OSError]:
    """Fork one worker each; returns in the master only. OSError: that one does not exist.

    The child makes its log, when it has closed what is not its own, and runs ``entry``.

    All of them in one go: every page that the master writes to between two forks is one more page
    that the child forked in between has for itself (0.5 MB each when the channels were set up
    after each fork).
    """
    ends = [_open_ends() for _ in specs]
    pids: list[int | OSError] = []
    if sys.version_info < (3, 12):  # later ones do not count references to names
        # What a child looks up for the first time would take the place of another name that is
        # remembered here, and so write to that one's page too (0.26 MB each).
        sys._clear_type_cache()
    with handlers_held() as handled:
        for spec, end in zip(specs, ends, strict=True):
            try:
                pids.append(os.fork() if isinstance(end, _Ends) else end)
            except OSError as error:
                pids.append(error)
            if pids[-1] == 0 and isinstance(end, _Ends):
                _run_child(spec, end, handled, make_log, entry)
    return [_child_of(pid, end) for pid, end in zip(pids, ends, strict=True)]


def _open_ends() -> _Ends | OSError:
    with contextlib.ExitStack() as undo:
        try:
            pipe_r, pipe_w = os.pipe()
            undo.callback(os.close, pipe_r)
            undo.callback(os.close, pipe_w)
            control, control_child = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            undo.callback(control.close)
            undo.callback(control_child.close)
            room = os.dup(pipe_r)
        except OSError as error:
            return error
        undo.pop_all()
    return _Ends(pipe_r, pipe_w, control, control_child, room)


def _child_of(pid: int | OSError, ends: _Ends | OSError) -> Child | OSError:
    if isinstance(ends, OSError):
        return ends
    if isinstance(pid, OSError):
        ends.close()
        return pid
    os.close(ends.room)
    try:
        pidfd = open_pidfd(pid)
    except OSError as error:
        os.close(ends.pipe_r)
        os.close(ends.pipe_w)
        ends.control.close()
        ends.control_child.close()
        return OSError(error.errno, f"pidfd_open: {error.strerror}")
    os.close(ends.pipe_r)
    ends.control_child.close()
    return Child(pid, pidfd, ends.pipe_w, ends.control)


def _run_child(
    spec: WorkerSpec,
    ends: _Ends,
    handled: Sequence[signal.Signals],
    make_log: Callable[[WorkerSpec], Log],
    entry: Callable[[WorkerStart], int],
) -> NoReturn:
    """Run the child to its end; an exception never reaches the master's stack."""
    status, control = EXIT_WORKER_BUG, ends.control_child
    try:
        kept = [ends.pipe_r, spec.scoreboard.fd, spec.inbox.fileno(), control.fileno()]
        inherited = (*spec.listeners, *spec.shared, *spec.lent, *spec.peers.values())
        kept += [sock.fileno() for sock in inherited]
        go_through_checklist(kept, handled)
        status = entry(WorkerStart(spec, ends.pipe_r, control, make_log(spec)))
    except BaseException as error:  # noqa: BLE001 - the boundary of the process
        _report_exception(spec, error, control)
    finally:
        os._exit(status)


def _report_exception(spec: WorkerSpec, error: BaseException, control: socket.socket) -> None:
    """Have the master log it, with what it knows of the worker; if it is gone, say it ourselves."""
    reason = str(error) if isinstance(error, OSError) else repr(error)
    try:
        send(control, wire.encode(messages.Failed("start", reason)))
    except (OSError, wire.WireError):
        text = f"etcd-gateway: worker slot={spec.slot} gen={spec.gen}: {error!r}\n"
        with contextlib.suppress(OSError):
            os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, text.encode()[:4096])
