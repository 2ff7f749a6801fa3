"""When a worker's descriptors run out, clients wait: none is accepted and then cut."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Self

import pytest

from supervisor.cli.admin_client import fetch_status
from tests.clients import connect
from tests.gateway import Gateway, running
from tests.servers import serving
from tests.support import PATIENCE, free_port, wait_until

OPEN_FILES = 161
FLAGS = ("--health-check=off", "--access-log")


class Endpoint:
    """Sends without end to who asks for bulk; answers everybody else's ping."""

    def __init__(self) -> None:
        self.bulk = 0
        self._lock = threading.Lock()

    def __call__(self, conn: socket.socket) -> None:
        conn.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
        conn.settimeout(60)
        if conn.recv(4, socket.MSG_WAITALL) == b"bulk":
            with self._lock:
                self.bulk += 1
            with contextlib.suppress(OSError):
                while True:
                    conn.sendall(bytes(1 << 20))
        conn.sendall(b"pong")


@contextlib.contextmanager
def short_of_descriptors(workers: int) -> Iterator[tuple[Gateway, Endpoint, str]]:
    """A gateway whose processes may open few files, its endpoint, and its admin address."""
    endpoint, admin = Endpoint(), f"127.0.0.1:{free_port()}"
    with serving(endpoint) as server:
        with running(
            *FLAGS,
            f"--admin-addr={admin}",
            endpoints=[f"127.0.0.1:{server.port}"],
            workers=workers,
            prefix=["prlimit", f"--nofile={OPEN_FILES}:{OPEN_FILES}"],
        ) as gateway:
            gateway.wait_line("admin address is open")
            yield gateway, endpoint, admin


@contextlib.contextmanager
def slow_reader(gateway: Gateway) -> Iterator[socket.socket]:
    """A client that asks for bulk and reads a little of it: a pipe is full for its sake.

    One that comes to a worker whose descriptors have run out waits there, and has read nothing.
    """
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        sock.settimeout(10 * PATIENCE)
        sock.connect(gateway.address)
        sock.sendall(b"bulk")
        sock.setblocking(False)
        reads = 0

        def has_read() -> bool:
            nonlocal reads
            with contextlib.suppress(BlockingIOError):
                assert sock.recv(1 << 20), "its session was ended"
                reads += 1
            return reads == 8 or paused(gateway)

        wait_until(has_read, what="a slow reader's bytes")
        yield sock


class Crowd:
    """Clients that all ask at once, and what became of each."""

    def __init__(self, gateway: Gateway, count: int) -> None:
        self.waiting = {connect(gateway.address) for _ in range(count)}
        self.served: set[socket.socket] = set()
        self.cut: list[str] = []
        for sock in self.waiting:
            sock.sendall(b"ping")
            sock.setblocking(False)

    def look(self) -> None:
        for sock in tuple(self.waiting):
            try:
                answer = sock.recv(4)
            except BlockingIOError:
                continue
            except OSError as error:
                answer = b""
                self.cut.append(str(error))
            self.waiting.discard(sock)
            self.served.add(sock)
            if answer != b"pong":
                self.cut.append(f"answer {answer!r}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for sock in (*self.waiting, *self.served):
            sock.close()


def paused(gateway: Gateway) -> bool:
    return any(line["reason"] == "descriptors" for line in gateway.lines("accepting paused"))


def test_pipes_of_slow_readers_cost_no_client_its_session() -> None:
    """Clients beyond what descriptors allow wait, reports go on, and in the end all are served."""
    with contextlib.ExitStack() as held:
        gateway, endpoint, admin = held.enter_context(short_of_descriptors(workers=1))
        bulk = [held.enter_context(slow_reader(gateway)) for _ in range(20)]
        wait_until(lambda: endpoint.bulk == len(bulk))
        crowd = held.enter_context(Crowd(gateway, 80))

        def settled() -> bool:
            crowd.look()
            return paused(gateway) and fetch_status([admin])["totals"]["sessions"] == (
                len(bulk) + len(crowd.served)
            )

        wait_until(settled, 20)
        assert crowd.cut == []
        assert crowd.waiting, "there are not enough clients for this test"
        wait_until(lambda: fetch_status([admin])["accept_paused"].get("descriptors"), what="told")
        for sock in bulk:
            sock.close()
        for sock in crowd.served:
            sock.close()

        def all_served() -> bool:
            crowd.look()
            for sock in crowd.served:
                sock.close()
            return not crowd.waiting

        wait_until(all_served, 20)
        assert crowd.cut == []
        assert {line["end"] for line in gateway.lines("session")} <= {"client", "endpoint", "reset"}


@pytest.mark.slow
def test_nobody_is_handed_to_a_worker_without_descriptors() -> None:
    """Two workers, one of them used up by slow readers: clients of the other keep being served."""
    with contextlib.ExitStack() as held:
        gateway, endpoint, admin = held.enter_context(short_of_descriptors(workers=2))
        bulk: list[socket.socket] = []
        while not paused(gateway) and len(bulk) < 120:
            bulk.append(held.enter_context(slow_reader(gateway)))
        crowd = held.enter_context(Crowd(gateway, 40))

        def settled() -> bool:
            crowd.look()
            sessions: int = fetch_status([admin])["totals"]["sessions"]
            return sessions == len(crowd.served) + endpoint.bulk

        wait_until(settled, 20)
        assert crowd.cut == []
        for sock in bulk:
            sock.close()

        def all_served() -> bool:
            crowd.look()
            return not crowd.waiting

        wait_until(all_served, 20)
        assert crowd.cut == []
        assert not gateway.lines("clients lost")
