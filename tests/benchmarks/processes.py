"""Processes under measurement: started on given CPUs, weighed as a whole tree, stopped.

The CPU time of a tree is that of all its processes and of children that ended and were reaped
(proc(5), ``stat``, in ticks of 10 ms); its memory is the proportional set size (``smaps_rollup``),
so that pages shared by several processes count once.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_STOP_LIMIT_S = 5.0
_POLL_S = 0.002


class BenchmarkError(Exception):
    """A program did not do its part; the text says which and what it printed last."""


@dataclass(frozen=True, slots=True)
class _Stat:
    parent: int
    reaped_s: float
    """CPU time of its children that it has reaped."""


def _read_stat(pid: int) -> _Stat | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return _Stat(int(fields[1]), sum(int(ticks) for ticks in fields[13:15]) / _TICKS_PER_S)


def cpu_s_of(pid: int) -> float:
    """CPU time of the process and of children that it reaped, up to now; 0 if it is gone.

    Its own is read from its clock, in nanoseconds (clock_getcpuclockid(3)): a tick would be 50 us
    of each request where a hundred a second are made for two seconds.
    """
    stat = _read_stat(pid)
    try:
        own_s = time.clock_gettime(~pid << 3 | 2)
    except OSError:
        own_s = 0.0
    return own_s + (stat.reaped_s if stat else 0.0)


class Process:
    """One program and all that it starts; owns them."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        *,
        cpus: frozenset[int],
        log: Path,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self._log = log
        self.started_at = time.monotonic()
        with log.open("ab") as output:
            self._popen = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **(env or {})},
                start_new_session=True,
                preexec_fn=lambda: os.sched_setaffinity(0, cpus),  # noqa: PLW1509 - no threads here
            )

    @property
    def pid(self) -> int:
        return self._popen.pid

    def tree(self) -> list[int]:
        """The process and its living descendants."""
        stats = {int(e): _read_stat(int(e)) for e in os.listdir("/proc") if e.isdigit()}
        found = [self.pid]
        for pid in found:
            found += [child for child, stat in stats.items() if stat and stat.parent == pid]
        return found

    def cpu_s(self) -> float:
        """CPU time that the whole tree has used up to now."""
        return sum(map(cpu_s_of, self.tree()))

    def pss_bytes(self, *, children_only: bool = False) -> int:
        """Memory of the whole tree, or of all but its root."""
        total = 0
        for pid in self.tree()[int(children_only) :]:
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
        return total

    def descriptors(self) -> int:
        """Open descriptors of the whole tree."""
        return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in self.tree())

    def wait_for(self, condition: Callable[[], bool], limit_s: float, what: str) -> None:
        """Wait until ``condition()``; an error if the process ends or ``limit_s`` pass before."""
        end_at = time.monotonic() + limit_s
        while not condition():
            if self._popen.poll() is not None:
                raise self._failed(f"ended with status {self._popen.returncode} before {what}")
            if time.monotonic() > end_at:
                raise self._failed(f"no {what} within {limit_s:g} s")
            time.sleep(_POLL_S)

    def stop(self) -> None:
        """End it, all that it started included."""
        tree = self.tree()
        if self._popen.poll() is None:
            self._popen.send_signal(signal.SIGTERM)
        try:
            self._popen.wait(_STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
        for pid in tree[1:]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def _failed(self, what: str) -> BenchmarkError:
        tail = " | ".join(self._log.read_text(errors="replace").splitlines()[-3:])
        return BenchmarkError(f"{self.name}: {what}; it printed: {tail or 'nothing'}")


def find_program(name: str) -> str | None:
    """The program's path; administrators' directories count for everybody."""
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")


def is_listening(port: int) -> bool:
    """Whether a socket listens on the port.

    Read from the kernel's list: a connection would go on to the endpoint, and iperf3 takes one for
    the beginning of a test.
    """
    sockets = Path("/proc/net/tcp").read_text()
    return re.search(rf":{port:04X} [0-9A-F:]+ 0A ", sockets) is not None


def raise_descriptor_limit(wanted: int) -> int:
    """Raise the limit on descriptors for this process and its children; what it is now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for limits in ((wanted, max(wanted, hard)), (hard, hard)):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        except (ValueError, PermissionError):
            continue
        return limits[0]
    return soft
