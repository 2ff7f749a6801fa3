"""USR2 into trouble, again and again, under load: no client is refused, cut or lost.

Each trouble is there before the signal and gone after it. ``make stress`` does this for five
minutes, every two seconds.
"""

from __future__ import annotations

import contextlib
import json
import random
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.installation import Installation
from tests.long_tests import LONG, only_long
from tests.stress.field import ENDPOINT_PORT, Field, answer_still, prepared
from tests.stress.test_disturbances import RATE, check_lost, needs_namespaces
from tests.support import wait_until

SECONDS = 300.0 if LONG else 0.0
EVERY_S = 2.0
READY = "ready to proxy client requests"
FAILED = ("upgrade failed, the old image goes on", "upgrade failed, the old workers go on")
AFTER_EXEC = "import os\nif 'ETCD_GATEWAY_PREFLIGHT' not in os.environ:\n    raise OSError(5)"

pytestmark = [needs_namespaces, pytest.mark.timeout(600), pytest.mark.slow]


class Troubled:
    """A gateway on the field whose configuration, host and installation can be spoilt."""

    def __init__(self, ground: Field) -> None:
        self.ground = ground
        self.place = Installation(ground.folder / "installed")
        self.config = ground.folder / "gateway.toml"
        self.admin = f'admin-addr = "unix:{ground.admin}"\n'
        self.endpoints = f'endpoints = "127.0.0.1:{ENDPOINT_PORT}"\n'
        self.config.write_text(self.admin + self.endpoints)
        ground.start_gateway(
            "--drain-timeout=600s", command=str(self.place.script), config=self.config
        )
        assert ground.gateway is not None
        self.pid = ground.gateway.pid

    def said(self, *messages: str) -> int:
        """How many log lines have one of these messages."""
        count = 0
        for line in (self.ground.folder / "gateway.log").read_text().splitlines():
            with contextlib.suppress(ValueError):
                count += json.loads(line)["msg"] in messages
        return count

    def upgrade(self) -> str:
        """Ask for one, and wait for how it ends: ``ready`` or ``failed``."""
        ready, failed = self.said(READY), self.said(*FAILED)
        self.ground.signal(signal.SIGUSR2)
        wait_until(lambda: self.said(READY) > ready or self.said(*FAILED) > failed, 60)
        wait_until(self.is_one_master, 10, "there is always one master")
        return "ready" if self.said(READY) > ready else "failed"

    def is_one_master(self) -> bool:
        return Path(f"/proc/{self.pid}").exists()

    # Each is a context manager: the trouble lasts as long as its block.

    @contextlib.contextmanager
    def bad_file(self) -> Iterator[None]:
        with self._configured("nonsense = 1\n"):
            yield

    @contextlib.contextmanager
    def taken_address(self) -> Iterator[None]:
        with self._configured(self.endpoints + f'admin-addr = "127.0.0.1:{ENDPOINT_PORT}"\n'):
            yield

    @contextlib.contextmanager
    def dns_down(self) -> Iterator[None]:
        srv = 'discovery-srv = "nowhere.test"\nnameserver = "127.0.0.1:9"\n'
        with self._configured(self.admin + srv):
            yield

    @contextlib.contextmanager
    def no_descriptors(self) -> Iterator[None]:
        before = resource.prlimit(self.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(self.pid, resource.RLIMIT_NOFILE, (3, before[1]))
        yield
        resource.prlimit(self.pid, resource.RLIMIT_NOFILE, before)

    @contextlib.contextmanager
    def broken_library(self) -> Iterator[None]:
        self.place.shadow("aiohttp", "raise ImportError('half installed')\n")
        yield
        (self.place.folder / "aiohttp.py").unlink()

    @contextlib.contextmanager
    def broken_relay(self) -> Iterator[None]:
        with self._inserted("gateway/sessions/relay.py", "raise ImportError('half installed')"):
            yield

    @contextlib.contextmanager
    def broken_after_exec(self) -> Iterator[None]:
        with self._inserted("supervisor/endpoint_tracker.py", AFTER_EXEC):
            yield

    @contextlib.contextmanager
    def _configured(self, text: str) -> Iterator[None]:
        self.config.write_text(text)
        yield
        self.config.write_text(self.admin + self.endpoints)

    @contextlib.contextmanager
    def _inserted(self, module: str, code: str) -> Iterator[None]:
        self.place.install()
        self.place.insert(module, code)
        yield
        self.place.install()


@pytest.fixture
def troubled(tmp_path: Path) -> Iterator[Troubled]:
    """A gateway with four workers, 20 ms away from the client."""
    with prepared(tmp_path, 0.010) as ground:
        yield Troubled(ground)


@only_long
def test_no_trouble_reaches_a_client(troubled: Troubled) -> None:
    """Every trouble in turn, then at random; ten long sessions live, one master stays."""
    refused: list[Callable[[], contextlib.AbstractContextManager[None]]] = [
        troubled.bad_file,
        troubled.taken_address,
        troubled.no_descriptors,
        troubled.broken_library,
        troubled.broken_relay,
    ]
    outcomes: list[str] = []
    with troubled.ground.long_sessions(10) as sessions:
        client = troubled.ground.client(RATE, SECONDS or 25.0)
        end = time.monotonic() + SECONDS - 5.0
        queue = [*refused, troubled.dns_down]
        while queue or time.monotonic() < end:
            begin = time.monotonic()
            trouble = queue.pop(0) if queue else random.choice([*refused, troubled.dns_down])
            with trouble():
                outcome = troubled.upgrade()
            assert outcome == ("ready" if trouble == troubled.dns_down else "failed"), trouble
            outcomes.append(f"{trouble.__name__}: {outcome}")
            if outcome == "ready":
                assert troubled.upgrade() == "ready"
            time.sleep(max(begin + EVERY_S - time.monotonic(), 0.0))
        print(len(outcomes), "upgrades")
        check_lost(troubled.ground, client)
        assert answer_still(sessions)


def test_a_start_that_fails_after_exec_reaches_no_client(troubled: Troubled) -> None:
    """The old image is gone, replaced in place: the new one is tried until it is mended."""
    with troubled.ground.long_sessions(10) as sessions:
        client = troubled.ground.client(RATE, 15.0)
        for _ in range(2):
            with troubled.broken_after_exec():
                before = (troubled.ground.folder / "gateway.log").read_text()
                troubled.ground.signal(signal.SIGUSR2)
                wait_until(
                    lambda before=before: "trying again in" in _since(troubled, before),  # type: ignore[misc]
                    30,
                )
            assert troubled.upgrade() == "ready", _since(troubled, before)
        check_lost(troubled.ground, client)
        assert answer_still(sessions)


def _since(troubled: Troubled, before: str) -> str:
    return (troubled.ground.folder / "gateway.log").read_text()[len(before) :]


def test_the_end_of_a_master_that_waits_ends_its_workers(troubled: Troubled) -> None:
    """TERM, while the new image is tried again: the address is closed, nothing is left."""
    with troubled.broken_after_exec():
        troubled.ground.signal(signal.SIGUSR2)
        wait_until(lambda: "trying again in" in _since(troubled, ""), 30)
        workers = subprocess.run(
            ["pgrep", "--parent", str(troubled.pid)], capture_output=True, text=True
        ).stdout.split()
        troubled.ground.signal(signal.SIGTERM)
        wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), 20)
