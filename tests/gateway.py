"""A real gateway in a process of its own, for tests: start it, read its log, end it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Self

from supervisor.cli.admin_client import fetch_status
from tests import fork_server
from tests.support import PATIENCE, free_port, wait_until

COMMAND = [str(Path(sys.executable).with_name("etcd-gateway"))]
READY = "ready to proxy client requests"

BEFORE_ITS_LOG = "etcd-gateway: "
"""So begins what the command says while it has no log yet; also after the exec of an upgrade."""

ASK_IDLE_ONES_TOO = "--health-idle-interval=10ms"
"""Tests end endpoints that nobody uses, and wait for the probe that notices; flags that a test
gives itself come later and win."""


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a command under test: nothing of ours leaks into it."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("GATEWAY_", "COV_"))}
    kept.pop("NOTIFY_SOCKET", None)
    return kept | dict(extra or {})


class Gateway:
    """One ``etcd-gateway start``; owns the process and its log file.

    ``port`` is the listen port on 127.0.0.1 unless ``listen`` was given; an empty one is no flag.
    """

    def __init__(
        self,
        *flags: str,
        endpoints: list[str] | None = None,
        listen: str | None = None,
        workers: int = 2,
        env: Mapping[str, str] | None = None,
        prefix: list[str] | None = None,
        command: list[str] | None = None,
    ) -> None:
        self.port = free_port()
        self.listen = f"127.0.0.1:{self.port}" if listen is None else listen
        self._log = tempfile.NamedTemporaryFile(prefix="gateway-", suffix=".log")  # noqa: SIM115
        self._read = 0
        self._parsed: list[dict[str, Any]] = []
        argv = [*(prefix or []), *(command or COMMAND), "start"]
        argv += [f"--listen-addr={self.listen}"] if self.listen else []
        argv += [f"--workers={workers}", "--log-format=json", ASK_IDLE_ONES_TOO, *flags]
        if endpoints is not None:
            argv.append("--endpoints=" + ",".join(endpoints))
        forked = None
        if argv[0] == COMMAND[0]:
            forked = fork_server.start(argv, environment(env), self._log)
        self.process = forked or subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            env=environment(env),
        )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def address(self) -> tuple[str, int]:
        return ("127.0.0.1", self.port)

    def text(self) -> str:
        """Everything it wrote so far, to standard output and error."""
        return Path(self._log.name).read_text()

    def lines(self, msg: str | None = None) -> list[dict[str, Any]]:
        """Its log lines, all of them or those with this ``msg``; fails on a torn line."""
        with open(self._log.name, "rb") as file:  # whoever waits for a line asks again and again
            file.seek(self._read)
            whole, end, _ = file.read().rpartition(b"\n")
        self._read += len(whole) + len(end)
        for line in whole.decode().splitlines():
            if not line.startswith(BEFORE_ITS_LOG):
                self._parsed.append(json.loads(line))
        return [line for line in self._parsed if msg is None or line["msg"] == msg]

    def wait_line(self, msg: str, deadline_s: float = 60.0, count: int = 1) -> dict[str, Any]:
        """The ``count``-th log line with this ``msg``, as soon as it is there."""

        def seen() -> bool:
            if len(self.lines(msg)) >= count:
                return True
            assert self.process.poll() is None, f"it ended:\n{self.text()}"
            return False

        try:
            wait_until(seen, deadline_s, f"log line {msg!r}")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.text()[-4000:]}") from None
        return self.lines(msg)[count - 1]

    def wait_ready(self, deadline_s: float = 60.0) -> Gateway:
        self.wait_line(READY, deadline_s)
        return self

    def workers(self) -> list[int]:
        """Pids of its child processes."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        return [int(pid) for pid in children.split()]

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def stop(self, deadline_s: float = 60.0, *, at_once: bool = False) -> int:
        """TERM, and KILL if that does not end it in time; its exit code. Workers end with it.

        ``at_once``: with a second signal, so that nobody waits for the sessions that are left.
        """
        workers = self.workers() if self.process.poll() is None else []
        if self.process.poll() is None:
            self.process.terminate()
            if at_once:
                self.process.send_signal(signal.SIGINT)
        try:
            code = self.process.wait(deadline_s * PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        for pid in workers:
            with contextlib.suppress(ProcessLookupError, AssertionError):
                wait_until(lambda pid=pid: not lives(pid), 5)  # type: ignore[misc]
                continue
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._log.close()
        return code

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._log.file.closed:
            self.stop(at_once=True)


def all_know(admin: str, before: int) -> bool:
    """Whether all workers have the newest snapshot, and it is newer than the one of ``before``."""
    document = fetch_status([admin])
    newest = document["snapshot_version"]
    known = {worker["snapshot_version"] for worker in document["workers"]}
    return bool(newest > before and known == {newest})


def fetch_metrics(admin: str) -> str:
    """The metrics as Prometheus would scrape them at ``host:port``."""
    with urllib.request.urlopen(f"http://{admin}/metrics", timeout=20 * PATIENCE) as answer:
        text: str = answer.read().decode()
    return text


def lives(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


@contextlib.contextmanager
def running(*flags: str, **options: Any) -> Iterator[Gateway]:
    """A gateway that is ready, ended afterwards."""
    with Gateway(*flags, **options) as gateway:
        yield gateway.wait_ready()


def run_command(
    *arguments: str, env: Mapping[str, str] | None = None, timeout_s: float = 60.0
) -> subprocess.CompletedProcess[str]:
    """The ``etcd-gateway`` command with these arguments, run to its end."""
    argv = [*COMMAND, *arguments]
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        process = fork_server.start(argv, environment(env), output, errors) or subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            env=environment(env),
        )
        try:
            code = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        return subprocess.CompletedProcess(argv, code, _read_whole(output), _read_whole(errors))


def _read_whole(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()
