"""Hostile clients: what a good client's requests take while others abuse the proxy.

Each measure takes the p99 of a good client twice, alone and beside the abuse: over 16 sessions
that are there before, and over a new session for each request.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.loads import NothingAnsweredError, load_requests
from tests.benchmarks.measures import Measure, Metric, Setting, serve
from tests.benchmarks.processes import BenchmarkError, Process, find_program
from tests.benchmarks.subjects import Subject

SOURCE = Path(__file__).with_name("hostile.c")
GOOD_SESSIONS = 16
_READY_S = 60.0


@dataclass(frozen=True, slots=True)
class Abuse:
    """``kind`` of hostile.c, how many connections, and how many (or bytes) a second."""

    kind: str
    count: int
    per_s: int
    title: str


ABUSES = (
    Abuse("silent", 6_000, 5_000, "6,000 connections that say nothing"),
    Abuse("reset", 1_000, 20_000, "20,000 connects and resets a second"),
    Abuse("unread", 500, 500, "500 clients that ask for bulk and never read"),
    Abuse("vanish", 5_000, 1_000, "clients that vanish without a word, 1,000 a second"),
    Abuse("bytes", 5_000, 20_000, "5,000 sessions that get one byte at a time, 20,000 a second"),
)


def build(directory: Path) -> Path:
    """The program; made once a run."""
    binary = directory / "hostile"
    if not binary.exists():
        compiler = find_program("cc")
        if compiler is None:
            raise BenchmarkError("cc is not installed (apt install gcc libc6-dev)")
        subprocess.run([compiler, "-O2", "-o", str(binary), str(SOURCE)], check=True)
    return binary


@contextmanager
def abused(port: int, abuse: Abuse, directory: Path, cpus: frozenset[int]) -> Iterator[Path]:
    """The abuse goes on within; the file that it tells its progress in."""
    log = directory / f"hostile-{abuse.kind}-{port}.log"
    argv = [str(build(directory)), str(port), abuse.kind, str(abuse.count), str(abuse.per_s)]
    process = Process("hostile", argv, cpus=cpus, log=log)
    try:
        process.wait_for(lambda: "ready" in log.read_text(), _READY_S, "all connections")
        yield log
    finally:
        process.stop()


def connects_per_s(log: Path) -> float:
    """How fast connections were really made."""
    told = [
        (float(at), int(n))
        for at, n in re.findall(r"^([\d.]+) (\d+)$", log.read_text(), re.MULTILINE)
    ]
    if len(told) < 2:
        return 0.0
    (first, before), (last, after) = told[0], told[-1]
    return (after - before) / (last - first)


def _p99_us(port: int, setting: Setting, *, reconnect: bool) -> float:
    """If nothing at all was answered, all of the time. Requests that failed raise an error."""
    try:
        seen = load_requests(
            port, GOOD_SESSIONS, setting.duration_s, setting.places.load, reconnect=reconnect
        )
    except NothingAnsweredError:
        return setting.duration_s * 1e6
    return seen.p99_us


def _take(subject: Subject, setting: Setting, abuse: Abuse) -> Mapping[str, float]:
    process, port = serve(subject, setting, setting.endpoints)
    load, seconds = setting.places.load, setting.duration_s
    try:
        load_requests(port, GOOD_SESSIONS, 1, load)
        alone = load_requests(port, GOOD_SESSIONS, seconds, load).p99_us
        with abused(port, abuse, setting.directory, load) as log:
            before_s = process.cpu_s()
            beside = _p99_us(port, setting, reconnect=False)
            fresh = _p99_us(port, setting, reconnect=True)
            used_s = process.cpu_s() - before_s
            made = connects_per_s(log)
    finally:
        process.stop()
    return {
        "p99_beside_us": beside,
        "p99_fresh_us": fresh,
        "p99_alone_us": alone,
        "cpu_share": 100 * used_s / (2 * seconds),
        "made": made,
    }


HOSTILE_MEASURES = tuple(
    Measure(
        f"hostile-{abuse.kind}",
        f"beside {abuse.title}",
        (
            Metric("p99_beside_us", "p99 of sessions, us", 0),
            Metric("p99_fresh_us", "p99 of new sessions, us", 0),
            Metric("p99_alone_us", "p99 alone, us", 0),
            Metric("cpu_share", "% of a CPU", 0),
            Metric("made", "hostile connections a second", 0),
        ),
        lambda subject, setting, abuse=abuse: _take(subject, setting, abuse),  # type: ignore[misc]
    )
    for abuse in ABUSES
)
