"""An upgrade, a crash or a restart, after which the configuration names another number."""

from __future__ import annotations

import resource
import signal
from pathlib import Path

import pytest

from tests.backends import Backend, echo
from tests.clients import connect, echoes, talk
from tests.integration.handover.test_record import Managed, count_ready

pytestmark = pytest.mark.timeout(300)

WAYS = ["upgrade", "crash", "restart"]


class Counted:
    """A gateway whose configuration names a number of workers."""

    def __init__(self, folder: Path, endpoint: str) -> None:
        self._config = folder / "gateway.toml"
        self.want(2)
        # Three upgrades take a busy machine longer than the half minute of the default.
        patient = "--drain-timeout=600s"
        flags = (f"--config-file={self._config}", f"--endpoints={endpoint}", patient)
        self.managed = Managed(folder, *flags)
        self.manager = self.managed.manager

    def want(self, workers: int) -> None:
        self._config.write_text(f"workers = {workers}\n")

    def go(self, way: str) -> None:
        """The next master begins, and is ready."""
        match way:
            case "upgrade":
                self.manager.ready = False
                self.managed.signal(signal.SIGUSR2)
                self.manager.until(lambda: self.manager.ready, 60)
            case "crash":
                self.managed.crash()
            case _:
                self.managed.restart()

    def has(self, workers: int) -> None:
        self.managed.until(lambda status: count_ready(status) == workers)


@pytest.mark.parametrize("way", WAYS)
def test_another_number_is_taken_and_no_session_ends(tmp_path: Path, way: str) -> None:
    """Whatever TTIN and TTOU had led to; without another number that stays, but for a restart."""
    with Backend(echo) as backend:
        gateway = Counted(tmp_path, backend.address)
        try:
            gateway.manager.start()
            with connect(gateway.managed.address) as session:
                talk(session, b"a")
                gateway.managed.signal(signal.SIGTTIN)
                gateway.has(3)
                gateway.go(way)
                gateway.has(2 if way == "restart" else 3)
                for workers in (1, 4):
                    gateway.want(workers)
                    gateway.go(way)
                    gateway.has(workers)
                    assert all(echoes(gateway.managed.address, 10) for _ in range(8))
                talk(session, b"b")
        finally:
            gateway.manager.stop()


def test_more_workers_than_the_open_files_allow_are_refused(tmp_path: Path) -> None:
    """By the trial of the upgrade: the old image goes on as it is."""
    with Backend(echo) as backend:
        gateway = Counted(tmp_path, backend.address)
        try:
            gateway.manager.start()
            gateway.want(40)
            assert gateway.manager.main is not None
            resource.prlimit(gateway.manager.main.pid, resource.RLIMIT_NOFILE, (150, 150))
            gateway.managed.signal(signal.SIGUSR2)
            expected = "the limit of open files is 150, expected at least 312 for 40 workers"
            refused = "upgrade failed, the old image goes on"
            log = gateway.manager.log
            gateway.manager.until(lambda: refused in log.read_text(), 60)
            assert expected in log.read_text()
            gateway.has(2)
            assert echoes(gateway.managed.address, 10)
        finally:
            gateway.manager.stop()
