"""The suite itself: who runs which tests side by side."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

MODULE = """
import os
import pathlib

import pytest


@pytest.fixture(scope="module", autouse=True)
def expensive():
    with open({log!r}, "a") as log:
        print({name!r}, os.getpid(), file=log)


@pytest.mark.parametrize("number", range({count}))
{mark}
def test_nothing(number):
    pass
"""


PASSES_ALONE = """
import pathlib

import pytest


def test_beside_others():
    before = pathlib.Path({log!r})
    failed_before = before.exists()
    before.touch()
    assert failed_before


@pytest.mark.parametrize("number", range({wrong}))
def test_wrong(number):
    assert False
"""


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """A directory for tests of a suite of its own."""
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n  slow: takes long\n")
    return tmp_path


def run(suite: Path) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "tests.side_by_side", "--jobs=2", str(suite)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        argv, capture_output=True, text=True, timeout=240, cwd=suite, env=environment
    )


@pytest.mark.slow
def test_a_module_is_run_by_one_process(suite: Path) -> None:
    """What a module shares is made once, whatever releases of pytest and its plugins are there."""
    log = suite / "made"
    for name, mark in (("few", ""), ("more", "@pytest.mark.slow")):
        text = MODULE.format(log=str(log), name=name, count=12, mark=mark)
        (suite / f"test_{name}.py").write_text(text)
    done = run(suite)
    assert done.returncode == 0, done.stdout
    assert sorted(line.split()[0] for line in log.read_text().splitlines()) == ["few", "more"]


@pytest.mark.slow
@pytest.mark.parametrize(("wrong", "again", "status"), [(0, 1, 0), (1, 2, 1), (3, 0, 1)])
def test_a_few_that_failed_run_again_alone(
    suite: Path, wrong: int, again: int, status: int
) -> None:
    """One that passes alone is told; one that fails twice fails the run; so do more than a few."""
    (suite / "test_it.py").write_text(PASSES_ALONE.format(log=str(suite / "log"), wrong=wrong))
    done = run(suite)
    assert done.returncode == status, done.stdout + done.stderr
    assert ("once more, alone: " in done.stdout) == bool(again)
    told = "failed at first, passed alone: test_it.py::test_beside_others"
    assert (told in done.stdout) == (status == 0)
    assert f"{wrong + 1} failed" in done.stdout
