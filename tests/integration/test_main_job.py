"""The gateway as its user runs it: real processes, real sockets, faults of every kind."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.backends import Backend, echo, greet, swallow
from tests.clients import (
    asked,
    black_hole,
    connect,
    echoes,
    many,
    read_exactly,
    read_line,
    reset,
    talk,
)
from tests.gateway import Gateway, running
from tests.support import free_port, wait_until


@contextlib.contextmanager
def greeters(count: int = 3) -> Iterator[list[Backend]]:
    """Backends that say who they are, then echo."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Backend(greet, name=f"b{i}")) for i in range(count)]


def addresses(backends: list[Backend]) -> list[str]:
    return [backend.address for backend in backends]


def test_few_sessions_are_even_over_endpoints_and_workers() -> None:
    """12 sessions over 3 endpoints with 4 workers: 3 to 5 each, from the first one on."""
    with greeters() as backends, running(endpoints=addresses(backends), workers=4) as gateway:
        with many(gateway.address, 12) as clients:
            counts = Counter(read_line(client) for client in clients)
        assert len(counts) == 3
        assert all(3 <= count <= 5 for count in counts.values()), counts


def test_every_worker_accepts() -> None:
    """With four workers and plenty of sessions, each worker holds some."""
    with greeters() as backends, running(endpoints=addresses(backends), workers=4) as gateway:
        with many(gateway.address, 40) as clients:
            for client in clients:
                assert read_line(client)
            held = {pid: len(established(pid)) for pid in gateway.workers()}
        assert len(held) == 4
        assert min(held.values()) >= 2 * 5, held  # two sockets a session


def established(pid: int) -> list[str]:
    """The established TCP connections of a process."""
    inodes = set()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            if match := re.fullmatch(r"socket:\[(\d+)\]", os.readlink(fd)):
                inodes.add(match[1])
    rows = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return [row for row in rows if (f := row.split())[9] in inodes and f[3] == "01"]


def test_large_streams_arrive_intact_in_both_directions_at_once() -> None:
    """64 MiB of random bytes each way through an echo server, compared by hash."""
    size = 64 << 20
    block = os.urandom(1 << 20)
    with Backend(echo) as backend, running(endpoints=[backend.address]) as gateway:
        with connect(gateway.address) as client:
            sent, got = hashlib.sha256(), hashlib.sha256()

            def send() -> None:
                for n in range(size >> 20):
                    piece = bytes([n]) + block[1:]
                    sent.update(piece)
                    client.sendall(piece)
                client.shutdown(socket.SHUT_WR)

            sender = threading.Thread(target=send, daemon=True)
            sender.start()
            received = 0
            while data := client.recv(1 << 18):
                got.update(data)
                received += len(data)
            sender.join(60)
        assert received == size
        assert got.digest() == sent.digest()


def test_half_close_lets_the_answer_through() -> None:
    """The client ends its stream, the server answers afterwards, and the answer arrives."""

    async def answer_at_the_end(backend, reader, writer):  # type: ignore[no-untyped-def]
        data = await reader.read(-1)
        writer.write(b"got %d" % len(data))

    with Backend(answer_at_the_end) as backend, running(endpoints=[backend.address]) as gateway:
        with connect(gateway.address) as client:
            client.sendall(b"x" * 1000)
            client.shutdown(socket.SHUT_WR)
            assert read_exactly(client, 100) == b"got 1000"


def test_a_reset_reaches_the_other_side_as_a_reset() -> None:
    """A stream that was cut never looks complete, in either direction."""
    errors: list[BaseException] = []

    async def note_the_end(backend, reader, writer):  # type: ignore[no-untyped-def]
        writer.write(b"hello\n")
        try:
            while await reader.read(100):
                pass
        except ConnectionResetError as error:
            errors.append(error)

    with Backend(note_the_end) as backend, running(endpoints=[backend.address]) as gateway:
        client = connect(gateway.address)
        assert read_line(client) == "hello"
        reset(client)
        wait_until(lambda: errors, 5, "the endpoint sees a reset")

    with Backend(greet, name="b") as backend, running(endpoints=[backend.address]) as gateway:
        with connect(gateway.address) as client:
            assert read_line(client) == "b"
            backend.stop()  # resets its connections
            with pytest.raises(ConnectionResetError):
                client.recv(1)


