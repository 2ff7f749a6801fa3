"""The relay's tests against the compiled relay: ``python -m tests.compiled``.

The sources are copied to ``build/compiled`` and compiled there, and the tests of the data plane run
in the copy: all of them, or those named. Exits 1 if one failed; where a C compiler or the
header of Python is not there, nothing is tested, which is said.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from deploy.distribution.compiled import MODULES, compile_into, find_missing
from tests.interpreters import have_passed

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "build" / "compiled"
PARTS = ("deploy", "docs", "gateway", "supervisor", "tests", "Makefile", "pyproject.toml")

TESTS = ("tests/unit/gateway", "tests/integration/gateway")

MARKERS = "not own_cpu and not interpreted"


def copy(folder: Path, *, quick: bool = False) -> None:
    """The sources with the compiled relay among them, in ``folder``, which is made anew.

    ``quick``: not optimised, in a third of the time.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    ignored = shutil.ignore_patterns("__pycache__", "*.so")
    for name in PARTS:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, folder)
    if quick:
        compile_into(folder, ["-O0"])
    else:
        compile_into(folder)


def run(argv: Sequence[str], folder: Path) -> int:
    """Run Python in the copy, whose modules go before those that are installed."""
    environ = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.run([sys.executable, *argv], cwd=folder, env=environ).returncode


def is_compiled(folder: Path) -> bool:
    """Whether a program in the copy gets the native modules."""
    names = [module.replace("/", ".") for module in MODULES]
    program = (
        "import importlib, sys\n"
        f"files = [importlib.import_module(name).__file__ for name in {names}]\n"
        "sys.exit(any(file.endswith('.py') for file in files))"
    )
    return run(["-c", program], folder) == 0


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.compiled", description=__doc__)
    parser.add_argument("--jobs", type=int, default=2 * (os.cpu_count() or 1))
    parser.add_argument("tests", nargs="*", default=TESTS, help="what pytest is to run")
    options = parser.parse_args(argv)
    if missing := find_missing():
        print(f"{missing} is not there: the compiled relay is not tested")
        return 0
    copy(FOLDER)
    if not is_compiled(FOLDER):
        print("the copy does not run the native modules")
        return 1
    jobs = [f"--jobs={options.jobs}", "-m", MARKERS]
    alone = ["--jobs=0", "-m", "own_cpu and not interpreted"]
    results = [run(["-m", "tests.side_by_side", *j, *options.tests], FOLDER) for j in (jobs, alone)]
    return 0 if have_passed(results) else 1


if __name__ == "__main__":
    sys.exit(main())
