"""The site: built strictly, with every page in it, and nothing loaded from elsewhere."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.generate import DOCS, ROOT

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("material") is None, reason="needs the tools of `make .venv/.dist`"
)


def test_it_builds_without_a_warning(tmp_path: Path) -> None:
    """A link or a heading that does not exist ends it."""
    argv = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    for page in DOCS.rglob("*.md"):
        assert (tmp_path / page.relative_to(DOCS).with_suffix(".html")).exists(), page
    html = (tmp_path / "index.html").read_text()
    assert re.findall(r'(?:src|href)="(?:https?:)?//[^"]*\.(?:js|css|woff2?)[^"]*"', html) == []
    assert (tmp_path / "systemd.html").exists()
