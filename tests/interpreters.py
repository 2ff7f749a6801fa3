"""Run the tests with every Python that is found: ``python -m tests.interpreters``.

Each CPython from 3.11 on gets an environment with the newest libraries. The oldest one gets another
with the oldest libraries that ``pyproject.toml`` allows; newer ones would have to compile them.
Environments and logs are in ``build/interpreters``. Exits 1 if the tests failed anywhere.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "build" / "interpreters"
OLDEST = (3, 11)
NOTHING_TO_RUN = 5
"""pytest's exit code where no test was collected (pytest.ExitCode)."""


@dataclass(frozen=True, slots=True)
class Environment:
    """One interpreter with one choice of libraries."""

    python: Path
    version: tuple[int, int]
    oldest_libraries: bool

    @property
    def name(self) -> str:
        major, minor = self.version
        return f"{major}.{minor}-{'oldest' if self.oldest_libraries else 'newest'}"


def find_interpreters() -> dict[tuple[int, int], Path]:
    """CPythons by version, on the path and where pyenv keeps them; the first found counts."""
    folders = [Path(folder) for folder in os.environ.get("PATH", os.defpath).split(os.pathsep)]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    folders += sorted((each / "bin" for each in pyenv.glob("3.*")), reverse=True)
    found: dict[tuple[int, int], Path] = {}
    for folder in folders:
        for path in folder.glob("python3.*"):
            version = _version(path) if re.fullmatch(r"python3\.\d+", path.name) else None
            if version is not None and version >= OLDEST:
                found.setdefault(version, path)
    return dict(sorted(found.items()))


def _version(path: Path) -> tuple[int, int] | None:
    program = "import sys; print(sys.implementation.name, *sys.version_info[:2])"
    try:
        done = subprocess.run([path, "-c", program], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    words = done.stdout.split()
    if done.returncode or words[:1] != ["cpython"]:
        return None
    return int(words[1]), int(words[2])


def oldest_libraries() -> list[str]:
    """The lower bounds of ``pyproject.toml``, as exact versions."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [requirement.replace(">=", "==") for requirement in project["dependencies"]]


def choose(only: Sequence[str]) -> Iterator[Environment]:
    interpreters = find_interpreters()
    for version, python in interpreters.items():
        for oldest in (True, False):
            if oldest and version != min(interpreters):
                continue
            environment = Environment(python, version, oldest)
            if not only or environment.name in only:
                yield environment


def choose_newest(running: tuple[int, int]) -> Environment | None:
    """The newest Python that is found, with the newest libraries; None if it is the running one."""
    version, python = max(find_interpreters().items(), default=(running, Path(sys.executable)))
    return None if version <= running else Environment(python, version, oldest_libraries=False)


def prepare(environment: Environment) -> Path:
    """Make the environment; its interpreter."""
    folder = FOLDER / environment.name
    python = folder / "bin" / "python"
    if not python.exists():
        _run([str(environment.python), "-m", "venv", str(folder)])
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _run([*pip, "--requirement", "tests/requirements.txt"])
    libraries = oldest_libraries() if environment.oldest_libraries else []
    _run([*pip, "--upgrade", "--upgrade-strategy=eager", "--editable", ".", *libraries])
    return python


def _run(argv: list[str]) -> None:
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{done.stdout}{done.stderr}failed: {' '.join(argv)}")


def test(environment: Environment, tests: Sequence[str], jobs: int, *, quick: bool) -> bool:
    """Run the tests; whether they passed. Their output is in a log beside the environment.

    ``quick``: without those that are slow or need a CPU for themselves.
    """
    began_at = time.monotonic()
    python = prepare(environment)
    path = f"{python.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    variables = {**os.environ, "PATH": path, "GATEWAY_TESTS_FORK": "no"}
    side_by_side = ["tests.side_by_side", f"--jobs={jobs}"]
    if quick:
        parts = [[*side_by_side, "-m", "not own_cpu and not slow"]]
    else:
        parts = [[*side_by_side, "-m", "not own_cpu"], ["pytest", "-q", "-m", "own_cpu"]]
    codes = []
    log = FOLDER / f"{environment.name}.log"
    with log.open("w") as output:
        for part in parts:
            argv = [str(python), "-m", *part, *tests]
            done = subprocess.run(argv, cwd=ROOT, env=variables, stdout=output, stderr=output)
            codes.append(done.returncode)
    passed = have_passed(codes)
    text = log.read_text()
    if not passed:
        print(text.partition("= FAILURES =")[2] or text, flush=True)
    lines = [line for line in text.splitlines() if re.search(r"\d+ passed|^FAILED", line)]
    seconds = time.monotonic() - began_at
    print(f"{environment.name}: {'passed' if passed else 'FAILED'} in {seconds:.0f} s", flush=True)
    print(*(f"  {line}" for line in lines), sep="\n", flush=True)
    return passed


def have_passed(codes: Sequence[int]) -> bool:
    """Whether the parts of a run passed, of which some, but not all, may have had no test."""
    return 0 in codes and set(codes) <= {0, NOTHING_TO_RUN}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.interpreters", description=__doc__)
    parser.add_argument("--only", nargs="+", default=(), help="environments, such as 3.13-newest")
    parser.add_argument(
        "--newest", action="store_true", help="the newest Python alone, if it is not this one"
    )
    parser.add_argument("--quick", action="store_true", help="without the slow tests")
    parser.add_argument(
        "--prepare", action="store_true", help="make the environments, and run nothing"
    )
    parser.add_argument("--jobs", type=int, default=2 * (os.cpu_count() or 1))
    parser.add_argument("tests", nargs="*", default=["tests"], help="what pytest is to run")
    options = parser.parse_args(argv)
    if options.newest:
        newest = choose_newest(sys.version_info[:2])
        if newest is None:
            print(f"no Python is newer than this one, {sys.version.split()[0]}: nothing is tested")
            return 0
        environments = [newest]
    else:
        environments = list(choose(options.only))
    found = {environment.name for environment in environments}
    if gone := [name for name in options.only if name not in found]:
        parser.error(f"no such Python was found: {', '.join(gone)}")
    if not environments:
        parser.error("no Python was found")
    FOLDER.mkdir(parents=True, exist_ok=True)
    if options.prepare:
        for environment in environments:
            prepare(environment)
        return 0
    results = [
        test(environment, options.tests, options.jobs, quick=options.quick)
        for environment in environments
    ]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
