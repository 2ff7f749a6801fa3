"""What a round trip, a connection and a megabyte cost a worker, in instructions.

A slip shows on any machine. callgrind counts the instructions of a real worker in
user space. What arrives together is sent while the worker is stopped, so that the batches are the
same each time. Instructions depend on the interpreter, so the bounds are multiples of what reads
and writes in a loop cost it, counted in the same way.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.plane import Backend
from tests.support import free_port, wait_until

VALGRIND = shutil.which("valgrind")
CONTROL = shutil.which("callgrind_control")
ROOT = Path(__file__).parents[3]

TOGETHER = 128
"""Sessions whose bytes arrive in one batch."""

TRIES = 20

READS_AND_WRITES = """
import os
r, w = os.pipe()
def copy(times, read=os.read, write=os.write):
    for _ in range(times):
        write(w, b"question")
        write(w, read(r, 65536))
        read(r, 65536)
copy({times})
"""
"""Two reads and two writes a turn: what a round trip is made of."""

MOST_PER_ROUND_TRIP = 3.3
MOST_PER_CONNECTION = 31.0
MOST_PER_MEGABYTE = 8.0
"""In units of two reads and two writes in a loop. Measured: 2.5, 23 and 5.4 with CPython 3.11;
2.6, 30 and 5.0 with 3.13."""

pytestmark = [
    pytest.mark.skipif(VALGRIND is None or CONTROL is None, reason="needs valgrind's callgrind"),
    # Beside others the worker, fifty times slower than usual, seldom gets a batch in one piece.
    pytest.mark.own_cpu,
]


def instructions_of(path: Path) -> int:
    found = re.search(r"^summary: (\d+)", path.read_text(), re.MULTILINE)
    assert found is not None, path
    return int(found[1])


def callgrind(directory: Path, *argv: str) -> list[str]:
    assert VALGRIND is not None
    return [VALGRIND, "--tool=callgrind", f"--callgrind-out-file={directory}/out", *argv]


@pytest.fixture(scope="module")
def unit(tmp_path_factory: pytest.TempPathFactory) -> float:
    """Instructions of two reads and two writes, the difference of two lengths of one program."""
    counts = []
    for times in (1_000, 11_000):
        directory = tmp_path_factory.mktemp("unit")
        program = READS_AND_WRITES.format(times=times)
        argv = callgrind(directory, sys.executable, "-S", "-E", "-c", program)
        subprocess.run(argv, check=True, stderr=subprocess.DEVNULL, timeout=300)
        counts.append(instructions_of(directory / "out"))
    return (counts[1] - counts[0]) / 10_000


class CountedWorker:
    """A worker under callgrind, in front of ``backend``."""

    def __init__(self, backend: Backend, directory: Path) -> None:
        self.address = ("127.0.0.1", free_port())
        self.backend = backend
        self._directory = directory
        self._dumps = 0
        program = ["-m", "tests.lone_worker", str(self.address[1]), str(backend.endpoint.port)]
        self.process = subprocess.Popen(
            callgrind(directory, sys.executable, *program),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONHASHSEED": "0"},
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"listening\n"

    def count(self, call: Callable[[], None]) -> int:
        """The worker's instructions while ``call`` runs."""
        self._dump()
        call()
        return self._dump()

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Whatever arrives meanwhile is one batch."""
        self.process.send_signal(signal.SIGSTOP)
        status = Path(f"/proc/{self.process.pid}/stat")
        wait_until(lambda: status.read_text().rpartition(")")[2].split()[0] == "T", 30, "stopped")
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def connect(self) -> list[tuple[socket.socket, socket.socket]]:
        """Sessions that began together, both ends; each client has said something."""
        with self.stopped():
            clients = [socket.create_connection(self.address, timeout=60) for _ in range(TOGETHER)]
            for client in clients:
                client.sendall(b"question")
        return [(client, self.backend.accept()) for client in clients]

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()

    def _dump(self) -> int:
        assert CONTROL is not None
        self._dumps += 1
        command = [CONTROL, "-d", "counted", str(self.process.pid)]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        return instructions_of(self._directory / f"out.{self._dumps}")


def receive(socks: Sequence[socket.socket], expected: bytes) -> None:
    for sock in socks:
        sock.settimeout(60)
        assert sock.recv(100) == expected


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CountedWorker]:
    with Backend(backlog=4 * TOGETHER) as backend:
        worker = CountedWorker(backend, tmp_path_factory.mktemp("worker"))
        try:
            for _ in range(4):  # until the interpreter has specialised its code
                connect_and_close(worker)
            yield worker
        finally:
            worker.close()


def talk(worker: CountedWorker, sessions: list[tuple[socket.socket, socket.socket]]) -> None:
    """One round trip of each session."""
    clients, upstreams = zip(*sessions, strict=True)
    with worker.stopped():
        for client in clients:
            client.sendall(b"question")
    receive(upstreams, b"question")
    with worker.stopped():
        for upstream in upstreams:
            upstream.sendall(b"answer")
    receive(clients, b"answer")


def connect_and_close(worker: CountedWorker) -> None:
    """Sessions of one round trip each, which end at the endpoint first, as after an HTTP answer."""
    sessions = worker.connect()
    clients, upstreams = zip(*sessions, strict=True)
    receive(upstreams, b"question")
    with worker.stopped():
        for upstream in upstreams:
            upstream.sendall(b"answer")
            upstream.shutdown(socket.SHUT_WR)
    receive(clients, b"answer")
    receive(clients, b"")
    with worker.stopped():
        for client in clients:
            client.shutdown(socket.SHUT_WR)
    receive(upstreams, b"")
    for sock in (*clients, *upstreams):
        sock.close()


def least(worker: CountedWorker, call: Callable[[], None], enough: float) -> float:
    """The least count per session of several, until one is ``enough``.

    On a busy machine some batches come in two parts, which costs a turn of the poller more.
    """
    counted = float("inf")
    for _ in range(TRIES):
        counted = min(counted, worker.count(call) / TOGETHER)
        if counted <= enough:
            break
    return counted


def test_a_round_trip(worker: CountedWorker, unit: float) -> None:
    sessions = worker.connect()
    try:
        receive([upstream for _, upstream in sessions], b"question")
        counted = least(worker, lambda: talk(worker, sessions), MOST_PER_ROUND_TRIP * unit)
    finally:
        for pair in sessions:
            for sock in pair:
                sock.close()
    print(f"{counted:,.0f} instructions, {counted / unit:.2f} units")
    assert counted <= MOST_PER_ROUND_TRIP * unit


def test_a_connection(worker: CountedWorker, unit: float) -> None:
    counted = least(worker, lambda: connect_and_close(worker), MOST_PER_CONNECTION * unit)
    print(f"{counted:,.0f} instructions, {counted / unit:.2f} units")
    assert counted <= MOST_PER_CONNECTION * unit


def test_a_spliced_megabyte(worker: CountedWorker, unit: float) -> None:
    megabytes = 64
    data = memoryview(bytes(1 << 20))
    with socket.create_connection(worker.address, timeout=60) as client:
        client.sendall(b"question")
        with worker.backend.accept() as upstream:
            receive([upstream], b"question")

            def send() -> None:
                left = len(data) * megabytes
                client.setblocking(False)
                upstream.setblocking(False)
                queued = 0
                while left:
                    if queued < len(data) * megabytes:
                        with contextlib.suppress(BlockingIOError):
                            queued += client.send(data[: len(data) * megabytes - queued])
                    with contextlib.suppress(BlockingIOError):
                        left -= len(upstream.recv(1 << 20))

            send()
            counted = min(worker.count(send) for _ in range(3)) / megabytes
    print(f"{counted:,.0f} instructions, {counted / unit:.2f} units")
    assert counted <= MOST_PER_MEGABYTE * unit
