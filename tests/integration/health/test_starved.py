"""A gateway that got no CPU for a while draws no conclusion from what it did not hear."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.cli.admin_client import fetch_status
from tests.clients import connect, read_line
from tests.gateway import Gateway, running
from tests.servers import Server, serving
from tests.support import free_port, wait_until

# The servers are threads of the test, and answer in time only if they get the CPU at once.
pytestmark = [pytest.mark.own_cpu, pytest.mark.usefixtures("priority")]


QUICK = (
    "--health-check=http", "--health-interval=300ms", "--health-timeout=300ms",
    "--health-min-active=0%",
)  # fmt: skip


def slow(conn: socket.socket) -> None:
    """Answers a probe after a time in which a test can stop the master."""
    while data := conn.recv(65536):
        if data.endswith(b"\r\n\r\n"):
            time.sleep(0.1)
            conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


def probed_again(parts: list[Server]) -> None:
    before = [server.accepted for server in parts]
    wait_until(lambda: all(s.accepted >= n + 2 for s, n in zip(parts, before, strict=True)), 60)


def test_a_master_that_was_stopped_deactivates_nobody() -> None:
    """SIGSTOP for four seconds while probes are under way: they are made again."""
    with contextlib.ExitStack() as stack:
        parts = [stack.enter_context(serving(slow)) for _ in range(3)]
        names = [f"127.0.0.1:{server.port}" for server in parts]
        gateway = stack.enter_context(running(*QUICK, endpoints=names, workers=1))
        wait_until(lambda: sum(server.open for server in parts) > 0, what="a probe is under way")
        gateway.signal(signal.SIGSTOP)
        stopped_at = time.monotonic()
        wait_until(lambda: time.monotonic() > stopped_at + 4, 30)
        gateway.signal(signal.SIGCONT)
        probed_again(parts)
        assert gateway.lines("deactivated endpoint") == []


CGROUPS = Path("/sys/fs/cgroup")


@contextlib.contextmanager
def quota(pid: int, percent: int) -> Iterator[None]:
    """Let a process and its threads have so much of one CPU; skips where that cannot be done."""
    two = (CGROUPS / "cgroup.controllers").exists()
    group = CGROUPS / ("" if two else "cpu") / f"gateway-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError:
        pytest.skip("no cgroup can be made here")
    home = group.parent / "cgroup.procs"
    try:
        try:
            if two:
                (group / "cpu.max").write_text(f"{percent * 1000} 100000")
            else:
                (group / "cpu.cfs_quota_us").write_text(str(percent * 1000))
            (group / "cgroup.procs").write_text(str(pid))
        except OSError:
            pytest.skip("the cgroup has no CPU quota")
        yield
    finally:
        with contextlib.suppress(OSError):
            home.write_text(str(pid))
        group.rmdir()


@contextlib.contextmanager
def busy(admin: str) -> Iterator[None]:
    """Keep the master at work with questions, so that its quota is always used up."""
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            with contextlib.suppress(OSError):
                fetch_status([admin])

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(60)


def test_a_master_with_little_cpu_deactivates_nobody() -> None:
    """At five percent of a CPU probes take long, for a reason of our own."""
    with contextlib.ExitStack() as stack:
        parts = [stack.enter_context(serving(slow)) for _ in range(3)]
        names = [f"127.0.0.1:{server.port}" for server in parts]
        admin = f"127.0.0.1:{free_port()}"
        flags = (*QUICK, "--health-timeout=150ms", f"--admin-addr={admin}")
        gateway = stack.enter_context(running(*flags, endpoints=names, workers=1))
        gateway.wait_line("admin address is open")
        with quota(gateway.pid, 5), busy(admin):
            for _ in range(3):
                probed_again(parts)
        assert gateway.lines("deactivated endpoint") == []


def connecting(port: int, state: str) -> bool:
    """Whether a socket of this host is in this state towards the port (proc(5), tcp)."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any(row[2].endswith(f":{port:04X}") and row[3] == state for row in rows)


SYN_SENT = "02"


def test_a_worker_that_was_stopped_blames_nobody() -> None:
    """The endpoint answered its dial while the worker was stopped: that is no timeout."""
    with socket.socket() as listener, contextlib.ExitStack() as stack:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        flags = ("--health-check=off", "--dial-hedge=0s", "--dial-timeout=2s")
        gateway: Gateway = stack.enter_context(
            running(*flags, endpoints=[f"127.0.0.1:{port}"], workers=1)
        )
        fillers = [stack.enter_context(socket.socket()) for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        wait_until(lambda: connecting(port, SYN_SENT), what="the queue is full")
        for filler in fillers[1:]:
            filler.close()
        wait_until(lambda: not connecting(port, SYN_SENT), 20, "only the queued ones are left")
        client = stack.enter_context(connect(gateway.address))
        wait_until(lambda: connecting(port, SYN_SENT), what="the dial is under way")
        (worker,) = gateway.workers()
        os.kill(worker, signal.SIGSTOP)
        stopped_at = time.monotonic()

        def serve() -> None:
            while True:
                try:
                    conn, _ = listener.accept()
                except OSError:
                    return
                with contextlib.suppress(OSError):
                    conn.sendall(b"served\n")
                stack.callback(conn.close)

        server = threading.Thread(target=serve, daemon=True)
        server.start()
        wait_until(lambda: time.monotonic() > stopped_at + 4, 30)
        os.kill(worker, signal.SIGCONT)
        client.settimeout(60)
        assert read_line(client) == "served"
        assert gateway.lines("deactivated endpoint") == []
        listener.shutdown(socket.SHUT_RDWR)
        server.join(60)
