"""What is handed out is built with few tools: those that are missing are done without, or named."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from deploy.distribution import deb, trees


@pytest.fixture(autouse=True)
def no_tools(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is installed, and nobody says of which time the sources are."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)


def test_without_git_the_time_is_fixed() -> None:
    """It is the one that the Makefile takes in that case."""
    (makefile,) = re.findall(
        r"^EPOCH = .* echo (\d+)\)", (trees.ROOT / "Makefile").read_text(), re.MULTILINE
    )
    assert trees.read_epoch() == int(makefile)


def test_without_dpkg_deb_there_is_one_line(tmp_path: Path) -> None:
    """And not a traceback after a minute of collecting libraries."""
    with pytest.raises(SystemExit, match="dpkg-deb, which is not installed"):
        deb.build(tmp_path)
