"""What a round trip and a connection cost a worker, in counts: a slip shows without a clock."""

from __future__ import annotations

import gc
import shutil
import signal
import socket
import subprocess
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.clients import connect
from tests.gateway import running
from tests.plane import Backend, Plane
from tests.support import wait_until

STRACE = shutil.which("strace")
GATEWAY_FILES = tracemalloc.Filter(True, "*/gateway/*")

ROUND_TRIPS = 300
CONNECTIONS = 100

WAITS = {"epoll_wait", "epoll_pwait"}
"""As many as there are pauses between the events: they are the client's."""

MOST_PER_CONNECTION = {
    "accept4": 2,  # the second one finds nobody
    "ioctl": 1,
    "read": 4,  # four where the client's first words come after the accept
    "socket": 1,
    "setsockopt": 4,  # urgent bytes in line, no delay, quick ACKs off and on
    "connect": 1,
    "write": 3,  # the last one with the end of stream
    "shutdown": 1,
    "getsockname": 2,
    "epoll_ctl": 2,
    "close": 2,
}

ALIKE = {"recvfrom": "read", "sendto": "write"}
"""The compiled relay calls recv and send; without it, only the last bytes are sent."""

BEATS, BEATS_PER_S = 60, 30
"""System calls of a kind that heartbeats, reports and keepalive may make meanwhile."""


pytestmark = pytest.mark.own_cpu


class Count:
    """System calls by name, known once the counting is over."""

    def __init__(self) -> None:
        self.calls: dict[str, int] = {}
        self.beats = BEATS
        """How many of a kind are nobody's fault, for as long as the counting took."""


@contextmanager
def counting_calls(pid: int, directory: Path) -> Iterator[Count]:
    """Count the system calls of a running process with strace."""
    report = directory / "calls"
    assert STRACE is not None
    tracer = subprocess.Popen(
        [STRACE, "-c", "-p", str(pid), "-o", str(report)], stderr=subprocess.PIPE
    )
    count = Count()
    try:
        status = Path(f"/proc/{pid}/status")
        wait_until(
            lambda: tracer.poll() is not None or "TracerPid:\t0\n" not in status.read_text(),
            10,
            "strace attached",
        )
        if tracer.poll() is not None:
            pytest.skip("strace may not attach here")
        began_at = time.monotonic()
        yield count
        # A peer has what a call wrote before strace has counted the call.
        wait_until(lambda: "State:\tS" in status.read_text(), 10, "the worker waits")
        count.beats += round(BEATS_PER_S * (time.monotonic() - began_at))
    finally:
        if tracer.poll() is None:
            tracer.send_signal(signal.SIGINT)
        tracer.communicate(timeout=120)
    for line in report.read_text().splitlines():
        fields = line.split()  # % time, seconds, usecs/call, calls, errors (if any), syscall
        if len(fields) >= 5 and fields[3].isdigit() and fields[-1] != "total":
            name = ALIKE.get(fields[-1], fields[-1])
            count.calls[name] = count.calls.get(name, 0) + int(fields[3])


def talk(client: socket.socket, upstream: socket.socket) -> None:
    """One round trip."""
    client.sendall(b"question")
    assert upstream.recv(100) == b"question"
    upstream.sendall(b"answer")
    assert client.recv(100) == b"answer"


def connect_once(address: tuple[str, int], backend: Backend) -> None:
    """Connect, one round trip, and an end that begins at the endpoint, as after one HTTP answer."""
    with connect(address) as client:
        client.sendall(b"question")
        with backend.accept() as upstream:
            assert upstream.recv(100) == b"question"
            upstream.sendall(b"answer")
            upstream.shutdown(socket.SHUT_WR)
            assert client.recv(100) == b"answer"
            assert client.recv(100) == b""
            client.shutdown(socket.SHUT_WR)
            assert upstream.recv(100) == b""


@pytest.mark.skipif(STRACE is None, reason="needs the strace program")
def test_a_round_trip_is_two_reads_and_two_writes(tmp_path: Path) -> None:
    """A real worker relays a question and its answer with four system calls and its waits."""
    with (
        Backend() as backend,
        running("--health-check=off", endpoints=[backend.endpoint.name], workers=1) as gateway,
        connect(gateway.address) as client,
        backend.accept() as upstream,
    ):
        talk(client, upstream)
        with counting_calls(gateway.workers()[0], tmp_path) as count:
            for _ in range(ROUND_TRIPS):
                talk(client, upstream)
    calls = count.calls
    assert 2 * ROUND_TRIPS <= calls["read"] <= 2 * ROUND_TRIPS + count.beats, calls
    assert 2 * ROUND_TRIPS <= calls["write"] <= 2 * ROUND_TRIPS + count.beats, calls
    others = {name: n for name, n in calls.items() if name not in {"read", "write", *WAITS}}
    assert max(others.values(), default=0) <= count.beats, calls
    waits = sum(calls.get(name, 0) for name in WAITS)
    assert waits <= 8 * ROUND_TRIPS, calls  # two events, each seen by the loop and by the poller


@pytest.mark.skipif(STRACE is None, reason="needs the strace program")
def test_a_connection_needs_no_more_system_calls_than_it_did(tmp_path: Path) -> None:
    """Of each kind, a short connection makes at most what is listed here."""
    with (
        Backend() as backend,
        running("--health-check=off", endpoints=[backend.endpoint.name], workers=1) as gateway,
    ):
        connect_once(gateway.address, backend)
        with counting_calls(gateway.workers()[0], tmp_path) as count:
            for _ in range(CONNECTIONS):
                connect_once(gateway.address, backend)
    assert count.calls["accept4"] >= CONNECTIONS
    for name, calls in count.calls.items():
        if name not in WAITS:
            most = MOST_PER_CONNECTION.get(name, 0) * CONNECTIONS + count.beats
            assert calls <= most, f"{name}: {count.calls}"


@contextmanager
def traced() -> Iterator[None]:
    """Allocations are traced, and the collector is off: garbage in cycles stays and is seen."""
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()
        gc.enable()


def held_bytes() -> int:
    """What the gateway's own lines have allocated and not given back."""
    snapshot = tracemalloc.take_snapshot().filter_traces([GATEWAY_FILES])
    return sum(trace.size for trace in snapshot.traces)


def test_a_round_trip_leaves_nothing_behind() -> None:
    """Memory does not grow with round trips, not by a byte each, and without the collector."""
    with Backend() as backend, Plane(backend.endpoint) as plane, traced():
        with plane.connect() as client, backend.accept() as upstream:
            for _ in range(50):
                talk(client, upstream)
            before = plane.ask(held_bytes)
            for _ in range(1000):
                talk(client, upstream)
            grown = plane.ask(held_bytes) - before
    assert grown < 1000, f"{grown} bytes after 1,000 round trips"


def test_a_connection_leaves_nothing_behind() -> None:
    """A session that is over is gone at once: no cycles for the collector, no entries anywhere."""
    with Backend() as backend, Plane(backend.endpoint) as plane, traced():
        address = (plane.address.host, plane.address.port)

        def settled() -> int:
            wait_until(lambda: plane.ask(lambda: len(plane.sessions)) == 0, 10, "sessions ended")
            return plane.ask(held_bytes)

        for _ in range(50):
            connect_once(address, backend)
        before = settled()
        for _ in range(500):
            connect_once(address, backend)
        grown = settled() - before
    assert grown < 500 * 8, f"{grown} bytes after 500 connections"
