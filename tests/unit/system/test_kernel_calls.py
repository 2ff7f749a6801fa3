"""System calls that are tried at the start; tests of refusals run whole gateways."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from supervisor.system.kernel_calls import find_missing_call, find_unpinnable
from tests.support import wait_until

CPUSETS = Path("/sys/fs/cgroup/cpuset")
LOOK = """
import os, sys
from supervisor.system.kernel_calls import find_unpinnable
sys.stdin.readline()
print(find_unpinnable(), flush=True)
sys.stdin.readline()
print(len(os.sched_getaffinity(0)), flush=True)
"""


def test_nothing_is_missed_here() -> None:
    """The tests run where the gateway can."""
    assert find_missing_call() == ""
    assert find_unpinnable() == ""


def test_who_was_not_pinned_gets_the_cpus_that_its_group_is_given() -> None:
    """Asking for the CPUs that one has is to want no others."""
    if os.getuid() != 0 or not (CPUSETS / "cpuset.cpus").exists():
        pytest.skip("no control group of CPUs (version 1) can be made here")
    first, *more = sorted(os.sched_getaffinity(0))
    group = CPUSETS / f"gateway-cpus-{os.getpid()}"
    group.mkdir()
    try:
        for name in ("cpuset.mems", "cpuset.cpus"):
            whole = (CPUSETS / name).read_text()
            (group / name).write_text(str(first) if name == "cpuset.cpus" else whole)
        with subprocess.Popen(
            [sys.executable, "-c", LOOK], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            (group / "cgroup.procs").write_text(str(process.pid))
            process.stdin.write("\n")
            process.stdin.flush()
            assert process.stdout.readline() == "\n"
            (group / "cpuset.cpus").write_text(",".join(map(str, (first, *more))))
            process.stdin.write("\n")
            process.stdin.flush()
            assert int(process.stdout.readline()) == 1 + len(more)
    finally:
        wait_until(lambda: _is_removed(group))


def _is_removed(group: Path) -> bool:
    with contextlib.suppress(OSError):  # busy, for as long as the kernel has the process
        group.rmdir()
    return not group.exists()