def test_a_reader_that_does_not_read_stops_the_sender_and_costs_no_memory() -> None:
    """Backpressure reaches the endpoint; the worker's memory stays where it was."""
    with Backend(swallow) as backend, running(endpoints=[backend.address], workers=1) as gateway:
        [worker] = gateway.workers()
        before = resident_bytes(worker)
        with contextlib.ExitStack() as stack:
            for _ in range(20):
                client = stack.enter_context(connect(gateway.address))
                client.sendall(b"x" * 100)
        with Backend(flood) as source, running(endpoints=[source.address], workers=1) as second:
            [worker] = second.workers()
            with many(second.address, 20) as clients:
                for client in clients:
                    assert client.recv(1)
                wait_until(lambda: source.stalled >= 20, 20, "every sender is held back")  # type: ignore[attr-defined]
                assert resident_bytes(worker) - before < 16 << 20


async def flood(backend, reader, writer):  # type: ignore[no-untyped-def]
    """Send for ever; count who is held back."""
    backend.stalled = getattr(backend, "stalled", 0)
    while not writer.transport.is_closing():
        writer.write(b"y" * 65536)
        if writer.transport.get_write_buffer_size() > 1 << 20:
            backend.stalled += 1
            await writer.drain()


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_500_sessions_at_once_and_no_descriptor_is_left() -> None:
    """500 sessions work side by side; afterwards each worker holds what it held before."""
    with greeters() as backends, running(endpoints=addresses(backends), workers=4) as gateway:
        assert asked(gateway.address)
        before = {pid: descriptors(pid) for pid in gateway.workers()}
        with many(gateway.address, 500) as clients:
            for client in clients:
                assert read_line(client)
            for number, client in enumerate(clients):
                client.sendall(b"%08d" % number)
            for number, client in enumerate(clients):
                assert read_exactly(client, 8) == b"%08d" % number
        wait_until(
            lambda: all(descriptors(pid) <= count for pid, count in before.items()),
            10,
            "all descriptors closed",
        )


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def test_a_killed_worker_is_replaced_and_costs_the_others_nothing() -> None:
    """kill -9 of one worker: its sessions end, the others' go on, new ones work throughout."""
    with greeters() as backends, running(endpoints=addresses(backends), workers=4) as gateway:
        with many(gateway.address, 16) as clients:
            for client in clients:
                assert read_line(client)
            before = gateway.workers()
            os.kill(before[0], signal.SIGKILL)
            for _ in range(50):
                assert asked(gateway.address)
            gateway.wait_line("worker ready", count=5)
            alive = 0
            for client in clients:
                with contextlib.suppress(OSError):
                    client.sendall(b"!")
                    alive += client.recv(1) == b"!"
            assert 10 <= alive < 16
        after = gateway.workers()
        assert len(after) == 4
        assert set(before[1:]) < set(after)
        exited = gateway.wait_line("worker exited")
        assert exited["pid"] == before[0]


def test_workers_leave_when_the_master_is_killed() -> None:
    """kill -9 of the master: sessions may end, nobody new is accepted, no process is left."""
    with greeters() as backends:
        gateway = Gateway("--drain-timeout=3s", endpoints=addresses(backends)).wait_ready()
        with gateway:
            workers = gateway.workers()
            with connect(gateway.address) as client:
                assert read_line(client)
                gateway.signal(signal.SIGKILL)
                gateway.process.wait()
                talk(client, b"?")
                wait_until(lambda: refused(gateway.address), 5, "the listen address is closed")
                wait_until(lambda: not any(map(exists, workers)), 10, "the workers left")
                with pytest.raises(ConnectionResetError):
                    client.recv(1)


