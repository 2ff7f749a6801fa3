"""Peers that live, but take bytes slowly, late or not at all: none of them is given up.

On a wire with an ordinary MTU, where windows open by little at a time. The kernel's means to keep
probing differ by its version, so everything is tried with both.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from gateway.core.messages import Settings
from gateway.core.stall import AHEAD
from tests.clients import reset
from tests.plane import Backend, Plane
from tests.support import wait_until
from tests.wires import hosts, inside, ip, loopback

# The worker is a thread of the test. Where the kernel does not bound the gaps between its probes,
# the worker has to look eight times in a timeout, which is a second here.
pytestmark = [pytest.mark.slow(seconds=6), pytest.mark.usefixtures("priority")]

TIMEOUT_S = 1.0
SETTINGS = Settings(tcp_user_timeout_s=TIMEOUT_S, access_log=True)
SLOW_S = 6 * TIMEOUT_S
PAUSED_S = 2 * TIMEOUT_S
TAIL_BYTES = 40_000
LONG_PAUSE_S = 13.0
"""At a probe a second, the kernel's backoff is beyond two minutes by then."""

KERNELS = pytest.mark.parametrize("new_kernel", [True, False], ids=["new kernel", "old kernel"])


def lasting(duration_s: float) -> Callable[[], bool]:
    """True when ``duration_s`` has passed: for what must not happen meanwhile."""
    until = time.monotonic() + duration_s
    return lambda: time.monotonic() >= until


