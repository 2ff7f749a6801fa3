"""The suite itself: who runs which tests side by side."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import coverage
import pytest

from tests.support import wait_until

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


ENDS_ITS_PROCESS = """
import os


def test_that_ends_its_process():
    os._exit(3)
"""


LEAVES_A_FILE_OPEN = """
def test_that_leaves_a_file_open():
    it = [open(__file__)]
    it.append(it)
"""


STOPS_A_PROCESS = """
import os
import pathlib
import signal
import subprocess
import sys

from tests.support import wait_until


def test_a_stopped_process_stays_stopped():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        child.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, child.pid, os.WSTOPPED)
        pathlib.Path("stopped").touch()
        wait_until(pathlib.Path("shell ended").exists)
        state = pathlib.Path(f"/proc/{child.pid}/stat").read_text().split()[2]
        child.kill()
    assert state == "T"
"""


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """A directory for tests of a suite of its own."""
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n  slow: takes long\n")
    return tmp_path


def run(suite: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "tests.side_by_side", "--jobs=2", *flags, str(suite)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        argv, capture_output=True, text=True, timeout=240, cwd=suite, env=environment
    )


@pytest.mark.slow(seconds=4)
def test_a_module_is_run_by_one_process(suite: Path) -> None:
    """What a module shares is made once, whatever releases of pytest and its plugins are there."""
    log = suite / "made"
    for name, mark in (("few", ""), ("more", "@pytest.mark.slow")):
        text = MODULE.format(log=str(log), name=name, count=12, mark=mark)
        (suite / f"test_{name}.py").write_text(text)
    done = run(suite)
    assert done.returncode == 0, done.stdout
    assert sorted(line.split()[0] for line in log.read_text().splitlines()) == ["few", "more"]


@pytest.mark.slow(seconds=4)
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


@pytest.mark.slow(seconds=4)
def test_a_process_that_ends_fails_the_run_and_others_go_on(suite: Path) -> None:
    """What ran in it is named, twice because it runs once more; the other modules are run."""
    (suite / "test_end.py").write_text(ENDS_ITS_PROCESS)
    for name in ("one", "two"):
        (suite / f"test_{name}.py").write_text(
            MODULE.format(log="made", name=name, count=3, mark="")
        )
    done = run(suite)
    assert done.returncode != 0, done.stdout
    assert "test_end.py::test_that_ends_its_process" in done.stdout
    assert "ended with exit code 3" in done.stdout
    assert "1 failed, 6 passed" in done.stdout


@pytest.mark.slow(seconds=4)
def test_what_the_last_test_leaves_open_fails_the_run(suite: Path) -> None:
    """A descriptor that the garbage collector closes is found in a fork too, whoever it was."""
    text = "[pytest]\nfilterwarnings = error\nmarkers =\n  slow: takes long\n"
    (suite / "pytest.ini").write_text(text)
    (suite / "test_it.py").write_text(LEAVES_A_FILE_OPEN)
    done = run(suite)
    assert done.returncode != 0, done.stdout
    assert "ResourceWarning" in done.stdout + done.stderr


@pytest.mark.slow
def test_what_a_killed_run_had_covered_counts_no_more(suite: Path) -> None:
    """Else lines would seem to be covered that no test reaches any more."""
    left = coverage.CoverageData(str(suite / ".coverage.killed"))
    left.add_lines({str(suite / "former.py"): [1]})
    left.write()
    (suite / "test_it.py").write_text("def test_nothing(): pass\n")
    done = run(suite, "--coverage")
    assert done.returncode == 0, done.stdout + done.stderr
    data = coverage.CoverageData(str(suite / ".coverage"))
    data.read()
    assert str(suite / "former.py") not in data.measured_files()


def test_another_run_may_remove_the_same_old_directories() -> None:
    """pytest warns of what another run was removing too, which is no error of either."""
    text = "(rm_rf) error removing /tmp/pytest-of-root/garbage-1"
    warnings.warn(pytest.PytestWarning(text), stacklevel=1)


@pytest.mark.slow(seconds=4)
def test_the_end_of_the_shell_that_began_the_run_continues_nothing(suite: Path) -> None:
    """A process that a test has stopped stays so, also where nohup keeps the run alive."""
    (suite / "test_it.py").write_text(STOPS_A_PROCESS)
    run_it = f"nohup {sys.executable} -m tests.side_by_side --jobs=2 . > told 2>&1 &"
    wait = "until [ -e stopped ]; do sleep 0.05; done"
    subprocess.run(
        ["sh", "-c", f"{run_it} {wait}"],
        cwd=suite, env={**os.environ, "PYTHONPATH": str(ROOT)}, process_group=0, timeout=60,
        check=True,
    )  # fmt: skip
    (suite / "shell ended").touch()
    wait_until(lambda: " in " in (suite / "told").read_text())
    assert "1 passed" in (suite / "told").read_text()
