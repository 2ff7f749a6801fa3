"""What the host allows the gateway: CPUs, open files, and their size."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import resource
from collections.abc import Callable

from gateway.core.messages import MAX_SLOTS
from gateway.core.records import dataclass
from gateway.scoreboard import SIZE_BYTES

UNLIMITED = 1 << 30
"""More than any limit: how many descriptors a part may use until :func:`share_out` has said it."""


def raise_open_files() -> int:
    """Raise the soft limit of open files to the hard one; returns the limit in force."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return open_files()


def open_files() -> int:
    """The limit of open files that is in force."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def describe_shortage(error: OSError) -> str:
    """The error as a text; if the host is short of something, also which limit that is."""
    match error.errno:
        case errno.EMFILE:
            limit = f"the limit of open files of this process is {open_files()}"
        case errno.ENFILE:
            limit = "the host has as many open files as fs.file-max allows"
        case errno.ENOMEM | errno.ENOBUFS:
            limit = "the host or the control group has no memory left"
        case errno.EAGAIN:
            limit = "the user or the control group has as many processes as are allowed"
        case errno.ENOSPC if not error.filename:
            limit = "the user watches as many descriptors as fs.epoll.max_user_watches allows"
        case errno.EFBIG:
            limit = f"the limit of the size of files of this process is {_file_size()} (ulimit -f)"
        case _:
            return str(error)
    where = f" ({error.filename})" if error.filename else ""
    return f"{error.strerror}{where}: {limit}"


def _file_size() -> int:
    """The limit in force, in bytes; -1 is none."""
    return resource.getrlimit(resource.RLIMIT_FSIZE)[0]


_OWN_FILES = 32
"""Descriptors of the master besides those per worker: 22, and _SHARED_FILES at least."""

_SHARED_FILES = 10
"""What :class:`Shares` has to share out at least."""

_FILES_PER_WORKER = 6
"""A pipe, a control socket, a pidfd, both ends of the inbox, and one more during the fork."""


def find_obstacle(allowed: int, *, workers: int, listen: int, own: str = "/proc/self") -> str:
    """Why so many workers cannot run here; "" if they can. ``listen``: listen addresses."""
    needed = _needed(workers, listen)
    if allowed < needed:
        return (
            f"the limit of open files is {allowed}, expected at least {needed} "
            f"for {workers} workers and {listen} listen addresses"
        )
    if 0 <= (size := _file_size()) < SIZE_BYTES:
        return (
            f"the limit of the size of files is {size} bytes, expected at least {SIZE_BYTES} "
            f"(ulimit -f, LimitFSIZE=): it counts for memory that processes share"
        )
    if not os.path.exists(f"{own}/fd"):
        return "/proc is not there, expected it to be mounted"
    return ""


@dataclass(frozen=True, slots=True)
class Shares:
    """How many descriptors of the master each of these may use at once."""

    probes: int
    lookups: int
    handshakes: int
    admin: int


def share_out(allowed: int, *, workers: int, listen: int) -> Shares:
    """Share out what workers do not need; a tenth of it stays for everything else.

    Without such shares the probes of 300 endpoints take every descriptor of a master that may open
    64. It then can neither fork a worker nor receive the listeners of one. A master that goes on
    with too few, beside the workers of a former one, needs some of each all the same.
    """
    spare = max(allowed - _needed(workers, listen), 0) + _SHARED_FILES
    return Shares(
        probes=spare * 2 // 5, lookups=spare // 5, handshakes=spare // 10, admin=spare // 5
    )


def _needed(workers: int, listen: int) -> int:
    return _OWN_FILES + workers * (_FILES_PER_WORKER + listen)


def given_workers(configured: int) -> int:
    """How many ``--workers`` asks for; 0 is auto: one per usable CPU, MAX_SLOTS at most."""
    return configured or min(usable_cpus(), MAX_SLOTS)


def usable_cpus(cgroup: str = "/sys/fs/cgroup", own: str = "/proc/self") -> int:
    """The CPUs that this process may use: its affinity, and the quotas of its cgroups, rounded up.

    Cgroup v2 ``cpu.max`` of our group and of each above it, or v1 ``cpu.cfs_quota_us``
    (kernel documentation, admin-guide/cgroup-v2).
    """
    allowed = len(os.sched_getaffinity(0))
    quotas = [quota for quota in _quotas(cgroup, own) if 0 < quota < math.inf]
    return max(min([allowed, *(math.ceil(quota) for quota in quotas)]), 1)


def _quotas(cgroup: str, own: str) -> list[float]:
    quotas: list[float] = []
    with contextlib.suppress(OSError):
        for line in _read(f"{own}/cgroup").splitlines():
            hierarchy, controllers, path = line.split(":", 2)
            if hierarchy == "0":
                quotas += _along(cgroup, path, _read_v2)
                quotas += _along(f"{cgroup}/unified", path, _read_v2)
            elif "cpu" in controllers.split(","):
                quotas += _along(f"{cgroup}/{controllers}", path, _read_v1)
                quotas += _along(f"{cgroup}/cpu", path, _read_v1)
    return quotas


def _along(root: str, path: str, read: Callable[[str], float]) -> list[float]:
    """The quotas of the group and of every group above it, as far as they can be read."""
    found: list[float] = []
    names = [name for name in path.split("/") if name]
    for depth in range(len(names), -1, -1):
        with contextlib.suppress(OSError, ValueError):
            found.append(read("/".join([root, *names[:depth]])))
    return found


def _read_v2(group: str) -> float:
    quota, period = _read(f"{group}/cpu.max").split()
    return math.inf if quota == "max" else int(quota) / int(period)


def _read_v1(group: str) -> float:
    quota = int(_read(f"{group}/cpu.cfs_quota_us"))
    return math.inf if quota < 0 else quota / int(_read(f"{group}/cpu.cfs_period_us"))


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()
