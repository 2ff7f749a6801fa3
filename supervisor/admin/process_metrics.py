"""The metrics of a process that every exporter names alike, read from ``/proc``.

prometheus-client has them too, but none of them where ``/proc/stat`` is not there: under the
shipped unit ``/proc`` has processes and nothing else (``ProcSubset=pid``).
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

_TICKS = os.sysconf("SC_CLK_TCK")
_UTIME, _STIME, _STARTTIME, _VSIZE, _RSS = 11, 12, 19, 20, 21
"""Places in /proc/PID/stat behind the name, which may have blanks and brackets (proc_pid_stat(5)).
"""


def of_process(pid: int, started_at: float, proc: Path = Path("/proc")) -> Iterator[Metric]:
    """As much as may be read. ``started_at``: where the kernel does not say when it booted."""
    try:
        fields = (proc / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return
    yield _gauge("virtual_memory_bytes", "Virtual memory size in bytes.", float(fields[_VSIZE]))
    yield _gauge(
        "resident_memory_bytes",
        "Resident memory size in bytes.",
        float(fields[_RSS]) * resource.getpagesize(),
    )
    booted_at = _booted_at(proc)
    if booted_at is not None:
        started_at = booted_at + float(fields[_STARTTIME]) / _TICKS
    yield _gauge(
        "start_time_seconds", "Start time of the process since unix epoch in seconds.", started_at
    )
    yield CounterMetricFamily(
        "process_cpu_seconds_total",
        "Total user and system CPU time spent in seconds.",
        value=(float(fields[_UTIME]) + float(fields[_STIME])) / _TICKS,
    )
    try:
        open_fds = len(os.listdir(proc / str(pid) / "fd"))
        limits = (proc / str(pid) / "limits").read_text(encoding="ascii")
    except OSError:  # of a process that belongs to somebody else
        return
    yield _gauge("open_fds", "Number of open file descriptors.", open_fds)
    most = limits.partition("Max open files")[2].split()[0]
    yield _gauge("max_fds", "Maximum number of open file descriptors.", float(most))


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"process_{name}", text, value=value)


def _booted_at(proc: Path) -> float | None:
    try:
        with open(proc / "stat", "rb") as lines:
            return next((float(line.split()[1]) for line in lines if line[:6] == b"btime "), None)
    except OSError:
        return None
