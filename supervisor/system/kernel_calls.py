"""The system calls that the gateway cannot do without, each tried once at the start.

A container runtime whose seccomp profile is older than the call answers EPERM, an old kernel
ENOSYS. Found out later, in the middle of a fork or of an upgrade, this would be a riddle.
"""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable

from gateway.core.outcome import EXHAUSTED


def find_missing_call() -> str:
    """Which needed call is refused here and what to do about it; "" if none is.

    OSError: the host is short of something just now, which is no refusal.
    """
    for name, attempt in _ATTEMPTS.items():
        try:
            attempt()
        except OSError as error:
            if error.errno in EXHAUSTED:
                raise
            return (
                f"the system call {name} is refused ({error.strerror}), expected Linux 5.4 or "
                f"newer, and a seccomp profile of the container that allows it"
            )
    return ""


def find_unpinnable() -> str:
    """Why no process may be pinned to a CPU here, which --pin-workers needs; "" if it may be.

    No process is touched: one that asks for the CPUs that it has would be kept to them, also when
    its control group is given more (since Linux 6.2).
    """
    try:
        os.sched_setaffinity(-1, {0})
    except ProcessLookupError:  # there is none of this number, and the call may be made
        return ""
    except OSError as error:
        return (
            f"--pin-workers: the system call sched_setaffinity is refused ({error.strerror}), "
            f"expected a service unit (drop-ins/pin-workers.conf) or a seccomp profile that "
            f"allows it"
        )
    return ""


def _open_pidfd() -> None:
    os.close(os.pidfd_open(os.getpid()))


def _signal_through_pidfd() -> None:
    pidfd = os.pidfd_open(os.getpid())
    try:
        signal.pidfd_send_signal(pidfd, 0)  # 0: only look, kill(2)
    finally:
        os.close(pidfd)


def _wait_through_pidfd() -> None:
    pidfd = os.pidfd_open(os.getpid())
    try:
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
    except ChildProcessError:
        pass  # nobody is a child of their own: the call itself works
    finally:
        os.close(pidfd)


def _make_memfd() -> None:
    os.close(os.memfd_create("try"))


def _read_limit() -> None:
    resource.getrlimit(resource.RLIMIT_NOFILE)


_ATTEMPTS: dict[str, Callable[[], None]] = {
    "memfd_create": _make_memfd,
    "pidfd_open": _open_pidfd,
    "pidfd_send_signal": _signal_through_pidfd,
    "waitid": _wait_through_pidfd,
    "prlimit64": _read_limit,
}
