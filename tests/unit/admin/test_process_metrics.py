"""The metrics of the master as a process, also where ``/proc`` has processes and nothing else."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from prometheus_client import ProcessCollector
from prometheus_client.core import Metric

from supervisor.admin.process_metrics import of_process

STARTED_AT = 1_700_000_000.0


@pytest.fixture
def pid() -> Iterator[int]:
    """A process that does nothing."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as cat:
        assert cat.stdin is not None
        assert cat.stdout is not None
        cat.stdin.write(b"!")
        cat.stdin.flush()
        cat.stdout.read(1)  # it runs, and sleeps again
        yield cat.pid


def values(metrics: Iterable[Metric]) -> dict[str, float]:
    return {sample.name: sample.value for each in metrics for sample in each.samples}


def test_they_are_those_of_every_exporter(pid: int) -> None:
    """The same names, texts, types and values as the library has them."""
    ours = list(of_process(pid, STARTED_AT))
    assert sorted(ours, key=str) == sorted(
        ProcessCollector(pid=lambda: pid, registry=None).collect(), key=str
    )


def test_none_is_missing_where_proc_has_processes_only(pid: int, tmp_path: Path) -> None:
    """As under the shipped unit (``ProcSubset=pid``): then the gateway knows when it started."""
    (tmp_path / str(pid)).symlink_to(f"/proc/{pid}")
    there = values(of_process(pid, STARTED_AT))
    there["process_start_time_seconds"] = STARTED_AT
    assert values(of_process(pid, STARTED_AT, tmp_path)) == there


def test_a_process_that_is_gone(tmp_path: Path) -> None:
    """Nothing is said of it."""
    assert values(of_process(1, STARTED_AT, tmp_path)) == {}
