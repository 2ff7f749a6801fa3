"""The gateway as PID 1 of a container."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.backends import Backend, echo
from tests.clients import connect, talk
from tests.gateway import READY, Gateway
from tests.support import wait_until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs the right to make namespaces")


def zombies_of(pid: int) -> list[int]:
    """Children that have exited and were not waited for."""
    found = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        try:
            stat = Path(f"/proc/{child}/stat").read_text()
        except OSError:
            continue
        if stat.rpartition(")")[2].split()[0] == "Z":
            found.append(int(child))
    return found


def leave_orphan(pid: int, work: str) -> None:
    subprocess.run(
        ["nsenter", "-t", str(pid), "-p", "-m", "sh", "-c", f"({work}) & exit 0"],
        check=True,
        timeout=120,
    )


def test_orphans_are_reaped_and_workers_are_told_by_their_true_end() -> None:
    """Before and after an upgrade; a stop ends it like everywhere."""
    prefix = ["unshare", "--pid", "--fork", "--mount-proc"]
    with Backend(echo) as backend, Gateway(endpoints=[backend.address], prefix=prefix) as gateway:
        gateway.wait_ready()
        [init] = gateway.workers()
        for upgrades in (0, 1):
            for number in range(5):
                leave_orphan(init, f"sleep 0.{number}; exit 3")
            workers = Path(f"/proc/{init}/task/{init}/children").read_text().split()
            os.kill(int(workers[0]), signal.SIGKILL)
            gateway.wait_line("worker ready", count=3 + 3 * upgrades)
            killed = [line for line in gateway.lines("worker exited") if line["how"] == "SIGKILL"]
            assert len(killed) == 1 + upgrades
            wait_until(lambda: zombies_of(init) == [], 10, "no zombie is left")
            if not upgrades:
                os.kill(init, signal.SIGUSR2)
                gateway.wait_line(READY, count=2)
                gateway.wait_line("worker exited", count=3)
        with connect(gateway.address) as session:
            talk(session)
        os.kill(init, signal.SIGTERM)
        assert gateway.process.wait(60) == 0
