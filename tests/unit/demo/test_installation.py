"""How the demo starts its gateway, and what it tells its user to type."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import pytest

from supervisor.demo.installation import gateway_command, typed_command


def test_the_one_file_is_run_whatever_its_name_and_mode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A downloaded file is not executable, and runs by the Python that was given it."""
    program = tmp_path / "gate way"
    with zipfile.ZipFile(program, "w") as archive:
        archive.writestr("__main__.py", "")
    monkeypatch.setattr(sys, "argv", [str(program), "demo"])
    assert gateway_command() == [sys.executable, str(program)]
    assert typed_command() == f"{sys.executable} '{program}'"


def test_a_script_on_the_path_is_typed_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that the shell finds needs no path, another one does."""
    script = tmp_path / "etcd-gateway"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "argv", [str(script), "demo"])
    monkeypatch.setenv("PATH", "/nowhere")
    assert (gateway_command(), typed_command()) == ([str(script)], str(script))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert (gateway_command(), typed_command()) == ([str(script)], "etcd-gateway")
