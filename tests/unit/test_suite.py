"""The suite itself: who runs which tests side by side."""

from __future__ import annotations

import re
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


@pytest.mark.slow
def test_a_module_is_run_by_one_process(tmp_path: Path) -> None:
    """What a module shares is made once, whatever releases of pytest and its plugins are there."""
    options = re.search(
        r"^side_by_side = .* (--dist.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE
    )
    assert options is not None
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n  slow: takes long\n")
    log = tmp_path / "made"
    for name, mark in (("few", ""), ("more", "@pytest.mark.slow")):
        text = MODULE.format(log=str(log), name=name, count=12, mark=mark)
        (tmp_path / f"test_{name}.py").write_text(text)
    argv = [sys.executable, "-m", "pytest", "-q", "-c", str(tmp_path / "pytest.ini")]
    argv += ["--numprocesses=2", *options[1].split(), str(tmp_path)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout
    assert sorted(line.split()[0] for line in log.read_text().splitlines()) == ["few", "more"]