class Lateness:
    """How late a loop was at most; made in its thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.most_s = 0.0
        self._loop = loop
        self._due_at = loop.time()
        self._look()

    def _look(self) -> None:
        self.most_s = max(self.most_s, self._loop.time() - self._due_at)
        self._due_at = self._loop.time() + 0.02
        self._loop.call_at(self._due_at, self._look)


@contextlib.contextmanager
def worker(
    backend: Backend, new_kernel: bool = True, settings: Settings = SETTINGS
) -> Iterator[Plane]:
    with Plane(backend.endpoint, settings=settings) as plane:
        plane.sessions.stalls.kernel_bounds_gaps = new_kernel
        plane.apply(backend.endpoint, settings=settings)
        yield plane


@pytest.fixture(scope="module")
def narrow() -> Iterator[str]:
    """A namespace whose loopback has the MTU of an Ethernet."""
    with loopback(1500) as name:
        yield name


@KERNELS
def test_slow_readers_live(narrow: str, new_kernel: bool) -> None:
    """Six readers of some 100 KB/s with default buffers, for many timeouts.

    On an old kernel a worker that gets no CPU for an eighth of the timeout may lose them, so what
    it lost then says nothing, and a longer timeout is tried.
    """

    def run() -> None:
        for timeout_s in (TIMEOUT_S, 4 * TIMEOUT_S):
            ended, least, late_s = read_slowly(timeout_s)
            if not ended or late_s < timeout_s * AHEAD / 2:
                break
        else:
            pytest.skip(f"the worker got no CPU for {late_s:.2f} s")
        assert ended == {}
        assert least > 100_000

    def read_slowly(timeout_s: float) -> tuple[dict[str, int], int, float]:
        """How sessions ended, the least that one of them got, and how late the worker was."""
        settings = replace(SETTINGS, tcp_user_timeout_s=timeout_s)
        lasts_s = SLOW_S * timeout_s / TIMEOUT_S
        with Backend() as backend, worker(backend, new_kernel, settings) as plane:
            lateness = plane.ask(lambda: Lateness(plane.loop))
            stop = threading.Event()
            received = [0] * 6

            def read(number: int, sock: socket.socket) -> None:
                while not stop.wait(0.1 + 0.05 * number):
                    received[number] += len(sock.recv(10_000 + 2_000 * number))

            def send(sock: socket.socket) -> None:
                with contextlib.suppress(OSError):
                    sock.sendall(bytes(64 << 20))

            clients = [plane.connect() for _ in received]
            servers = [backend.accept() for _ in received]
            threads = [threading.Thread(target=send, args=(each,), daemon=True) for each in servers]
            threads += [
                threading.Thread(target=read, args=each, daemon=True) for each in enumerate(clients)
            ]
            for thread in threads:
                thread.start()
            over = lasting(lasts_s)

            def is_over() -> bool:
                return over() and (min(received) > 100_000 or bool(plane.counters.ended))

            wait_until(is_over, lasts_s + 60)
            ended = dict(plane.counters.ended)
            stop.set()
            for sock in (*clients, *servers):
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join(60)
            for sock in (*clients, *servers):
                sock.close()
            return ended, min(received), lateness.most_s

    inside(narrow, run)


@KERNELS
def test_a_reader_that_pauses_again_and_again_lives(narrow: str, new_kernel: bool) -> None:
    """It pauses beyond the timeout, takes everything in small steps, and pauses once more."""

    def run() -> None:
        with (
            Backend() as backend,
            worker(backend, new_kernel) as plane,
            plane.connect() as client,
            backend.accept() as server,
        ):
            for _ in range(2):
                server.settimeout(0.2)
                sent = 0
                with contextlib.suppress(TimeoutError):
                    while True:
                        sent += server.send(bytes(1 << 16))
                wait_until(lasting(PAUSED_S), PAUSED_S + 10)
                while sent:
                    sent -= len(client.recv(1000 if sent < 50_000 else 20_000))
                wait_until(lasting(1.5 * TIMEOUT_S), 10)
            assert plane.counters.ended == {}

    inside(narrow, run)


@pytest.mark.parametrize("age_s", [0.0, 2.0], ids=["young", "old"])
@pytest.mark.parametrize("side", ["client", "endpoint"])
def test_the_tail_is_delivered_to_who_reads_late(narrow: str, age_s: float, side: str) -> None:
    """Both streams ended in order and the session is over; the last bytes are taken much later."""

    def run() -> None:
        with (
            Backend() as backend,
            worker(backend) as plane,
            plane.connect() as client,
            backend.accept() as server,
        ):
            late, other = (client, server) if side == "client" else (server, client)
            late.sendall(b"?")
            assert other.recv(1) == b"?"
            wait_until(lasting(age_s), 10)
            late.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            late.shutdown(socket.SHUT_WR)
            assert other.recv(1) == b""
            other.sendall(bytes(TAIL_BYTES))
            other.close()
            wait_until(lambda: plane.counters.sessions == 0, 20, "the session is over")
            wait_until(lasting(PAUSED_S), PAUSED_S + 10)
            late.settimeout(60)
            received = 0
            while data := late.recv(1 << 16):
                received += len(data)
            assert received == TAIL_BYTES
            assert plane.log.said("session")[0]["end"] == side

    inside(narrow, run)


def close_its_window(late: socket.socket, other: socket.socket) -> None:
    """Half-close the one that does not read, and send it more than its window takes."""
    late.shutdown(socket.SHUT_WR)
    assert other.recv(1) == b""
    for _ in range(TAIL_BYTES // 1000):
        other.sendall(bytes(4000))


def is_stalled(plane: Plane) -> bool:
    """Whether the worker's last look found that the client takes nothing.

    On a busy machine an end of stream may wait for its acknowledgement at a look, too.
    """
    return plane.ask(
        lambda: any(each.client in plane.sessions.stalls._stalled for each in plane.sessions.all())
    )


def test_the_tail_is_delivered_to_who_paused_long_before_the_end(narrow: str) -> None:
    """The kernel has probed it so often that it would give up at once, left alone with it."""

    def run() -> None:
        with (
            Backend() as backend,
            worker(backend) as plane,
            plane.connect() as late,
            backend.accept() as other,
        ):
            close_its_window(late, other)
            wait_until(lasting(LONG_PAUSE_S), LONG_PAUSE_S + 10)
            other.close()
            wait_until(lambda: plane.counters.sessions == 0, 20, "the session is over")
            wait_until(lasting(4.0), 10)
            assert plane.ask(lambda: len(plane.sessions.stalls._lingering)) == 1
            received = 0
            while data := late.recv(1 << 16):
                received += len(data)
            assert received == 4 * TAIL_BYTES
            wait_until(lambda: plane.ask(lambda: len(plane.sessions.stalls._lingering)) == 0)

    inside(narrow, run)


def test_a_network_that_fails_for_a_moment_ends_no_idle_session() -> None:
    """Idle for longer than the timeout, then a byte that nobody answers at first.

    The kernel sends it again after 0.2, 0.6, 1.4 and 3 s: well before the timeout here.
    """
    timeout_s = 4 * TIMEOUT_S
    settings = replace(SETTINGS, tcp_user_timeout_s=timeout_s)
    near_address, far_address = "10.78.0.1", "10.78.0.2"
    with hosts(near_address, far_address) as (near, far):
        backend = inside(far, lambda: Backend(far_address))

        def run() -> None:
            with (
                backend,
                worker(backend, settings=settings) as plane,
                plane.connect() as client,
                backend.accept() as server,
            ):
                client.sendall(b"?")
                assert server.recv(1) == b"?"
                wait_until(lasting(1.5 * timeout_s), 30)
                ip("-n", far, "addr", "del", f"{far_address}/24", "dev", "eth0")
                client.sendall(b"!")
                wait_until(lasting(TIMEOUT_S), 10)
                ended = dict(plane.counters.ended)
                ip("-n", far, "addr", "add", f"{far_address}/24", "dev", "eth0")
                assert ended == {}
                assert server.recv(1) == b"!"

        inside(near, run)


@KERNELS
@pytest.mark.parametrize("before", ["talking", "after a long slow read"])
def test_a_vanished_peer_is_found_whatever_it_did_before(new_kernel: bool, before: str) -> None:
    """Also one that read slowly, and then paused, for many timeouts."""
    near_address, far_address = "10.78.1.1", "10.78.1.2"
    with hosts(near_address, far_address) as (near, far):
        backend = inside(far, lambda: Backend(far_address))

        def run() -> None:
            with (
                backend,
                worker(backend, new_kernel) as plane,
                plane.connect() as client,
                backend.accept() as server,
            ):
                client.sendall(b"?")
                assert server.recv(1) == b"?"
                if before != "talking":
                    client.settimeout(0.01)
                    slow = lasting(3 * TIMEOUT_S)
                    while not slow():
                        with contextlib.suppress(TimeoutError):
                            client.send(bytes(1 << 16))
                        server.recv(2000)
                    with contextlib.suppress(TimeoutError):
                        while True:
                            client.send(bytes(1 << 16))
                    wait_until(lasting(3 * TIMEOUT_S), 10)
                    assert plane.counters.ended == {}
                ip("-n", far, "addr", "del", f"{far_address}/24", "dev", "eth0")
                with contextlib.suppress(TimeoutError, ConnectionError):  # given up by now, perhaps
                    client.send(b"!")
                wait_until(lambda: plane.counters.ended == {"reset": 1}, 30, "given up")
                assert plane.log.said("session")[0]["reset_by"] == "endpoint"

        inside(near, run)


def test_a_reader_that_resets_after_the_end_is_let_go(narrow: str) -> None:
    """What it did not take is nobody's any more: its descriptor is free at the next look."""

    def run() -> None:
        with (
            Backend() as backend,
            worker(backend) as plane,
            plane.connect() as late,
            backend.accept() as other,
        ):
            stalls = plane.sessions.stalls
            close_its_window(late, other)
            wait_until(lambda: is_stalled(plane))
            other.close()
            wait_until(lambda: plane.ask(lambda: len(stalls._lingering)) == 1)
            reset(late)
            wait_until(lambda: plane.ask(lambda: len(stalls._lingering)) == 0)

    inside(narrow, run)


def test_a_timeout_that_a_reload_turns_on_is_for_those_that_wait_by_then(narrow: str) -> None:
    """Sessions that hang are why an operator sets one."""

    def run() -> None:
        off = dataclasses.replace(SETTINGS, tcp_user_timeout_s=0.0)
        with (
            Backend() as backend,
            worker(backend, settings=off) as plane,
            plane.connect() as late,
            backend.accept() as other,
        ):
            close_its_window(late, other)
            plane.ask(plane.sessions.count_bytes)
            wait_until(lambda: not plane.ask(lambda: len(plane.sessions.relay.dirty)))
            plane.apply(backend.endpoint, settings=SETTINGS)
            wait_until(lambda: is_stalled(plane))

    inside(narrow, run)
