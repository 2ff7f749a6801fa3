"""Real workers that log into one stream that nobody reads: sessions go on, lines stay whole."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Iterator

import pytest

from supervisor.cli.admin_client import UnreachableError, fetch_status
from tests.backends import Backend, echo
from tests.clients import connect
from tests.gateway import COMMAND, environment
from tests.support import free_port, wait_until

SESSIONS = 6000
"""More lines than the stream and the queues of three workers hold together."""


@pytest.fixture(params=["pipe", "socket"])
def stream(request: pytest.FixtureRequest) -> Iterator[tuple[int, int]]:
    """A reading end that does not block, and what becomes standard error."""
    if request.param == "pipe":
        reader_fd, writer_fd = os.pipe()
    else:
        ours, theirs = socket.socketpair()
        reader_fd, writer_fd = ours.detach(), theirs.detach()
    os.set_blocking(reader_fd, False)
    yield reader_fd, writer_fd
    os.close(reader_fd)
    os.close(writer_fd)


def read(fd: int) -> bytes:
    data = b""
    try:
        while chunk := os.read(fd, 1 << 20):
            data += chunk
    except BlockingIOError:
        pass
    return data


class Log:
    """What was read of the log so far; a line that is not whole fails."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._sessions = 0
        self.rest = b""
        self.dropped = 0

    def told(self) -> int:
        """Sessions that have a line, and lines that are said to be dropped."""
        *lines, self.rest = (self.rest + read(self._fd)).split(b"\n")
        for line in map(json.loads, lines):
            self._sessions += line["msg"] == "session"
            self.dropped += line.get("dropped", 0) if line["msg"] == "log lines dropped" else 0
        return self._sessions + self.dropped


def say_hello(port: int) -> bool:
    """One whole session; whether the echo came back."""
    try:
        with connect(("127.0.0.1", port)) as client:
            client.sendall(b"hello")
            client.shutdown(socket.SHUT_WR)
            answer = b""
            while data := client.recv(100):
                answer += data
            return answer == b"hello"
    except ConnectionRefusedError:
        return False


def dropped(admin: str) -> int:
    """Lines of the log that were dropped, as the status document says; 0 if nobody answers yet."""
    try:
        return int(fetch_status([admin])["log_dropped"])
    except UnreachableError:
        return 0


@pytest.mark.slow(seconds=7)
def test_nobody_reads_the_log(stream: tuple[int, int]) -> None:
    """Every session works; every one of them is a whole line or counted as dropped."""
    reader_fd, writer_fd = stream
    port = free_port()
    with Backend(echo) as backend:
        flags = [f"--endpoints={backend.address}", f"--listen-addr=127.0.0.1:{port}"]
        gateway = subprocess.Popen(
            [*COMMAND, "start", *flags, "--workers=3", "--access-log", "--log-format=json"],
            stderr=writer_fd,
            env=environment(),
        )
        try:
            wait_until(lambda: say_hello(port), 15, "the first session")
            assert all(say_hello(port) for _ in range(SESSIONS))
            assert os.get_blocking(writer_fd)
            log = Log(reader_fd)
            # The workers' queues follow as there is room. At a stop they would have half a second.
            wait_until(lambda: log.told() == SESSIONS + 1, 60, "each is told or counted")
            gateway.terminate()
            wait_until(lambda: log.told() and gateway.poll() is not None, 20, "it has stopped")
        finally:
            gateway.kill()
            gateway.wait()
    assert gateway.returncode == 0
    assert log.told() == SESSIONS + 1
    assert log.dropped > 0
    assert not log.rest


@pytest.mark.slow
def test_lines_of_the_master_that_a_full_disk_does_not_take_are_counted() -> None:
    """Without an access log, nearly all lines are the master's."""
    admin = f"127.0.0.1:{free_port()}"
    flags = [f"--listen-addr=127.0.0.1:{free_port()}", f"--admin-addr={admin}"]
    with open("/dev/full", "w") as full:
        gateway = subprocess.Popen(
            [*COMMAND, "start", "--endpoints=127.0.0.1:1", *flags, "--workers=1"],
            stderr=full,
            env=environment(),
        )
        try:
            wait_until(lambda: dropped(admin), 15, "the first lines are counted")
        finally:
            gateway.terminate()
            assert gateway.wait() == 0
