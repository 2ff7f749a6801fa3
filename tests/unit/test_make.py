"""The commands of the Makefile and of the tests: what they answer, and what they leave as it is."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from deploy.distribution.trees import parse_folder
from tests import every_condition, generate, interpreters, mutants, side_by_side
from tests.benchmarks import __main__ as benchmarks

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("command", "argv"),
    [
        (side_by_side.main, ["--jobs=-1", "tests/unit"]),
        (mutants.main, ["leg: half of a write", "no such mistake"]),
        (every_condition.main, ["gateway/no_such_module.py"]),
        (generate.main, ["--chekc"]),
        (interpreters.main, ["--prepare", "--only", "3.11-newst"]),
        (benchmarks.main, ["--subjects", "nobody"]),
        (benchmarks.main, ["--rounds", "0"]),
        (benchmarks.main, ["--draw", "no_such_run.json"]),
        (benchmarks.main, ["--draw", str(ROOT / "docs" / "fleet.json")]),
        (lambda argv: bool(parse_folder("makes something", argv)), []),
    ],
)
def test_what_is_not_there_is_not_passed_over(
    command: Callable[[Sequence[str]], int],
    argv: Sequence[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A run that would try nothing, for a word that was mistyped, is no success."""
    for variable in ("PATH", "PYENV_ROOT"):  # where interpreters are looked for, and each is asked
        monkeypatch.setenv(variable, str(tmp_path))
    try:
        status: object = command(argv)
    except SystemExit as error:
        status = error.code
    assert status == 2


@pytest.mark.parametrize("there", ["3.11", "3.2"])
def test_another_python_than_that_of_the_environment_is_not_passed_over(
    tmp_path: Path, there: str
) -> None:
    """`make test PYTHON=...` would run the tests with the Python that .venv has."""
    for name, version in ((".venv/bin/python", there), ("python", "3.11")):
        program = tmp_path / name
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(f"#!/bin/sh\necho {version}\n")
        program.chmod(0o755)
    for goal, needs_it in (("check", True), ("clean", False), ("help", False)):
        argv = ["make", "-n", "-f", str(ROOT / "Makefile"), "PYTHON=./python", goal]
        done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True)
        told = ".venv has Python 3.2, and ./python is 3.11: `make clean` first" in done.stderr
        assert told == (needs_it and there == "3.2"), done.stderr


def test_programs_that_are_missing_are_named_to_a_user_too(tmp_path: Path) -> None:
    """Who is not root learns what the tests that are skipped would need."""
    for tool in ("bash", "dirname", "sort", "tr", "ls"):
        (tmp_path / tool).symlink_to(str(shutil.which(tool)))
    (tmp_path / "id").write_text("#!/bin/sh\necho 1000\n")
    (tmp_path / "id").chmod(0o755)
    (tmp_path / "etcd").touch()
    argv = ["bash", str(ROOT / "tests" / "provision.sh"), "dist", str(tmp_path)]
    environment = {"PATH": str(tmp_path)}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True)
    assert done.stdout.startswith("not installed, which takes root and apt-get: "), done.stderr
    assert " dpkg " in done.stdout


@pytest.mark.parametrize(
    ("codes", "passed"), [([0, 0], True), ([0, 5], True), ([5, 5], False), ([0, 1], False)]
)
def test_parts_of_a_run_pass_if_one_of_them_had_tests(codes: Sequence[int], passed: bool) -> None:
    """5 is pytest's word for no tests, as where all of a module need a CPU for themselves."""
    assert interpreters.have_passed(codes) == passed


@pytest.mark.parametrize("works", [True, False])
def test_an_environment_keeps_the_python_that_it_was_made_with(tmp_path: Path, works: bool) -> None:
    """Where another one is the first in PATH by now, it is not made over; one without pip is."""
    for name in ("pyproject.toml", "supervisor/launch.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    programs = {"python3": 0, ".venv/bin/python": 0 if works else 1, ".venv/bin/pip": 0}
    for name, code in programs.items():
        program = tmp_path / name
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(f'#!/bin/sh\necho {name} "$@" >> {tmp_path}/log\nexit {code}\n')
        program.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    argv = ["make", "-f", str(ROOT / "Makefile"), ".venv/.runtime"]
    subprocess.run(argv, cwd=tmp_path, env=environment, capture_output=True, check=True)
    called = (tmp_path / "log").read_text().splitlines()
    assert ("python3 -m venv .venv" in called) != works
    assert ".venv/bin/pip install --quiet --editable ." in called
