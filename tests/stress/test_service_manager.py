"""Restart, crash and stop under a service manager that keeps descriptors."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.installation import Installation
from tests.long_tests import LONG
from tests.stress.field import Field, answer_still, prepared
from tests.stress.machine import why_not
from tests.stress.manager import Manager
from tests.stress.test_disturbances import RATE, SECONDS, check, needs_namespaces
from tests.support import wait_until

TIMES = 6 if LONG else 3
pytestmark = [needs_namespaces, pytest.mark.timeout(300), pytest.mark.own_cpu]


@pytest.fixture
def wired(tmp_path: Path) -> Iterator[Field]:
    """Namespaces and an endpoint; the test starts the gateway."""
    with prepared(tmp_path, 0.010) as wired:
        yield wired


def disturb(wired: Field, manager: Manager, number: signal.Signals) -> None:
    with wired.long_sessions(40) as sessions:
        client = wired.client(RATE, SECONDS)
        for _ in range(TIMES):
            manager.end_main(number)
            manager.start()
        manager.until(lambda: client.poll() is not None, 60)
        check(wired, client)
        assert answer_still(sessions)


@pytest.mark.skipif(not LONG and not why_not(), reason="a real systemd shows it")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_with_handover_nothing_is_lost(wired: Field, number: signal.Signals) -> None:
    """A restart and a crash of the master: no client lost, 40 of 40 long sessions live."""
    manager = wired.managed("--handover", "--drain-timeout=60s")
    try:
        manager.start()
        disturb(wired, manager, number)
    finally:
        manager.stop()


def test_a_crash_of_the_master_costs_nothing(wired: Field) -> None:
    """Clients are served without a master; the next one keeps the workers, and their sessions."""
    config = wired.folder / "gateway.toml"
    config.write_text("")
    place = Installation(wired.folder / "installed")
    manager = wired.managed(
        "--handover",
        "--drain-timeout=1s",
        f"--config-file={config}",
        command=str(place.script),
    )
    try:
        manager.start()
        wait_until(wired.is_ready)
        workers = pids(wired)
        with wired.long_sessions(40) as sessions:
            for number in range(TIMES):
                manager.end_main(signal.SIGKILL)
                with wired.long_sessions(20):
                    pass
                manager.start()
                manager.until(wired.is_ready)
                assert pids(wired) == workers
                # What the workers know goes on from where it was.
                assert manager.main is not None
                config.write_text(f'dial-timeout = "{3 + number}s"\n')
                version = wired.status()["snapshot_version"]
                manager.main.send_signal(signal.SIGHUP)
                manager.until(partial(knows_more_than, wired, version))
            assert answer_still(sessions)
        # One that was kept is replaced like any other, though nobody knows how it ended.
        os.kill(min(workers), signal.SIGKILL)
        manager.until(lambda: wired.has_workers(4) and pids(wired) != workers)
        workers = pids(wired)
        log = [json.loads(line) for line in manager.log.read_text().splitlines()]
        gone = [line for line in log if line["msg"] == "worker exited"]
        assert [(line["level"], line["how"]) for line in gone] == [("warn", "gone")]
        place.install()
        manager.end_main(signal.SIGKILL)
        manager.start()
        manager.until(partial(wired.is_replaced, workers))
        workers = pids(wired)
        manager.end_main(signal.SIGTERM)
        manager.start()
        manager.until(partial(wired.is_replaced, workers))
    finally:
        manager.stop()


def pids(wired: Field) -> set[int]:
    return {each["pid"] for each in wired.workers()}


def knows_more_than(wired: Field, version: int) -> bool:
    """Whether every worker has a newer snapshot than this."""
    return all(each["snapshot_version"] > version for each in wired.workers())


def test_a_stop_with_handover_closes_the_address(wired: Field) -> None:
    """The store is dropped: the workers see it, close the address and leave by themselves."""
    manager = wired.managed("--handover", "--drain-timeout=1s")
    try:
        manager.start()
        wait_until(wired.is_ready)
        pids = [each["pid"] for each in wired.workers()]
        sessions = wired.long_sessions(3)
    except BaseException:
        manager.stop()
        raise
    with sessions:
        manager.stop()
        wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids), 10)


def test_a_crash_without_handover_loses_no_client_that_waits(wired: Field) -> None:
    """The stored listeners go on queueing until the next master's workers accept."""
    manager = wired.managed("--drain-timeout=2s")
    try:
        manager.start()
        client = wired.client(RATE, SECONDS)
        manager.end_main(signal.SIGKILL)
        manager.start()
        manager.until(lambda: client.poll() is not None, 60)
        check(wired, client)
    finally:
        manager.stop()
