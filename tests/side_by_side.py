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

import pytest

OPTIONS = ("--dist=loadfile", "--no-loadscope-reorder")
"""A module's tests are run by one process, so what the module shares is made once."""

MOST_AGAIN = 3
"""So many failed tests, at most, are run again."""


class Failed:
    """A plugin of pytest that notes which tests failed, in whichever process they ran."""

    def __init__(self) -> None:
        self.tests: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and report.nodeid not in self.tests:
            self.tests.append(report.nodeid)


def run(paths: Sequence[str], *, jobs: int, markers: str, coverage: bool) -> int:
    """Returns pytest's exit status, of the last run if there were two."""
    options = ["-q"]
    if coverage:
        options += ["--cov", "--cov-report="]
    failed = Failed()
    status = pytest.main(
        [*options, f"--numprocesses={jobs}", *OPTIONS, "-m", markers, *paths], plugins=[failed]
    )
    if status != pytest.ExitCode.TESTS_FAILED or not 0 < len(failed.tests) <= MOST_AGAIN:
        return int(status)
    print(f"\nonce more, alone: {', '.join(failed.tests)}", flush=True)
    again = [sys.executable, "-m", "pytest", *options, *failed.tests]
    status = subprocess.run([*again, "--cov-append"] if coverage else again, check=False).returncode
    if status == 0:
        print(f"failed at first, passed alone: {', '.join(failed.tests)}")
    return status


def main(argv: Sequence[str]) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.side_by_side", description=__doc__)
    parser.add_argument("--jobs", type=int, required=True)
    parser.add_argument("--coverage", action="store_true", help="for coverage report, afterwards")
    parser.add_argument("-m", dest="markers", default="", help="as pytest's")
    parser.add_argument("paths", nargs="+")
    options = parser.parse_args(argv)
    return run(options.paths, jobs=options.jobs, markers=options.markers, coverage=options.coverage)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
