"""Signals as terminals, shells and service managers send them, or leave them behind."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import termios
from collections.abc import Iterator
from pathlib import Path

from supervisor.cli.admin_client import UnreachableError, fetch_status
from tests.backends import Backend, echo
from tests.clients import connect, talk
from tests.dns import Fault, NameServer
from tests.gateway import COMMAND, READY, Gateway, environment, running
from tests.support import free_port, wait_until


class Background:
    """A gateway in the background of a terminal with ``stty tostop``."""

    def __init__(self, backend: str) -> None:
        self.port = free_port()
        self.leader, self.terminal = pty.fork()
        if self.leader == 0:
            self._be_a_shell(backend)
        self.seen = b""
        self.pid = 0

    def _be_a_shell(self, backend: str) -> None:
        """The session leader: in the foreground itself, the gateway in a background group."""
        settings = termios.tcgetattr(0)
        settings[3] |= termios.TOSTOP
        termios.tcsetattr(0, termios.TCSANOW, settings)
        argv = [*COMMAND, "start", f"--endpoints={backend}", "--workers=2", "--log-format=json"]
        child = subprocess.Popen(
            [*argv, f"--listen-addr=127.0.0.1:{self.port}"],
            process_group=0,
            env=environment(),
        )
        os.write(1, f'{{"msg": "pid", "pid": {child.pid}}}\n'.encode())
        child.wait()
        os._exit(0)

    def lines(self, msg: str) -> list[dict[str, object]]:
        with contextlib.suppress(OSError):
            os.set_blocking(self.terminal, False)
            while data := os.read(self.terminal, 65536):
                self.seen += data
        whole = self.seen.rpartition(b"\n")[0].decode()
        parsed = [json.loads(line) for line in whole.splitlines() if line.startswith("{")]
        return [line for line in parsed if line["msg"] == msg]

    def wait_line(self, msg: str, count: int = 1) -> dict[str, object]:
        wait_until(lambda: len(self.lines(msg)) >= count, 20, f"{msg!r} in {self.seen!r}")
        return self.lines(msg)[count - 1]


@contextlib.contextmanager
def in_background(backend: str) -> Iterator[Background]:
    it = Background(backend)
    it.pid = int(str(it.wait_line("pid")["pid"]))
    try:
        yield it
    finally:
        for pid in (it.pid, it.leader):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        os.waitpid(it.leader, 0)
        os.close(it.terminal)


def test_a_background_job_writes_its_log_and_keeps_its_workers() -> None:
    """The terminal's SIGTTOU neither stops the log nor a worker; an operator's still does."""
    with Backend(echo) as backend, in_background(backend.address) as gateway:
        assert gateway.wait_line(READY)["workers"] == 2
        with connect(("127.0.0.1", gateway.port)) as session:
            talk(session)
        assert gateway.lines("number of workers changed") == []
        os.kill(gateway.pid, signal.SIGTTOU)
        assert gateway.wait_line("number of workers changed")["workers"] == 1
        os.kill(gateway.pid, signal.SIGTTIN)
        assert gateway.wait_line("number of workers changed", count=2)["workers"] == 2
        os.kill(gateway.pid, signal.SIGUSR2)
        gateway.wait_line(READY, count=2)
        os.kill(gateway.pid, signal.SIGTTOU)
        gateway.wait_line("number of workers changed", count=3)
        os.kill(gateway.pid, signal.SIGTERM)
        gateway.wait_line("drained")
        wait_until(lambda: not Path(f"/proc/{gateway.pid}").exists(), 10)


def test_an_inherited_ignored_sigchld_hides_no_end_of_a_child() -> None:
    """A worker's end is told as it was, and an upgrade works."""
    prefix = ["env", "--ignore-signal=CHLD"]
    with Backend(echo) as backend, running(endpoints=[backend.address], prefix=prefix) as gateway:
        os.kill(gateway.workers()[0], signal.SIGKILL)
        assert gateway.wait_line("worker exited")["how"] == "SIGKILL"
        gateway.wait_line("worker ready", count=3)
        gateway.signal(signal.SIGUSR2)
        gateway.wait_line(READY, count=2)


def test_workers_that_a_signal_asks_for_before_there_are_any_are_started() -> None:
    """TTIN and TTOU count while a start waits, for no more and no fewer than there may be."""
    changed, unchanged = "number of workers changed", "number of workers unchanged"
    less, more = signal.SIGTTOU, signal.SIGTTIN
    signals = ((less, changed), (less, unchanged), (more, changed), (more, changed))
    files = ["prlimit", "--nofile=64:64"]
    with NameServer() as ns, Backend(echo) as backend:
        ns.faults[""] = Fault.SERVFAIL
        port = backend.address.rpartition(":")[2]
        names = [f"b.test:{port}"]
        with Gateway(f"--nameserver={ns.address}", endpoints=names, prefix=files) as gateway:
            gateway.wait_line("no endpoint found yet, trying again")
            for number, line in (*signals, (more, changed), (more, unchanged), (less, changed)):
                count = len(gateway.lines(line)) + 1
                gateway.signal(number)
                gateway.wait_line(line, count=count)
            told = [
                line["workers"] for line in gateway.lines() if line["msg"] in (changed, unchanged)
            ]
            assert told == [1, 1, 2, 3, 4, 4, 3]
            ns.faults.clear()
            ns.set("b.test", "A", "127.0.0.1")
            assert gateway.wait_line(READY)["workers"] == 3


def test_who_asks_for_the_status_gets_it_at_any_level() -> None:
    """SIGUSR1 is a question, and its answer is no line to be left out."""
    admin = f"127.0.0.1:{free_port()}"
    with (
        Backend(echo) as backend,
        Gateway(
            "--log-level=error", f"--admin-addr={admin}", endpoints=[backend.address]
        ) as gateway,
    ):
        wait_until(lambda: state_of(admin) == "ready", 20)
        gateway.signal(signal.SIGUSR1)
        assert gateway.wait_line("status")["state"] == "ready"
        assert gateway.wait_line("status endpoint")["endpoint"] == backend.address
        assert {line["msg"] for line in gateway.lines()} == {
            "status",
            "status worker",
            "status endpoint",
        }


def state_of(admin: str) -> str:
    """Of a gateway that may not answer yet."""
    try:
        return str(fetch_status([admin])["state"])
    except UnreachableError:
        return ""