def exists(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def refused(address: tuple[str, int]) -> bool:
    try:
        with connect(address, 1):
            return False
    except ConnectionRefusedError:
        return True
    except OSError:
        return False


def test_the_first_signal_drains_and_the_second_one_stops() -> None:
    """TERM closes the listen address and lets a session go on; a second one ends it, code 0."""
    with greeters(1) as backends, running(endpoints=addresses(backends)) as gateway:
        with connect(gateway.address) as client:
            assert read_line(client)
            gateway.signal(signal.SIGTERM)
            gateway.wait_line("draining")
            wait_until(lambda: refused(gateway.address), 5, "the listen address is closed")
            talk(client, b"!")
            titles = [Path(f"/proc/{pid}/cmdline").read_text() for pid in gateway.workers()]
            assert any("draining" in title for title in titles)
            gateway.signal(signal.SIGINT)
            assert gateway.process.wait(60) == 0
            with pytest.raises(ConnectionResetError):
                client.recv(1)


def test_a_drain_ends_when_the_last_session_does() -> None:
    """After TERM the gateway leaves as soon as its last client is gone."""
    with greeters(1) as backends, running(endpoints=addresses(backends)) as gateway:
        with connect(gateway.address) as client:
            assert read_line(client)
            gateway.signal(signal.SIGTERM)
            gateway.wait_line("draining")
        assert gateway.process.wait(60) == 0
        assert gateway.lines("drained")


def test_the_drain_deadline_cuts_what_is_left() -> None:
    """--drain-timeout bounds the stop; sessions cut are counted in the log and no failure."""
    with (
        greeters(1) as backends,
        running("--drain-timeout=300ms", endpoints=addresses(backends)) as gateway,
        connect(gateway.address) as client,
    ):
        assert read_line(client)
        gateway.signal(signal.SIGTERM)
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        assert gateway.process.wait(60) == 0
        assert gateway.lines("drained")[0]["sessions_cut"] == 1


def test_running_out_of_descriptors_pauses_and_loses_nobody() -> None:
    """With 64 descriptors a worker holds what it can; the others wait their turn and get it."""
    with (
        greeters(1) as backends,
        running(
            endpoints=addresses(backends), workers=1, prefix=["prlimit", "--nofile=64:64"]
        ) as gateway,
        many(gateway.address, 60, timeout_s=20) as clients,
    ):
        served = [client for client in clients if has_greeting(client)]
        assert 5 <= len(served) < 60
        waiting = [client for client in clients if client not in served]
        for client in served:
            client.close()
        wait_until(lambda: serve_some(waiting), 30, "the waiting clients are served")
        assert gateway.process.poll() is None


def serve_some(waiting: list[socket.socket]) -> bool:
    """Let go of those that were served meanwhile; whether nobody waits any more."""
    for client in [client for client in waiting if has_greeting(client, 0.01)]:
        client.close()
        waiting.remove(client)
    return not waiting


def has_greeting(client: socket.socket, timeout_s: float = 0.3) -> bool:
    client.settimeout(timeout_s)
    try:
        return bool(client.recv(1))
    except TimeoutError:
        return False


def test_more_listen_addresses_than_possible_is_exit_2() -> None:
    """The listeners of a worker travel in one message, and the kernel bounds it."""
    listen = ",".join(f"127.0.0.1:{port}" for port in range(10_000, 10_254))
    with Gateway(endpoints=["127.0.0.1:1"], listen=listen) as gateway:
        assert gateway.process.wait(60) == 2
        assert "--listen-addr: 254 addresses, expected at most 253" in gateway.text()


def test_a_signal_that_comes_before_the_start_is_over_waits_for_it() -> None:
    """A reload while Python still imports does not kill the gateway; a stop then ends it well."""
    with greeters(1) as backends, Gateway(endpoints=addresses(backends)) as gateway:
        wait_until(lambda: holds_back(gateway.pid, signal.SIGHUP), 10, "it holds signals back")
        gateway.signal(signal.SIGHUP)
        gateway.wait_ready()
        assert asked(gateway.address) == "b0"
    with Gateway(endpoints=["127.0.0.1:1"]) as gateway:
        wait_until(lambda: holds_back(gateway.pid, signal.SIGTERM), 10, "it holds signals back")
        gateway.signal(signal.SIGTERM)
        assert gateway.process.wait(60) == 0


def holds_back(pid: int, number: signal.Signals) -> bool:
    """Whether the signal is blocked, or caught already: the start may be quicker than we look."""
    masks = re.findall(r"(?:SigBlk|SigCgt):\s*(\w+)", Path(f"/proc/{pid}/status").read_text())
    return any(int(mask, 16) >> (number - 1) & 1 for mask in masks)


def test_a_second_gateway_on_the_same_address_is_exit_1() -> None:
    """SO_REUSEPORT is no way in: a second gateway fails and takes no connection."""
    with greeters(1) as backends, Backend(greet, name="wrong") as wrong:
        with running(endpoints=addresses(backends)) as first:
            with Gateway(endpoints=[wrong.address], listen=first.listen) as second:
                assert second.process.wait(60) == 1
            for _ in range(20):
                assert asked(first.address) == "b0"
        assert wrong.connections <= 1  # the second one's probe, if it came so far


def test_ipv6_and_several_listen_addresses() -> None:
    """Every listen address serves, IPv6 ones and IPv6 endpoints too."""
    v4, v6 = free_port(), free_port("::1")
    with Backend(greet, name="six", host="::1") as backend:
        listen = f"127.0.0.1:{v4},[::1]:{v6}"
        with running(endpoints=[backend.address], listen=listen) as gateway:
            assert asked(("127.0.0.1", v4)) == "six"
            assert asked(("::1", v6)) == "six"
            assert gateway.lines("ready to proxy client requests")[0]["listen"] == [
                f"127.0.0.1:{v4}",
                f"[::1]:{v6}",
            ]


def test_an_empty_host_listens_everywhere() -> None:
    """``:PORT`` is all interfaces, both families."""
    port = free_port()
    with greeters(1) as backends, running(endpoints=addresses(backends), listen=f":{port}"):
        assert asked(("127.0.0.1", port)) == "b0"
        assert asked(("::1", port)) == "b0"


def test_a_refused_endpoint_costs_nothing_and_is_avoided() -> None:
    """A dead endpoint among three: no client sees an error, and all workers avoid it soon."""
    with greeters() as backends, running(endpoints=addresses(backends), workers=4) as gateway:
        dead = backends[1]
        dead.stop()
        for _ in range(60):
            assert asked(gateway.address) in ("b0", "b2")
        line = gateway.wait_line("deactivated endpoint")
        assert line["endpoint"] == dead.address


def test_a_black_hole_among_three_is_not_waited_for() -> None:
    """SYNs are dropped: the first session through it is hedged, later ones avoid it."""
    with greeters(2) as backends, black_hole() as hole:
        endpoints = [f"{hole[0]}:{hole[1]}", *addresses(backends)]
        flags = ("--health-check=off", "--dial-timeout=10s")
        with running(*flags, endpoints=endpoints, workers=2) as gateway:
            for _ in range(12):  # the client gives up before a dial to the hole does
                assert asked(gateway.address) in ("b0", "b1")

            def is_deactivated() -> bool:
                """A probe that this host was too busy for is made again when a client comes."""
                assert asked(gateway.address) in ("b0", "b1")
                return bool(gateway.lines("deactivated endpoint"))

            wait_until(is_deactivated, 120, "the hole is deactivated")


def test_all_endpoints_down_for_a_moment() -> None:
    """All down for a moment, then back: sessions work again, and all are used."""
    ports = [free_port() for _ in range(3)]
    endpoints = [f"127.0.0.1:{port}" for port in ports]
    with contextlib.ExitStack() as stack:
        backends = [stack.enter_context(Backend(greet, port=port)) for port in ports]
        gateway = stack.enter_context(running(endpoints=endpoints))
        assert asked(gateway.address) == ""
        for backend in backends:
            backend.stop()
        for _ in range(5):
            assert not echoes(gateway.address)
        for port in ports:
            stack.enter_context(Backend(echo, port=port))
        wait_until(lambda: echoes(gateway.address))
        gateway.wait_line("activated", count=3)


def test_one_thread_in_master_and_workers() -> None:
    """No library started a thread behind our back, with everything switched on."""
    admin = free_port()
    with (
        greeters() as backends,
        running(
            "--access-log",
            f"--admin-addr=127.0.0.1:{admin}",
            "--health-check=http",
            "--health-interval=100ms",
            endpoints=addresses(backends),
        ) as gateway,
    ):
        gateway.wait_line("admin address is open")
        for _ in range(20):
            asked(gateway.address)
            with connect(("127.0.0.1", admin)) as client:
                client.sendall(b"GET /status HTTP/1.1\r\nHost: [::1]\r\nConnection: close\r\n\r\n")
                assert b"200 OK" in read_exactly(client, 1 << 20)
        for pid in [gateway.pid, *gateway.workers()]:
            assert len(os.listdir(f"/proc/{pid}/task")) == 1


@pytest.mark.parametrize(
    "prefix", [[], ["env", "-i"], ["env", "-i", "LC_CTYPE=C", "A=b"]], ids=["usual", "none", "C"]
)
def test_process_titles(prefix: list[str]) -> None:
    """Master and workers are named as the contract says, whatever the environment is."""
    with (
        greeters(1) as backends,
        running(endpoints=addresses(backends), prefix=prefix or None) as gateway,
    ):
        assert title(gateway.pid) == f"etcd-gateway: master [{gateway.listen}]"
        assert sorted(map(title, gateway.workers())) == [
            f"etcd-gateway: worker {slot} [{gateway.listen}]" for slot in range(2)
        ]


def title(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text().split("\0")[0]


def test_silent_resetting_and_greedy_clients_cost_nobody_anything() -> None:
    """Clients that say nothing, reset, or send and never read leave the others alone."""
    with greeters() as backends, running(endpoints=addresses(backends)) as gateway:
        with contextlib.ExitStack() as stack:
            for n in range(60):
                client = stack.enter_context(connect(gateway.address))
                if n % 3 == 1:
                    reset(client)
                elif n % 3 == 2:
                    client.setblocking(False)
                    with contextlib.suppress(BlockingIOError):
                        while True:
                            client.send(b"z" * 65536)
            for _ in range(20):
                assert asked(gateway.address)
        assert not gateway.lines("internal error")


def test_signals_until_the_very_end_do_not_change_the_exit_code() -> None:
    """Whoever sends TERM again and again still gets exit code 0."""
    with greeters(1) as backends:
        for _ in range(5):
            with running(endpoints=addresses(backends)) as gateway:
                while gateway.process.poll() is None:
                    with contextlib.suppress(ProcessLookupError):
                        gateway.signal(signal.SIGTERM)
                    time.sleep(0.001)
                assert gateway.process.returncode == 0


def test_clients_that_were_queued_when_the_stop_came_are_served() -> None:
    """The kernel had accepted them already: a drain takes them, and closes the address then."""
    with greeters(1) as backends, running(endpoints=addresses(backends), workers=1) as gateway:
        [worker] = gateway.workers()
        os.kill(worker, signal.SIGSTOP)
        with many(gateway.address, 5) as clients:
            gateway.signal(signal.SIGTERM)
            gateway.wait_line("draining")
            os.kill(worker, signal.SIGCONT)
            assert [read_line(client) for client in clients] == ["b0"] * 5
            wait_until(lambda: refused(gateway.address))
        assert gateway.process.wait(60) == 0
        assert not gateway.lines("internal error")


def test_a_killed_worker_leaves_resets_and_no_complete_looking_streams() -> None:
    """The kernel closes what a killed worker held: both sides of its sessions see a reset."""
    seen: list[str] = []

    async def note_the_end(backend, reader, writer):  # type: ignore[no-untyped-def]
        writer.write(b"hello\n")
        try:
            while await reader.read(100):
                pass
            seen.append("end of stream")
        except ConnectionResetError:
            seen.append("reset")

    with (
        Backend(note_the_end) as backend,
        running("--health-check=off", endpoints=[backend.address], workers=1) as gateway,
        connect(gateway.address) as client,
    ):
        assert read_line(client) == "hello"
        began = time.monotonic()
        wait_until(lambda: time.monotonic() - began > 2.5, what="it is no short session any more")
        os.kill(gateway.workers()[0], signal.SIGKILL)
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        wait_until(lambda: seen, 5, "the endpoint sees the end")
        assert seen == ["reset"]


def test_a_long_session_that_ends_in_order_delivers_its_last_bytes() -> None:
    """What an endpoint sends before it closes arrives whole, however slowly it is read."""
    size = 8 << 20

    async def answer_late(backend, reader, writer):  # type: ignore[no-untyped-def]
        await reader.read(1)
        writer.write(b"z" * size)
        await writer.drain()

    with (
        Backend(answer_late) as backend,
        running(endpoints=[backend.address], workers=1) as gateway,
        connect(gateway.address) as client,
    ):
        began = time.monotonic()
        wait_until(lambda: time.monotonic() - began > 2.5, what="it is no short session any more")
        client.sendall(b"?")
        client.shutdown(socket.SHUT_WR)
        assert len(read_exactly(client, size + 1)) == size
