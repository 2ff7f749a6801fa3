"""What tells one host from another."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from supervisor.system.machine import identify

ID = "0123456789abcdef0123456789abcdef"


def test_the_machine_id_is_it(tmp_path: Path) -> None:
    """Where there is a machine id, nothing else counts."""
    (tmp_path / "machine-id").write_text(ID + "\n")
    assert identify(tmp_path / "machine-id", tmp_path / "boot_id") == ID


@pytest.mark.parametrize("text", ["", "uninitialized\n", "0" * 32, ID[:-1], "é" * 32])
def test_without_one_the_name_and_the_boot_are_it(text: str, tmp_path: Path) -> None:
    """An image that was never started by itself has no machine id of its own."""
    (tmp_path / "machine-id").write_text(text)
    (tmp_path / "boot_id").write_text("b007\n")
    expected = f"{socket.gethostname()} b007"
    assert identify(tmp_path / "machine-id", tmp_path / "boot_id") == expected


def test_without_any_file_the_name_is_it(tmp_path: Path) -> None:
    """A host without /proc and /etc/machine-id still has a name."""
    assert identify(tmp_path / "absent", tmp_path / "absent") == socket.gethostname()
