"""A worker that is told to drain ends, whatever fails in it on the way."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.installation import ROOT
from tests.support import free_port

PROGRAM = """
import sys
from gateway.core.messages import Drain
from gateway.heartbeat import Heartbeat
from gateway.ingress.ingress import Ingress
from gateway.sessions.register import Sessions
from tests import lone_worker

def fail(*_, **__):
    print("failed", flush=True)
    raise OSError(24, "Too many open files")

{owner}.{name} = fail
sys.exit(lone_worker.main({port}, 9, [Drain({deadline_s})]))
"""


@pytest.mark.parametrize("deadline_s", [0.0, 30.0])
@pytest.mark.parametrize(
    ("owner", "name"),
    [
        ("Ingress", "leave"),
        ("Ingress", "close"),
        ("Heartbeat", "stop"),
        ("Heartbeat", "report"),
        ("Sessions", "close"),
    ],
)
def test_a_drain_ends_whatever_fails(owner: str, name: str, deadline_s: float) -> None:
    """The master that gave the order may be gone: nobody else would end the worker."""
    program = PROGRAM.format(owner=owner, name=name, deadline_s=deadline_s, port=free_port())
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "failed" in done.stdout, done.stderr
    assert "internal error" in done.stderr + done.stdout
