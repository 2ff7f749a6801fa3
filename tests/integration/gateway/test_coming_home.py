"""Sessions that come home after a recovery, and those that are too old."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import Counter

from supervisor.cli.admin_client import fetch_status
from tests.backends import Backend, greet
from tests.clients import connect, read_line
from tests.gateway import running
from tests.support import free_port, wait_until


def test_old_sessions_end() -> None:
    """With --max-session-age a session ends by itself, and the access log says why."""
    with Backend(greet, name="b") as backend:
        flags = ("--max-session-age=1s", "--access-log")
        with running(*flags, endpoints=[backend.address], workers=1) as gateway:
            with connect(gateway.address) as client:
                assert read_line(client) == "b"
                with contextlib.suppress(ConnectionResetError):
                    assert client.recv(1) == b""
            assert gateway.wait_line("session")["end"] == "age"


class Client:
    """Keeps one session open, and opens another one when it is closed."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self.where = ""
        self.closed = 0
        self._stopped = False
        self._sock: socket.socket | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopped = True
        if self._sock is not None:
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_RDWR)
        self._thread.join(60)

    def _run(self) -> None:
        while not self._stopped:
            with contextlib.suppress(OSError), connect(self._address) as sock:
                self._sock = sock
                self.where = read_line(sock)
                sock.settimeout(None)
                sock.recv(1)
            self.closed += not self._stopped


def test_sessions_come_home_after_a_recovery() -> None:
    """Sessions that fled to one endpoint come back, and the gateway stops when it is even."""
    port, admin = free_port(), f"127.0.0.1:{free_port()}"
    flags = (f"--admin-addr={admin}", "--rebalance=1s", "--health-interval=100ms", "--access-log")
    with Backend(greet, name="a") as a, contextlib.ExitStack() as stack:
        endpoints = [a.address, f"127.0.0.1:{port}"]
        gateway = stack.enter_context(running(*flags, endpoints=endpoints, workers=2))
        gateway.wait_line("admin address is open")
        gateway.wait_line("deactivated endpoint")
        clients = [Client(gateway.address) for _ in range(20)]
        for client in clients:
            stack.callback(client.stop)
        wait_until(lambda: Counter(each.where for each in clients) == {"a": 20}, 20)
        stack.enter_context(Backend(greet, name="b", port=port))
        gateway.wait_line("activated")

        def even() -> bool:
            held = Counter(each.where for each in clients)
            return held["a"] >= 8 and held["b"] >= 8

        wait_until(even, 60, "both have their share")
        ends = {line["end"] for line in gateway.lines("session")}
        assert ends == {"rebalance"}
        rows = {row["endpoint"]: row for row in fetch_status([admin])["endpoints"]}
        assert rows[a.address]["sessions"] >= 8
        assert max(client.closed for client in clients) <= 2


def test_hardly_more_sessions_are_closed_than_fled() -> None:
    """Of four endpoints one was away: the clients that are closed go there, not round and round."""
    port = free_port()
    flags = ("--rebalance=1s", "--health-interval=100ms", "--access-log")
    with contextlib.ExitStack() as stack:
        others = [stack.enter_context(Backend(greet, name=name)) for name in "acd"]
        endpoints = [*(each.address for each in others), f"127.0.0.1:{port}"]
        gateway = stack.enter_context(running(*flags, endpoints=endpoints, workers=2))
        gateway.wait_line("deactivated endpoint")
        clients = [Client(gateway.address) for _ in range(24)]
        for client in clients:
            stack.callback(client.stop)
        wait_until(lambda: all(each.where for each in clients), 20)
        stack.enter_context(Backend(greet, name="b", port=port))
        gateway.wait_line("activated")
        wait_until(lambda: [each.where for each in clients].count("b") == 6, 90, "it is even")
        assert sum(client.closed for client in clients) <= 6 + 3
