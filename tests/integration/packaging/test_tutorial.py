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
from tests.etcd_answers import is_answer
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
TYPED_AGAIN = r"""
etcdctl() {  # who reads along types it again when etcd has no leader just now
  if [ "$1 $2" = "put tick" ]; then command etcdctl "$@"; return; fi
  for _ in $(seq 30); do
    if command etcdctl "$@" 2> said; then return; fi
    cat said >&2
    grep -q 'etcdserver: \|deadline exceeded' said || return 1
    sleep 1
  done
  return 1
}
"""
QUIETLY = "2>&1 || echo failed"
DEADLINE = "context deadline exceeded"
"""etcdctl waits for shorter than a member that has no leader."""
MOST_BROKEN = 1
"""Writes, one after the other, that are on their way to a member when it is killed."""

pytestmark = [
    needs_etcd,
    pytest.mark.skipif(shutil.which("etcdctl") is None, reason="needs etcdctl"),
    pytest.mark.slow,
    pytest.mark.timeout(600),
]


def test_the_tutorial_works_as_written(tmp_path: Path) -> None:
    """Every block in order in one shell; over a crash and an upgrade no connection breaks
    but the one to the member that is killed."""
    blocks = re.findall(
        r"^```sh\n(.*?)^```", (DOCS / "tutorial.md").read_text(), re.MULTILINE | re.DOTALL
    )
    assert len(blocks) >= 8
    written = "\n".join(blocks)
    assert QUIETLY in written
    script = (
        "set -eu\n"
        + TYPED_AGAIN
        + written.replace(QUIETLY, f"2>> {tmp_path}/errors || echo failed")
    )
    ports = {port: str(free_port()) for port in PORTS}  # maybe one of the tutorial's: all at once
    script = re.sub(rf"\b({'|'.join(PORTS)})\b", lambda found: ports[found[1]], script)
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
    assert re.search(r"writes that failed: \d+", said), said
    errors = (tmp_path / "errors").read_text()
    assert "connection refused" not in errors
    whole = [line for line in errors.splitlines() if line.startswith("Error: ")]
    broken = [line for line in whole if not is_answer(line) and DEADLINE not in line]
    assert len(broken) <= MOST_BROKEN, broken
