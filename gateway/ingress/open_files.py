"""How many descriptors this process may have, and how many it has."""

from __future__ import annotations

import fcntl
import os
import resource
import sys

_LOOKED_AT = 8192
"""Descriptors asked for one by one: a worker begins with three for each of MAX_SLOTS at most."""


def count_open_files() -> tuple[int, int]:
    """The limit of open files of this process, and how many it has now; for its start."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = sys.maxsize if soft == resource.RLIM_INFINITY else soft
    try:
        return most, len(os.listdir("/proc/self/fd")) - 1  # but the one for looking
    except OSError:  # there is none for looking
        return most, sum(map(_is_open, range(min(most, _LOOKED_AT))))


def _is_open(fd: int) -> bool:
    try:
        fcntl.fcntl(fd, fcntl.F_GETFD)
    except OSError:
        return False
    return True
