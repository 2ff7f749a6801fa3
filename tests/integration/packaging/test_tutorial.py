"""The tutorial, typed into a shell as it is written."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.etcd import ETCD, needs_etcd
from tests.gateway import environment
from tests.generate import DOCS
from tests.support import free_port

PORTS = (
    *("12379", "12380", "22379", "22380", "32379", "32380"),
    "12389",
    "12390",
    "23790",
    "23791",
)
"""Those that the tutorial names; the test takes others, because it may run beside itself."""
MOST_FAILED = 5
"""Writes that the killed member, or an election that it caused, may cost."""

pytestmark = [
    needs_etcd,
    pytest.mark.skipif(shutil.which("etcdctl") is None, reason="needs etcdctl"),
    pytest.mark.slow,
    pytest.mark.timeout(600),
]


def test_the_tutorial_works_as_written(tmp_path: Path) -> None:
    """Every block in order in one shell; hardly a write is lost over a crash and an upgrade."""
    blocks = re.findall(
        r"^```sh\n(.*?)^```", (DOCS / "tutorial.md").read_text(), re.MULTILINE | re.DOTALL
    )
    assert len(blocks) >= 8
    script = "set -eu\n" + "\n".join(blocks)
    for port in PORTS:
        script = re.sub(rf"\b{port}\b", str(free_port()), script)
    assert ETCD is not None
    path = os.pathsep.join([str(Path(sys.executable).parent), os.path.dirname(ETCD)])
    env = environment({"TMPDIR": str(tmp_path), "PATH": f"{path}:{os.environ['PATH']}"})
    shell = subprocess.Popen(
        ["bash", "-c", script],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said = shell.communicate(timeout=400)[0]
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGKILL)
    assert shell.returncode == 0, said
    failed = re.search(r"writes that failed: (\d+)", said)
    assert failed is not None, said
    assert int(failed[1]) <= MOST_FAILED
