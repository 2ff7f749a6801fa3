"""Hosts that refuse a system call: the gateway says so at the start, or does without."""

from __future__ import annotations

import os
import platform
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.clients import connect, read_exactly
from tests.gateway import COMMAND, Gateway, environment, running
from tests.servers import serving
from tests.support import free_port

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="knows x86-64 numbers only")

TRIED = {"memfd_create", "pidfd_open", "pidfd_send_signal", "prlimit64"}
"""At the start; the others are refused when it is too late to end."""

BULK = os.urandom(1 << 20) * 4


@pytest.mark.parametrize("code", [1, 38], ids=["EPERM", "ENOSYS"])
@pytest.mark.parametrize("call", sorted(TRIED))
def test_a_refused_call_is_named(call: str, code: int) -> None:
    """The start fails with one error that names the call; no worker was forked."""
    prefix = [sys.executable, "-m", "tests.refused_calls", str(code), call]
    with Gateway(prefix=prefix) as gateway:
        assert gateway.process.wait(60) == 1
        errors = [line for line in gateway.lines() if line["level"] == "error"]
        assert [
            line["msg"].startswith(f"the system call {call} is refused") for line in errors
        ] == [True]
        assert "seccomp" in errors[0]["msg"]
        assert gateway.lines("worker exited") == []


def test_where_no_process_may_be_pinned_only_that_is_refused(tmp_path: Path) -> None:
    """As under the shipped unit without its drop-in: a start says so, and an upgrade is refused."""
    prefix = [sys.executable, "-m", "tests.refused_calls", "1", "sched_setaffinity"]
    refusal = "--pin-workers: the system call sched_setaffinity is refused"
    with Gateway("--pin-workers", prefix=prefix) as gateway:
        assert gateway.process.wait(60) == 1
        assert gateway.lines()[-1]["msg"].startswith(refusal)
    config = tmp_path / "config.toml"
    config.write_text("")
    with running(f"--config-file={config}", workers=1, prefix=prefix) as gateway:
        config.write_text("pin-workers = true\n")
        gateway.process.send_signal(signal.SIGUSR2)
        failed = gateway.wait_line("upgrade failed, the old image goes on")
        assert failed["error"].startswith(refusal)


def test_check_tells_what_a_start_would_miss() -> None:
    """And exits with what the start would exit with."""
    prefix = [sys.executable, "-m", "tests.refused_calls", "1", "pidfd_open,sched_setaffinity"]
    flags = ["--pin-workers", f"--listen-addr=127.0.0.1:{free_port()}", "--endpoints=127.0.0.1:1"]
    done = subprocess.run(
        [*prefix, *COMMAND, "check", *flags], env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "the system call pidfd_open is refused" in done.stderr
    assert "--pin-workers: the system call sched_setaffinity is refused" in done.stderr


def test_a_host_that_forks_no_worker_is_told_with_its_limit() -> None:
    """As one on which the user has as many processes as are allowed (EAGAIN)."""
    prefix = [sys.executable, "-m", "tests.refused_calls", "11", "clone"]
    with Gateway(prefix=prefix) as gateway:
        assert gateway.process.wait(60) == 70
        assert "as many processes as are allowed" in gateway.lines()[-1]["error"]


def test_bulk_is_copied_where_splice_is_refused() -> None:
    """Every byte arrives, in both directions, and the end of the stream after the last one."""

    def answer(conn: socket.socket) -> None:
        assert read_exactly(conn, len(BULK)) == BULK
        conn.sendall(BULK)

    prefix = [sys.executable, "-m", "tests.refused_calls", "1", "splice"]
    nobody = {"NOTIFY_SOCKET": "/does/not/exist"}
    with (
        serving(answer) as server,
        running(
            endpoints=[f"127.0.0.1:{server.port}"], workers=1, prefix=prefix, env=nobody
        ) as gateway,
        connect(gateway.address, 60) as client,
    ):
        assert gateway.lines("cannot reach the service manager")
        client.sendall(BULK)
        assert read_exactly(client, len(BULK)) == BULK
        assert client.recv(1) == b""
