"""The limit on sessions is of the whole gateway, and whoever waits for a place gets one."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from gateway.core.rate import BURST_S
from supervisor.cli.admin_client import fetch_status
from tests.clients import connect, many, read_line, reset
from tests.gateway import Gateway, running
from tests.servers import serving
from tests.support import free_port, wait_until


class Busy:
    """Greets, counts the sessions it holds at once, and the most it ever held."""

    def __init__(self, limit: int = 0) -> None:
        self.now = self.most = self.all = 0
        self._limit = limit
        self._lock = threading.Lock()
        self._held: list[socket.socket] = []

    def __call__(self, conn: socket.socket) -> None:
        with self._lock:
            self.now += 1
            self.all += 1
            self._held.append(conn)
            self.most = max(self.most, self._count())
        try:
            conn.settimeout(60)
            conn.sendall(b"hello\n")
            while conn.recv(100):
                pass
        except ConnectionResetError:
            pass
        finally:
            with self._lock:
                self.now -= 1
                self._held.remove(conn)

    def _count(self) -> int:
        """The sessions held; one that is over may have its end still on the way to us."""
        if self._limit:
            with contextlib.suppress(AssertionError):
                wait_until(lambda: sum(map(goes_on, self._held)) <= self._limit, 1)
        return sum(map(goes_on, self._held))


def goes_on(conn: socket.socket) -> bool:
    """Whether the gateway has not ended it; the thread that serves it may learn of that late."""
    try:
        return not select.select([conn], [], [], 0)[0] or bool(conn.recv(1, socket.MSG_PEEK))
    except OSError:
        return False


def metric(text: str, name: str) -> float:
    lines = [line for line in text.splitlines() if line.startswith(name + " ")]
    return float(lines[0].split()[1])


def scrape(address: str) -> str:
    host, port = address.split(":")
    with connect((host, int(port))) as sock:
        sock.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        with sock.makefile("rb") as file:
            return file.read().decode()


PAUSED = 'etcd_gateway_accept_paused_total{reason="limit"}'
FLAGS = ("--health-check=off", "--access-log")


@pytest.mark.parametrize("most", [1, 5])
def test_a_burst_never_passes_the_limit_and_everybody_is_served(most: int) -> None:
    """Forty clients at once over four workers: never more sessions than allowed, all get one."""
    busy = Busy(most)
    with serving(busy) as server:
        flags = (*FLAGS, f"--max-sessions={most}")
        with running(*flags, endpoints=[f"127.0.0.1:{server.port}"], workers=4) as gateway:
            served: list[str] = []

            def client() -> None:
                with connect(gateway.address) as sock:
                    served.append(read_line(sock))

            threads = [threading.Thread(target=client, daemon=True) for _ in range(40)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
            assert served == ["hello"] * 40
            assert busy.most <= most


def test_clients_beyond_the_limit_wait_in_the_kernels_queue() -> None:
    """They are not accepted, by no worker; the log says it once, the metrics count it."""
    busy = Busy()
    admin = f"127.0.0.1:{free_port()}"
    with serving(busy) as server:
        flags = (*FLAGS, "--max-sessions=2", f"--admin-addr={admin}")
        with running(*flags, endpoints=[f"127.0.0.1:{server.port}"], workers=4) as gateway:
            gateway.wait_line("admin address is open")
            with contextlib.ExitStack() as held:
                held.enter_context(many(gateway.address, 2))
                wait_until(lambda: busy.now == 2)
                # Each worker may have one in its handles that raced for the last place.
                crowd = held.enter_context(many(gateway.address, 40))
                gateway.wait_line("accepting paused")
                wait_until(lambda: metric(scrape(admin), PAUSED) >= 4)
                assert accepted(gateway) <= 2 + 4
                assert busy.all == 2
                assert fetch_status([admin])["totals"]["sessions"] == 2
                del crowd
            wait_until(lambda: busy.now == 0)
            # Workers that find it in the same microsecond do not know of each other yet.
            assert 1 <= len(gateway.lines("accepting paused")) <= 2


def test_nobody_is_dialed_for_to_be_cut() -> None:
    """At the end of a drain, who waits for a place does not get those of the sessions cut."""
    busy = Busy()
    with serving(busy) as server:
        flags = (*FLAGS, "--max-sessions=2", "--drain-timeout=0s")
        with running(*flags, endpoints=[f"127.0.0.1:{server.port}"], workers=1) as gateway:
            with contextlib.ExitStack() as held:
                served = [held.enter_context(connect(gateway.address)) for _ in range(2)]
                assert [read_line(sock) for sock in served] == ["hello"] * 2
                waiting = [held.enter_context(connect(gateway.address)) for _ in range(3)]
                gateway.signal(signal.SIGTERM)
                for sock in (*served, *waiting):
                    with pytest.raises(ConnectionResetError):
                        sock.recv(1)
            assert gateway.wait_line("drained")["sessions_cut"] == 2
            assert len(gateway.lines("session")) == 2
            assert read_line_of(server.port) == "hello"
            assert server.accepted == 3


def read_line_of(port: int) -> str:
    with connect(("127.0.0.1", port)) as sock:
        return read_line(sock)


def accepted(gateway: Gateway) -> int:
    """Client sockets that any worker holds."""
    inodes = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        if words[1].endswith(f":{gateway.port:04X}") and words[3] == "01" and words[9] != "0":
            inodes.add(words[9])
    return len(inodes)


@pytest.mark.parametrize("ends", ["close", "reset"])
def test_a_place_is_given_on_wherever_it_became_free(ends: str) -> None:
    """One place, four workers, clients in the queue of each: all are served, one after another."""
    busy = Busy(1)
    with serving(busy) as server:
        flags = (*FLAGS, "--max-sessions=1")
        with running(*flags, endpoints=[f"127.0.0.1:{server.port}"], workers=4) as gateway:
            waiting = [connect(gateway.address) for _ in range(24)]
            began_at = time.monotonic()
            while waiting:
                ready = [sock for sock in waiting if readable(sock)]
                assert time.monotonic() < began_at + 30, f"{len(waiting)} were never served"
                for sock in ready:
                    assert read_line(sock) == "hello"
                    waiting.remove(sock)
                    if ends == "reset":
                        reset(sock)
                    else:
                        sock.close()
            if ends == "close":  # of a reset the endpoint hears when its place is long given on
                assert busy.most == 1


def readable(sock: socket.socket) -> bool:
    sock.setblocking(False)
    try:
        return bool(sock.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return False
    finally:
        sock.settimeout(60)


def test_a_reload_lifts_and_sets_the_limit(tmp_path: Path) -> None:
    """A higher limit lets those in who wait, at once; no limit lets everybody in."""
    config = tmp_path / "gateway.toml"
    config.write_text("max-sessions = 1\n")
    busy = Busy()
    with serving(busy) as server:
        flags = (*FLAGS, f"--config-file={config}")
        with running(*flags, endpoints=[f"127.0.0.1:{server.port}"], workers=2) as gateway:
            with many(gateway.address, 10):
                wait_until(lambda: busy.now == 1)
                config.write_text("max-sessions = 3\n")
                gateway.signal(signal.SIGHUP)
                wait_until(lambda: busy.now == 3)
                config.write_text("")
                gateway.signal(signal.SIGHUP)
                wait_until(lambda: busy.now == 10)


def test_a_storm_comes_in_at_the_rate() -> None:
    """Sixty clients at once over two workers: no more a second than allowed, and all are served.

    A reload that takes the limit away lets in who waits.
    """
    busy = Busy()
    with serving(busy) as server:
        flags = (*FLAGS, "--max-session-rate=20")
        with running(*flags, endpoints=[f"127.0.0.1:{server.port}"], workers=2) as gateway:
            began = time.monotonic()
            with many(gateway.address, 60) as clients:

                def in_time() -> bool:
                    allowed = 20 * (time.monotonic() - began) + 20 * BURST_S + 4
                    assert busy.all <= allowed
                    return busy.all == 60

                wait_until(in_time, 60, "all are served")
                assert {read_line(client) for client in clients} == {"hello"}
            assert "--max-session-rate" in gateway.wait_line("accepting paused")["error"]


def test_a_reload_ends_the_rate(tmp_path: Path) -> None:
    """Clients that wait for a low rate are served when a reload takes it away."""
    busy, file = Busy(), tmp_path / "gateway.toml"
    file.write_text("max-session-rate = 1")
    with serving(busy) as server:
        flags = (*FLAGS, f"--config-file={file}")
        with running(*flags, endpoints=[f"127.0.0.1:{server.port}"], workers=2) as gateway:
            with many(gateway.address, 200) as clients:
                gateway.wait_line("accepting paused")
                file.write_text("")
                gateway.signal(signal.SIGHUP)
                assert {read_line(client) for client in clients} == {"hello"}


def test_neither_an_upgrade_nor_a_kill_lets_more_in() -> None:
    """Sessions of draining workers take places; those of a killed worker are free, once."""
    busy = Busy(4)
    admin = f"127.0.0.1:{free_port()}"
    with serving(busy) as server:
        flags = (*FLAGS, "--max-sessions=4", "--drain-timeout=60s", f"--admin-addr={admin}")
        endpoints = [f"127.0.0.1:{server.port}"]
        with running(*flags, endpoints=endpoints, workers=2) as gateway:
            gateway.wait_line("admin address is open")
            with contextlib.ExitStack() as held:
                first = held.enter_context(many(gateway.address, 4))
                wait_until(lambda: busy.now == 4)
                draining = set(gateway.workers())
                waiting = held.enter_context(many(gateway.address, 8))
                for upgrade in (1, 2):
                    gateway.signal(signal.SIGUSR2)
                    gateway.wait_ready()
                    gateway.wait_line("worker ready", count=2 + 2 * upgrade, deadline_s=30)
                assert busy.most == 4
                assert busy.all == 4
                for sock in first[:2]:
                    sock.close()
                wait_until(lambda: busy.all == 6)
                assert busy.most <= 4
                for pid in draining & set(gateway.workers()):
                    os.kill(pid, signal.SIGKILL)
                wait_until(lambda: busy.all == 8 and busy.now == 4)
                wait_until(lambda: fetch_status([admin])["totals"]["sessions"] == 4)
                served = 0
                while waiting:
                    for sock in [each for each in waiting if readable(each)]:
                        assert read_line(sock) == "hello"
                        waiting.remove(sock)
                        sock.close()
                        served += 1
                assert served == 8
