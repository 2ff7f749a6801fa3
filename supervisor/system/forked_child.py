"""The checklist that a forked child of the master goes through before anything else."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
from collections.abc import Iterator, Sequence

from supervisor.system.signals import IGNORED_BY_WORKERS

SYSTEMD_VARIABLES = (
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
)
"""Variables of the service manager that are meant for the master alone."""


@contextlib.contextmanager
def handlers_held() -> Iterator[list[signal.Signals]]:
    """Around a fork: a signal in between would reach the master's handlers in the child.

    The signals for which there are handlers, for the child. They are listed here, once: asking for
    all 64 copies 0.1 MB in each child.
    """
    handled = [number for number in signal.valid_signals() if callable(signal.getsignal(number))]
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, handled)
    try:
        yield handled
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def open_pidfd(pid: int) -> int:
    """A pidfd of a child that was forked a moment ago. OSError: there is none, and it is gone."""
    try:
        return os.pidfd_open(pid)
    except OSError:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)  # it holds nothing yet that could delay its end
        raise


def go_through_checklist(kept_fds: Sequence[int], handled: Sequence[signal.Signals]) -> None:
    """Make a forked copy of the master a process of its own; the order matters.

    Called inside of :func:`handlers_held`, which tells ``handled``. ``kept_fds`` and the standard
    streams stay open.
    """
    # First of all: else our signals are written into the master's wake-up socket.
    signal.set_wakeup_fd(-1)
    for number in handled:
        signal.signal(number, signal.SIG_DFL)
    for number in IGNORED_BY_WORKERS:
        signal.signal(number, signal.SIG_IGN)
    # Inherited objects are never collected: none closes a descriptor number that is in use again.
    gc.freeze()
    asyncio._set_running_loop(None)
    # The master's epoll is shared with it: closed, never unregistered through.
    close_all_but(kept_fds)
    for name in SYSTEMD_VARIABLES:
        os.environ.pop(name, None)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def close_all_but(kept_fds: Sequence[int]) -> None:
    """Close every descriptor but these and the standard streams.

    A stray duplicate of a listener is a black hole: the kernel goes on giving it connections.
    """
    kept = {0, 1, 2, *kept_fds}
    # Not os.closerange: without close_range(2) it tries every number up to the limit, 10^9 of them.
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in kept:
            with contextlib.suppress(OSError):  # the directory's own descriptor is gone already
                os.close(int(name))
