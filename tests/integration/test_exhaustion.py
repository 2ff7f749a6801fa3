"""The host runs out of something: memory, pipes, ports, disk, room in a channel.

Descriptors are in ``test_every_descriptor``, a log that nobody reads in ``test_log_pressure``.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import itertools
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from supervisor.cli.admin_client import fetch_status
from tests.backends import Backend, echo
from tests.clients import connect, echoes, read_exactly, talk
from tests.gateway import COMMAND, Gateway, all_know, environment, running
from tests.servers import serving
from tests.support import free_port, wait_until
from tests.wires import inside, loopback, prefix

QUIET = "--health-check=off"
PIPE_BYTES = 1 << 20
BULK = 24 << 20
V1_FILES = ("memory.limit_in_bytes", "memory.usage_in_bytes")


# Memory


class MemoryGroup:
    """A control group; :func:`memory_group` owns it."""

    def __init__(self, folder: Path, limit: str, usage: str) -> None:
        self._folder = folder
        self._limit, self._usage = folder / limit, folder / usage
        self.join = ["sh", "-c", f'echo $$ > {folder}/cgroup.procs && exec "$@"', "sh"]
        """In front of a command: it runs in the group."""

    def take(self, pid: int) -> None:
        """The process stays charged elsewhere for the memory that it has."""
        (self._folder / "cgroup.procs").write_text(str(pid))

    def in_use(self) -> int:
        """Bytes that the kernel cannot take back, as it can those of files that were read.

        Those of a process that was killed are counted a little longer than it lives.
        """
        lines = (self._folder / "memory.stat").read_text().splitlines()
        kinds = {name: int(count) for name, count in map(str.split, lines)}
        files = kinds["active_file"] + kinds["inactive_file"]
        return int(self._usage.read_text()) - files

    def allow(self, more: int) -> None:
        """So many bytes more than are in use."""
        self._limit.write_text(str(self.in_use() + more))

    def is_removed(self) -> bool:
        with contextlib.suppress(OSError):  # busy, for as long as the kernel gives back its pages
            self._folder.rmdir()
        return not self._folder.exists()


@contextlib.contextmanager
def memory_group() -> Iterator[MemoryGroup]:
    """A control group without a limit yet; skips where none can be made."""
    two = Path("/sys/fs/cgroup/cgroup.controllers").exists()
    folder = Path("/sys/fs/cgroup", "" if two else "memory", f"gateway-memory-{os.getpid()}")
    files = ("memory.max", "memory.current") if two else V1_FILES
    try:
        folder.mkdir()
        group = MemoryGroup(folder, *files)
        group.allow(1 << 30)
    except OSError:
        with contextlib.suppress(OSError):
            folder.rmdir()
        pytest.skip("no control group with a limit of memory can be made here")
    try:
        yield group
    finally:
        wait_until(group.is_removed, 10, "the group is empty and removed")


def test_a_worker_that_is_killed_for_its_memory_is_replaced() -> None:
    """Its own sessions end; those of the others live, and its slot is filled again."""
    admin = f"127.0.0.1:{free_port()}"
    with (
        Backend(echo) as backend,
        running(QUIET, f"--admin-addr={admin}", endpoints=[backend.address]) as gateway,
        contextlib.ExitStack() as stack,
    ):
        gateway.wait_line("admin address is open")
        clients = [stack.enter_context(connect(gateway.address)) for _ in range(8)]
        for sock in clients:
            talk(sock, b"?")
        victim, other = (each["pid"] for each in fetch_status([admin])["workers"])
        with memory_group() as group:
            group.take(victim)
            group.allow(128 << 10)

            def is_killed() -> bool:
                with contextlib.suppress(OSError):
                    for _ in range(16):  # each session takes some memory
                        sock = stack.enter_context(connect(gateway.address))
                        sock.sendall(b"?")
                        sock.settimeout(0.2)
                        sock.recv(1)
                return bool(gateway.lines("worker exited"))

            wait_until(is_killed, 60, "the kernel has killed the worker")
        assert gateway.lines("worker exited")[0]["how"] == "SIGKILL"

        def is_replaced() -> bool:
            document = fetch_status([admin])
            pids = {each["pid"] for each in document["workers"]}
            assert other in pids
            return document["state"] == "ready" and victim not in pids

        wait_until(is_replaced, 20)
        assert sum(map(is_served, clients)) >= 4 - 1, "those of the other worker live"
        assert echoes(gateway.address)


def test_commands_and_trials_are_killed_for_their_memory_and_the_gateway_is_not() -> None:
    """The limit of a container counts its health check, too, and an upgrade its trial."""
    admin = f"127.0.0.1:{free_port()}"
    flags = (QUIET, f"--admin-addr={admin}")
    with (
        memory_group() as group,
        Backend(echo) as backend,
        running(*flags, endpoints=[backend.address], prefix=group.join) as gateway,
    ):
        gateway.wait_line("admin address is open")
        with connect(gateway.address) as session:
            talk(session, b"?")
            least = group.in_use()
            group.allow(12 << 20)
            argv = [*group.join, *COMMAND, "status", f"--admin-addr={admin}"]
            done = subprocess.run(argv, env=environment(), capture_output=True)
            assert done.returncode == -signal.SIGKILL, gateway.text()
            wait_until(lambda: group.in_use() < least + (2 << 20), 30, "its memory is free again")
            gateway.signal(signal.SIGUSR2)
            failed = gateway.wait_line("upgrade failed, the old image goes on")
            assert failed["error"].startswith("signal 9, as the kernel does it for want of memory")
            talk(session, b"!")
            assert not gateway.lines("worker exited")


def is_served(sock: socket.socket) -> bool:
    try:
        sock.sendall(b"!")
        return sock.recv(1) == b"!"
    except OSError:
        return False


# Pipes


def bulk(conn: socket.socket) -> None:
    """Send BULK bytes and then their hash."""
    conn.recv(1)
    data = os.urandom(1 << 20)
    digest = hashlib.sha256()
    for _ in range(BULK // len(data)):
        conn.sendall(data)
        digest.update(data)
    conn.sendall(digest.digest())


def test_bulk_is_copied_where_pipes_may_not_grow() -> None:
    """The user holds more pipe memory than fs.pipe-user-pages-soft: every byte arrives anyway."""
    if os.getuid() != 0:
        pytest.skip("needs root, to take a privilege away from the gateway")
    soft = int(Path("/proc/sys/fs/pipe-user-pages-soft").read_text())
    count = soft * os.sysconf("SC_PAGE_SIZE") // PIPE_BYTES + 4
    if not 4 < count <= 400:
        pytest.skip("fs.pipe-user-pages-soft is not what it usually is")
    pipes = [os.pipe() for _ in range(count)]
    unprivileged = ["setpriv", "--bounding-set=-sys_resource,-sys_admin"]
    try:
        for _, pipe_w in pipes:
            fcntl.fcntl(pipe_w, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        with serving(bulk) as server:
            endpoints = [f"127.0.0.1:{server.port}"]
            with running(QUIET, endpoints=endpoints, workers=1, prefix=unprivileged) as gateway:
                with connect(gateway.address, 60) as client:
                    client.sendall(b"!")
                    digest = hashlib.sha256(read_exactly(client, BULK))
                    assert read_exactly(client, 32) == digest.digest()
                (worker,) = gateway.workers()
                assert largest_pipe(worker) < PIPE_BYTES
    finally:
        for ends in pipes:
            for fd in ends:
                os.close(fd)


def largest_pipe(pid: int) -> int:
    """The capacity of the largest pipe that the process has, in bytes."""
    sizes = [0]
    for name in os.listdir(f"/proc/{pid}/fd"):
        path = f"/proc/{pid}/fd/{name}"
        with contextlib.suppress(OSError):
            if os.readlink(path).startswith("pipe:"):
                fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
                sizes.append(fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ))
                os.close(fd)
    return max(sizes)


# Ports


@contextlib.contextmanager
def few_ports(count: int, *flags: str) -> Iterator[tuple[Gateway, Callable[[], socket.socket]]]:
    """A gateway with so many local ports to dial from, and what makes a client that has spoken."""
    with loopback(65_535 - count) as namespace, contextlib.ExitStack() as stack:
        narrow = f"net.ipv4.ip_local_port_range=40000 {40000 + count - 1}"
        subprocess.run([*prefix(namespace), "sysctl", "-qw", narrow], check=True)
        listener = inside(namespace, lambda: socket.create_server(("127.0.0.1", 2379)))
        stack.enter_context(serving(echo_all, listener=listener))
        gateway = stack.enter_context(
            Gateway(
                QUIET,
                "--access-log",
                *flags,
                endpoints=["127.0.0.1:2379"],
                workers=1,
                prefix=prefix(namespace),
            )
        )
        gateway.wait_ready()
        ports = itertools.count(20_000)  # outside of the range

        def client() -> socket.socket:
            sock = inside(
                namespace,
                lambda: socket.create_connection(
                    gateway.address, 30, source_address=("127.0.0.1", next(ports))
                ),
            )
            sock.sendall(b"!")
            return stack.enter_context(sock)

        yield gateway, client


def test_clients_wait_for_a_port_and_no_endpoint_is_blamed(tmp_path: Path) -> None:
    """Four local ports, four sessions: the fifth client is served as soon as one ends."""
    admin = f"unix:{tmp_path}/admin"
    flags = ["--dial-timeout=20s", f"--admin-addr={admin}"]
    with few_ports(4, *flags) as (gateway, client):
        first = [client() for _ in range(4)]
        assert [sock.recv(1) for sock in first] == [b"!"] * 4
        fifth = client()
        # Before a dial succeeds, which makes the master forget it.
        wait_until(lambda: last_error(admin) == "cannot assign requested address", 10, "no port")
        first[0].close()
        assert fifth.recv(1) == b"!"
        (endpoint,) = fetch_status([admin])["endpoints"]
        assert (endpoint["state"], endpoint["dial_failures"]) == ("active", 0)
        assert gateway.wait_line("cannot dial")["error"] == "cannot assign requested address"
        assert fetch_status([admin])["totals"]["refused"] == 0


def test_a_client_without_a_port_is_closed_after_the_dial_timeout(tmp_path: Path) -> None:
    """It is counted as one that could not be dialed for."""
    admin = f"unix:{tmp_path}/admin"
    flags = ["--dial-timeout=300ms", f"--admin-addr={admin}"]
    with few_ports(1, *flags) as (gateway, client):
        for expected in (b"!", b""):
            sock = client()
            with contextlib.suppress(ConnectionResetError):
                assert sock.recv(1) == expected
        wait_until(lambda: fetch_status([admin])["totals"]["refused"] == 1)
        assert gateway.wait_line("session")["end"] == "dial-failed"


def echo_all(conn: socket.socket) -> None:
    while data := conn.recv(65536):
        conn.sendall(data)


def last_error(admin: str) -> str | None:
    (endpoint,) = fetch_status([admin])["endpoints"]
    error: str | None = endpoint["last_error"]
    return error


# Disk


@contextlib.contextmanager
def small_disk(folder: Path, options: str) -> Iterator[Path]:
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs the right to mount")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_costs_log_lines_and_nothing_else(tmp_path: Path) -> None:
    """Sessions go on; once there is room again, the log says how many lines are missing."""
    with small_disk(tmp_path / "disk", "size=64k") as disk, Backend(echo) as backend:
        log = disk / "log"
        shell = ["sh", "-c", f'exec "$@" 2>> {log}', "sh"]
        with Gateway("--access-log", QUIET, endpoints=[backend.address], prefix=shell) as gateway:
            wait_until(lambda: log.exists() and "ready to proxy" in log.read_text(), 15)
            with (disk / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
                while True:
                    filler.write(bytes(4096))
            size = -1
            while size != (size := log.stat().st_size):  # its last page is not full yet
                assert all(echoes(gateway.address) for _ in range(20))
            assert all(echoes(gateway.address) for _ in range(20))
            (disk / "filler").unlink()

            def tells() -> bool:
                assert echoes(gateway.address)
                return log.read_text().count("log lines dropped") > 0

            wait_until(tells, 10)
            assert gateway.stop() == 0


def test_an_admin_socket_on_a_full_disk(tmp_path: Path) -> None:
    """The start ends with one line that names the address and the reason."""
    with (
        small_disk(tmp_path / "disk", "nr_inodes=1") as disk,
        Gateway(f"--admin-addr=unix:{disk}/admin", endpoints=["127.0.0.1:1"]) as gateway,
    ):
        assert gateway.process.wait(60) == 1
        last = gateway.lines()[-1]
        assert last["msg"].startswith(f"cannot serve the admin address unix:{disk}/admin: ")
        assert "No space left on device" in last["msg"]


# Channels between master and workers


def test_a_stopped_worker_delays_nobody_and_gets_the_newest(tmp_path: Path) -> None:
    """Its pipe is full of snapshots: the other has each of them, and it the last when it wakes."""
    admin, config = f"127.0.0.1:{free_port()}", tmp_path / "gateway.toml"

    def write(number: int, backend: Backend) -> None:
        names = [f"127.1.{n // 200}.{n % 200 + 1}:{number + 1}" for n in range(1000)]
        config.write_text(f"endpoints = {[backend.address, *names]}\n".replace("'", '"'))

    flags = [QUIET, f"--admin-addr={admin}", f"--config-file={config}", "--worker-timeout=300s"]
    with Backend(echo) as backend:
        write(0, backend)
        with running(*flags, "--removal-grace=1s", workers=2) as gateway:
            gateway.wait_line("admin address is open")
            before = fetch_status([admin])["snapshot_version"]
            sleeper, awake = (each["pid"] for each in fetch_status([admin])["workers"])
            os.kill(sleeper, signal.SIGSTOP)
            try:
                for number in range(1, 8):
                    write(number, backend)
                    gateway.signal(signal.SIGHUP)
                    gateway.wait_line("reload complete", 30, count=number)

                def is_ahead() -> bool:
                    document = fetch_status([admin])
                    known = {w["pid"]: w["snapshot_version"] for w in document["workers"]}
                    return bool(known[awake] == document["snapshot_version"] > known[sleeper])

                wait_until(is_ahead, 30, "the other worker has the newest")
            finally:
                os.kill(sleeper, signal.SIGCONT)
            wait_until(lambda: all_know(admin, before), 30, "both have the newest")
            assert not gateway.lines("worker exited")


def test_a_stopped_master_costs_no_worker_and_no_client() -> None:
    """What workers have to say waits, within bounds; clients are served throughout."""
    admin = f"127.0.0.1:{free_port()}"
    with Backend(echo) as backend:
        dead = f"127.0.0.1:{free_port()}"
        flags = [QUIET, f"--admin-addr={admin}"]
        with running(*flags, endpoints=[dead, backend.address]) as gateway:
            gateway.wait_line("admin address is open")
            gateway.signal(signal.SIGSTOP)
            try:
                served: list[bool] = []

                def ask() -> None:
                    served.extend(echoes(gateway.address) for _ in range(300))

                threads = [threading.Thread(target=ask, daemon=True) for _ in range(4)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join(60)
            finally:
                gateway.signal(signal.SIGCONT)
            assert served == [True] * 1200
            wait_until(lambda: fetch_status([admin])["totals"]["sessions_total"] >= 1200, 20)
            assert not gateway.lines("worker exited")
