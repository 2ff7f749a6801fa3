"""The machine that the figures are from, and who runs on which of its CPUs."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Places:
    """The subject has one CPU for itself; loads and backends share others."""

    subject: frozenset[int]
    load: frozenset[int]
    backend: frozenset[int]


def share_cpus() -> Places:
    """Give the last CPU to the subject, the rest to load and backend; one CPU serves all."""
    cpus = sorted(os.sched_getaffinity(0))
    *others, last = cpus
    others = others or [last]
    half = (len(others) + 1) // 2
    return Places(
        subject=frozenset([last]),
        load=frozenset(others[:half]),
        backend=frozenset(others[half:] or others),
    )


def describe(program: Path) -> dict[str, str]:
    """What a reader needs to compare the figures with those of another machine.

    ``program`` is etcd-gateway as it is measured; its interpreter lies beside it.
    """
    cpu = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text())
    system = re.search(r'PRETTY_NAME="(.+)"', Path("/etc/os-release").read_text())
    return {
        "CPU": f"{len(os.sched_getaffinity(0))} x {cpu[1] if cpu else platform.machine()}",
        "memory": f"{int(memory[1]) / 2**20:.0f} GiB" if memory else "unknown",
        "system": system[1] if system else platform.platform(),
        "kernel": platform.release(),
        "Python": _describe_interpreter(program.with_name("python")),
    }


def _describe_interpreter(python: Path) -> str:
    """Its release and its compiler: two builds of one release may take different times."""
    code = "import platform; print(platform.python_version(), platform.python_compiler(), sep=', ')"
    argv = [python if python.exists() else sys.executable, "-c", code]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()
