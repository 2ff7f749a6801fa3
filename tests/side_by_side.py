"""Runs tests in several processes at once, and those that failed once more, alone.

``python -m tests.side_by_side --jobs=4 -m MARKERS PATH...``; ``--jobs=0`` runs one after the other.

A test that fails at first and then passes alone met a deadline of its own on a busy machine, or a
fault that shows only then. It is told at the end, and does not fail the run; one that fails twice
does. When more than a few fail at once, it is not the load: nothing is run again.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import coverage
import pytest

from tests.suite_processes import SuiteProcesses

MOST_AGAIN = 3
"""So many failed tests, at most, are run again."""


MEASURED = ".coverage"
"""So begin the names of the files with what was covered."""


class Failed:
    """A plugin of pytest that notes which tests failed, in whichever process they ran."""

    def __init__(self) -> None:
        self.tests: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and report.nodeid not in self.tests:
            self.tests.append(report.nodeid)


def run(paths: Sequence[str], *, jobs: int, markers: str) -> int:
    """Returns pytest's exit status, of the last run if there were two."""
    failed = Failed()
    plugins: list[object] = [failed, SuiteProcesses(jobs)] if jobs else [failed]
    status = pytest.main(["-q", "-m", markers, *paths], plugins=plugins)
    if status != pytest.ExitCode.TESTS_FAILED or not 0 < len(failed.tests) <= MOST_AGAIN:
        return int(status)
    print(f"\nonce more, alone: {', '.join(failed.tests)}", flush=True)
    measuring = ["-m", "coverage", "run", "--parallel-mode"] if coverage.Coverage.current() else []
    again = [sys.executable, *measuring, "-m", "pytest", "-q", *failed.tests]
    status = subprocess.run(again, check=False).returncode
    if status == 0:
        print(f"failed at first, passed alone: {', '.join(failed.tests)}")
    return status


def run_measured(paths: Sequence[str], *, jobs: int, markers: str) -> int:
    """As :func:`run`, and leaves for ``coverage report`` what was covered."""
    for left in Path().glob(f"{MEASURED}.*"):  # by a run that was killed: of code as it was then
        left.unlink()
    measured = coverage.Coverage(data_suffix=True)
    measured.start()
    status = run(paths, jobs=jobs, markers=markers)
    measured.stop()
    measured.save()
    together = coverage.Coverage()
    together.combine()
    together.save()
    return status


def main(argv: Sequence[str]) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.side_by_side", description=__doc__)
    parser.add_argument("--jobs", type=int, required=True)
    parser.add_argument("--coverage", action="store_true", help="for coverage report, afterwards")
    parser.add_argument("-m", dest="markers", default="", help="as pytest's")
    parser.add_argument("paths", nargs="+")
    options = parser.parse_args(argv)
    if options.jobs < 0:
        parser.error("--jobs is a number of processes, or 0: one test after the other")
    run_them = run_measured if options.coverage else run
    return run_them(options.paths, jobs=options.jobs, markers=options.markers)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
