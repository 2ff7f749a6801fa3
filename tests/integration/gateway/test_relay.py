"""The data plane of one worker over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import functools
import hashlib
import os
import random
import select
import socket
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path

import pytest

from gateway import tcp
from gateway.core.counters import DialResult, End
from gateway.core.endpoint import Endpoint, EndpointState
from gateway.core.messages import Settings
from gateway.poller import STREAM, Watcher
from gateway.sessions import age, cuts, idle
from gateway.sessions import dial as dial_module
from gateway.sessions.dial import Attempt
from gateway.sessions.leg import Leg
from gateway.sessions.session import Session
from gateway.tcp import is_connected
from gateway.unix import UNIX_PEER
from tests.clients import read_exactly, reset
from tests.plane import (
    Backend,
    BlackHole,
    Plane,
    closed_endpoint,
    descriptors,
    endpoint_of,
    read_all,
)
from tests.support import wait_until


def in_background(call: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    return thread


def open_sessions(count: int, plane: Plane, backend: Backend, stack: contextlib.ExitStack) -> None:
    """So many, each from client to endpoint; they end with the stack."""
    for _ in range(count):
        stack.enter_context(plane.connect())
        stack.enter_context(backend.accept())


def test_round_trip() -> None:
    """Bytes reach the endpoint and the answer reaches the client."""
    with Backend() as backend, Plane(backend.endpoint) as plane:
        with plane.connect() as client, backend.accept() as server:
            client.sendall(b"ping")
            assert server.recv(10) == b"ping"
            server.sendall(b"pong!")
            assert client.recv(10) == b"pong!"
            count = plane.count().endpoints[backend.endpoint.name]
            assert (count.sessions, count.bytes_in, count.bytes_out) == (1, 4, 5)
        wait_until(lambda: plane.counters.sessions == 0)
        assert sum(plane.counters.ended.values()) == 1
        assert plane.table.started == {backend.endpoint.name: 0}


def test_server_speaks_first() -> None:
    """A greeting arrives although the client said nothing."""
    with (
        Backend() as backend,
        Plane(backend.endpoint) as plane,
        plane.connect() as client,
        backend.accept() as server,
    ):
        server.sendall(b"220 hello\r\n")
        assert client.recv(100) == b"220 hello\r\n"


@pytest.mark.parametrize("size", [1 << 26])
def test_bulk_both_ways_at_once(size: int) -> None:
    """64 MiB of random bytes each way at once arrive intact and are counted exactly."""
    up, down = os.urandom(size), os.urandom(size)
    got: dict[str, bytes] = {}
    with Backend() as backend, Plane(backend.endpoint) as plane:
        with plane.connect(60) as client, backend.accept() as server:
            server.settimeout(60)

            def send(sock: socket.socket, data: bytes) -> None:
                sock.sendall(data)
                sock.shutdown(socket.SHUT_WR)

            def receive(name: str, sock: socket.socket) -> None:
                got[name] = read_all(sock)

            threads = [
                in_background(lambda: send(client, up)),
                in_background(lambda: send(server, down)),
                in_background(lambda: receive("up", server)),
                in_background(lambda: receive("down", client)),
            ]
            for thread in threads:
                thread.join(60)
        wait_until(lambda: plane.counters.sessions == 0)
        assert hashlib.sha256(got["up"]).digest() == hashlib.sha256(up).digest()
        assert hashlib.sha256(got["down"]).digest() == hashlib.sha256(down).digest()
        count = plane.counters.endpoints[backend.endpoint.name]
        assert (count.bytes_in, count.bytes_out) == (size, size)


def test_client_half_close() -> None:
    """After the client's end of stream the endpoint's answer still gets through."""
    with Backend() as backend, Plane(backend.endpoint) as plane:
        with plane.connect() as client, backend.accept() as server:
            client.sendall(b"question")
            client.shutdown(socket.SHUT_WR)
            assert read_all(server) == b"question"
            server.sendall(b"answer")
            server.close()
            assert read_all(client) == b"answer"
        wait_until(lambda: plane.counters.ended == {"client": 1})


def test_endpoint_half_close() -> None:
    """After the endpoint's end of stream the client may still send."""
    with Backend() as backend, Plane(backend.endpoint) as plane:
        with plane.connect() as client, backend.accept() as server:
            server.sendall(b"bye")
            server.shutdown(socket.SHUT_WR)
            assert read_all(client) == b"bye"
            client.sendall(b"more")
            client.close()
            assert read_all(server) == b"more"
        wait_until(lambda: plane.counters.ended == {"endpoint": 1})


def test_end_sent_before_the_dial_is_over() -> None:
    """A client that sends everything and half-closes at once loses nothing."""
    with (
        Backend() as backend,
        Plane(closed_endpoint(), backend.endpoint) as plane,
        plane.connect() as client,
    ):
        client.sendall(b"all")
        client.shutdown(socket.SHUT_WR)
        with backend.accept() as server:
            assert read_all(server) == b"all"


@pytest.mark.parametrize("traffic", [b"", b"some"])
def test_client_reset_reaches_the_endpoint(traffic: bytes) -> None:
    """A client's reset arrives as a reset, not as an end of stream."""
    with Backend() as backend, Plane(backend.endpoint) as plane:
        client = plane.connect()
        with backend.accept() as server:
            if traffic:
                client.sendall(traffic)
                assert server.recv(10) == traffic
            reset(client)
            with pytest.raises(ConnectionResetError):
                server.recv(10)
        wait_until(lambda: plane.counters.ended == {"reset": 1})


def test_endpoint_reset_reaches_the_client() -> None:
    """An endpoint's reset arrives as a reset, not as an end of stream."""
    with Backend() as backend, Plane(backend.endpoint) as plane:
        with plane.connect() as client:
            server = backend.accept()
            server.sendall(b"part of a")
            assert client.recv(10) == b"part of a"
            reset(server)
            with pytest.raises(ConnectionResetError):
                client.recv(10)
        wait_until(lambda: plane.counters.ended == {"reset": 1})


def test_reset_found_by_writing_is_a_reset_too() -> None:
    """An endpoint that vanishes while the client sends: the client sees a reset, never an end."""
    with Backend() as backend, Plane(backend.endpoint) as plane:
        with plane.connect() as client:
            server = backend.accept()
            client.sendall(b"x" * 100_000)
            wait_until(lambda: plane.count().endpoints[backend.endpoint.name].bytes_in > 0)
            server.close()  # unread bytes: the kernel sends a reset
            with pytest.raises((ConnectionResetError, BrokenPipeError)):
                client.sendall(b"x" * (1 << 28))
            client.close()
        wait_until(lambda: plane.counters.ended == {"reset": 1})


def test_slow_reader_stops_the_sender() -> None:
    """What a reader does not take is not piled up here: the sender is stopped by its kernel."""
    with (
        Backend() as backend,
        Plane(backend.endpoint) as plane,
        plane.connect() as client,
        backend.accept() as server,
    ):
        server.setblocking(False)
        sent = 0

        def full() -> bool:
            nonlocal sent
            try:
                while True:
                    sent += server.send(b"y" * 65536)
            except BlockingIOError:
                name = backend.endpoint.name
                return plane.count().endpoints[name].bytes_out == plane_before[0]
            finally:
                plane_before[0] = plane.count().endpoints[backend.endpoint.name].bytes_out

        plane_before = [-1]
        wait_until(full)
        assert sent < 1 << 26
        server.setblocking(True)
        finish = in_background(server.close)
        received = len(read_all(client))
        finish.join(60)
        assert received == sent


@pytest.mark.parametrize("chunk", [1 << 10, 1 << 14, 1 << 17])
def test_every_byte_arrives_where_a_socket_takes_little_at_a_time(chunk: int) -> None:
    """The kernel takes a part of nearly every write, and the rest waits for its turn.

    A client's socket has the send buffer of the listener that it came by.
    """
    with Backend() as backend, Plane(backend.endpoint) as plane:
        plane.listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        data = random.randbytes(3 << 20)

        def send(server: socket.socket) -> None:
            with server:
                for begin in range(0, len(data), chunk):
                    server.sendall(data[begin : begin + chunk])

        with plane.connect() as client:
            sender = in_background(functools.partial(send, backend.accept()))
            received = read_all(client)
            sender.join(60)
        assert len(received) == len(data)
        assert received == data


def test_descriptors_come_back() -> None:
    """After many sessions, ended in every way, as many descriptors are open as before."""
    with Backend() as backend, Plane(backend.endpoint) as plane:
        before = descriptors()
        for turn in range(60):
            client = plane.connect()
            server = backend.accept()
            client.sendall(b"z" * 10)
            server.recv(10)
            if turn % 3 == 0:
                reset(client)
            elif turn % 3 == 1:
                reset(server)
            client.close()
            server.close()
        wait_until(lambda: plane.counters.sessions == 0)
        assert descriptors() == before
        assert plane.table.started == {backend.endpoint.name: 0}


def test_next_endpoint_at_once() -> None:
    """A refused dial is followed by the next endpoint; the refusal is reported."""
    bad = closed_endpoint()
    with Backend() as backend, Plane(bad, backend.endpoint) as plane:
        with plane.connect() as client, backend.accept() as server:
            server.sendall(b"hi")
            assert client.recv(10) == b"hi"
        assert plane.dial_failures[0][:3] == (bad.name, "127.0.0.1", DialResult.REFUSED)
        assert plane.table.suspects == {bad.name}
        assert plane.counters.endpoints[bad.name].dials == {"refused": 1}
        wait_until(lambda: plane.table.started == {backend.endpoint.name: 0})


def test_next_address_of_an_endpoint() -> None:
    """An endpoint's second address is tried before the endpoint is suspected."""
    with Backend() as backend:
        endpoint = endpoint_of(backend.endpoint.port, "127.0.0.9", "127.0.0.1", host="two")
        with Plane(endpoint) as plane, plane.connect() as client, backend.accept() as server:
            server.sendall(b"hi")
            assert client.recv(10) == b"hi"
            assert [f[1] for f in plane.dial_failures] == ["127.0.0.9"]
            assert plane.table.suspects == set()


def test_an_endpoint_is_suspected_once_its_last_address_failed() -> None:
    """Not while one of them may still answer, although another one has refused."""
    with BlackHole() as hole:
        endpoint = endpoint_of(hole.endpoint.port, "127.0.0.9", "127.0.0.1", host="two")
        with Plane(endpoint, settings=Settings(dial_timeout_s=60.0)) as plane, plane.connect():
            wait_until(lambda: plane.dial_failures)
            assert plane.dial_failures[0][1:3] == ("127.0.0.9", DialResult.REFUSED)
            assert plane.table.suspects == set()
    with Plane(endpoint) as plane:
        # The reset may come before connect() has returned.
        with contextlib.suppress(ConnectionResetError), plane.connect() as client:
            client.recv(1)
        wait_until(lambda: len(plane.dial_failures) == 2)
        assert plane.table.suspects == {endpoint.name}


def test_black_hole_costs_a_hedge_once() -> None:
    """A silent endpoint delays one session by the hedge delay; later ones avoid it."""
    with BlackHole() as hole, Backend() as backend, Plane(hole.endpoint, backend.endpoint) as plane:
        with plane.connect() as client, backend.accept() as server:
            server.sendall(b"hi")
            assert client.recv(10) == b"hi"
        assert plane.table.suspects == {hole.endpoint.name}
        for _ in range(4):
            with plane.connect(), backend.accept():
                pass
        assert plane.dial_failures[0][2] is DialResult.ABANDONED
        assert plane.counters.endpoints[hole.endpoint.name].dials == {"abandoned": 1}


def test_dial_timeout() -> None:
    """Only a silent endpoint: the client gets a reset after the dial timeout."""
    with BlackHole() as hole, Plane(hole.endpoint, settings=Settings(dial_timeout_s=0.2)) as plane:
        with pytest.raises(ConnectionResetError), plane.connect() as client:
            client.recv(1)
        assert plane.dial_failures[0][2] is DialResult.TIMEOUT
        wait_until(lambda: plane.counters.refused == {"dial-failed": 1})


@pytest.mark.parametrize("late_s", [Settings().dial_hedge_s, Settings().dial_timeout_s])
def test_a_dial_whose_event_waits_behind_others_is_no_slow_one(late_s: float) -> None:
    """What the kernel knows counts before another endpoint is dialed, or this one is blamed."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    with ours, Backend() as backend, Backend() as other:
        with Plane(backend.endpoint, other.endpoint) as plane:

            def serve_without_events() -> None:
                plane.sessions.serve(theirs.detach(), None)
                (dial,) = plane.sessions.dialer.unfinished
                wait_until(lambda: is_connected(dial.attempts[0].fd))
                dial.check(dial.started_at + late_s)
                assert not plane.sessions.dialer.unfinished

            plane.ask(serve_without_events)
            with backend.accept() as server:
                server.sendall(b"hi")
                assert ours.recv(10) == b"hi"
            assert plane.dial_failures == []
            assert plane.table.suspects == set()
            assert list(plane.counters.endpoints) == [backend.endpoint.name]


def test_a_refusal_whose_event_waits_behind_others_is_no_timeout() -> None:
    """The endpoint refused in time, so this is what is said of it."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    with ours, Plane(closed_endpoint()) as plane:

        def be_refused_without_events() -> None:
            plane.sessions.serve(theirs.detach(), None)
            (dial,) = plane.sessions.dialer.unfinished
            wait_until(lambda: select.select([], [dial.attempts[0].fd], [], 0)[1])
            dial.check(dial.started_at + plane.settings.dial_timeout_s)

        plane.ask(be_refused_without_events)
        assert [failure[2] for failure in plane.dial_failures] == [DialResult.REFUSED]


def test_each_address_is_dialed_once() -> None:
    """While a silent address is waited for, one that refused is not dialed over and over."""
    settings = Settings(dial_timeout_s=0.5, dial_hedge_s=0.05)
    with BlackHole() as hole:
        endpoint = endpoint_of(hole.endpoint.port, "127.0.0.1", "127.0.0.9", host="two")
        with Plane(endpoint, settings=settings) as plane:
            with pytest.raises(ConnectionResetError), plane.connect() as client:
                client.recv(1)
            assert [failure[1:3] for failure in plane.dial_failures] == [
                ("127.0.0.9", DialResult.REFUSED),
                ("127.0.0.1", DialResult.TIMEOUT),
            ]


def test_no_endpoint() -> None:
    """Without any endpoint the client gets a reset at once."""
    with Plane() as plane:
        with pytest.raises(ConnectionResetError), plane.connect() as client:
            client.recv(1)
        wait_until(lambda: plane.counters.refused == {"no-endpoint": 1})
        assert plane.counters.ended == {"no-endpoint": 1}


def test_an_error_of_ours_costs_one_session() -> None:
    """Both sides get a reset, the log says what it was, and it counts as ``error``."""
    with (
        Backend() as backend,
        Plane(backend.endpoint) as plane,
        plane.connect() as client,
        backend.accept() as server,
    ):
        wait_until(lambda: plane.count().endpoints[backend.endpoint.name].sessions == 1)
        (session,) = plane.ask(lambda: tuple(plane.sessions._all))
        plane.ask(lambda: session.crashed(ValueError("a bug")))
        for sock in (client, server):
            with pytest.raises(ConnectionResetError):
                sock.recv(1)
        assert plane.counters.ended == {"error": 1}
        assert "a bug" in plane.log.said("session failed")[0]["error"]


def speak(plane: Plane, first_words: bytes) -> bytes:
    with plane.connect() as client:
        client.sendall(first_words)
        return client.recv(1)


@pytest.mark.parametrize("broken", ["pick", pytest.param("watch", marks=pytest.mark.interpreted)])
def test_a_crash_at_the_start_costs_one_session(broken: str) -> None:
    """Whatever goes wrong before the bytes flow: the client gets a reset, nothing is left over."""
    with Backend() as backend, Plane(backend.endpoint) as plane:
        before = descriptors()
        watch = plane.poller.add

        def fail_to_pick(tried: Collection[str] = ()) -> Endpoint | None:
            raise MemoryError(f"to pick beside {tried}")

        def fail_to_watch(fd: int, watcher: Watcher, events: int = STREAM) -> None:
            if isinstance(watcher, Leg | Attempt):
                raise OSError(errno.EPERM, "not to be watched")
            watch(fd, watcher, events)

        if broken == "pick":
            plane.table.pick = fail_to_pick  # type: ignore[method-assign]
        else:
            plane.poller.add = fail_to_watch  # type: ignore[method-assign]
        for first_words in (b"", b"hi"):
            with pytest.raises(ConnectionResetError):
                speak(plane, first_words)
        wait_until(lambda: plane.counters.ended == {"error": 2})
        assert plane.counters.sessions == 0
        assert plane.dial_failures == []
        wait_until(lambda: descriptors() == before)


def test_client_that_leaves_while_dialing() -> None:
    """A client that resets during the dial ends the dial; nobody is blamed."""
    with BlackHole() as hole, Plane(hole.endpoint) as plane:
        client = plane.connect()
        wait_until(lambda: plane.counters.sessions == 1)
        reset(client)
        wait_until(lambda: plane.counters.sessions == 0)
        assert plane.dial_failures == []
        assert plane.counters.endpoints[hole.endpoint.name].dials == {"abandoned": 1}


def test_idle_timeout() -> None:
    """A session without traffic is cut on both sides, one with traffic is not."""
    with Backend() as backend, Plane(backend.endpoint) as plane:
        plane.apply(backend.endpoint, settings=Settings(idle_timeout_s=0.2))
        with plane.connect() as client, backend.accept() as server:
            with pytest.raises(ConnectionResetError):
                client.recv(1)
            with pytest.raises(ConnectionResetError):
                server.recv(1)
        wait_until(lambda: plane.counters.ended == {"idle": 1})


def test_removed_endpoint() -> None:
    """Sessions of an endpoint that left the snapshot end, others stay."""
    with (
        Backend() as one,
        Backend() as two,
        Plane(one.endpoint, two.endpoint) as plane,
        plane.connect() as a,
        plane.connect() as b,
        one.accept(),
        two.accept() as kept,
    ):
        plane.apply(two.endpoint)
        with pytest.raises(ConnectionResetError):
            a.recv(1)
        kept.sendall(b"still here")
        assert b.recv(20) == b"still here"
        wait_until(lambda: plane.counters.ended == {"removed": 1})


def test_counters_of_a_removed_endpoint_stay_until_they_were_reported() -> None:
    """What its sessions did at the very last is in one more report, and only then do they go."""
    with (
        Backend() as one,
        Backend() as two,
        Plane(one.endpoint, two.endpoint) as plane,
        plane.connect() as client,
        one.accept() as server,
    ):
        name = one.endpoint.name
        client.sendall(b"last words")
        assert server.recv(20) == b"last words"
        plane.apply(two.endpoint)
        wait_until(lambda: plane.counters.sessions == 0)
        counted = plane.count().endpoints[name]
        assert (counted.sessions, counted.sessions_total, counted.bytes_in) == (0, 1, 10)
        plane.ask(plane.sessions.reported)
        assert name not in plane.counters.endpoints


def test_an_endpoint_that_comes_back_between_two_reports_counts_on() -> None:
    """Its counters begin anew only after a report without them, or some would go missing."""
    with Backend() as one, Backend() as two, Plane(one.endpoint, two.endpoint) as plane:
        name = one.endpoint.name
        with plane.connect(), one.accept():
            pass
        wait_until(lambda: plane.counters.sessions == 0)
        plane.apply(two.endpoint)
        plane.ask(plane.sessions.reported)
        assert name not in plane.counters.endpoints
        plane.apply(one.endpoint)
        with plane.connect(), one.accept():
            pass
        seen = plane.counters.endpoints
        wait_until(lambda: name in seen and seen[name].sessions_total == 2)
        plane.apply(two.endpoint)
        wait_until(lambda: plane.counters.sessions == 0)
        plane.ask(plane.sessions.reported)
        plane.ask(plane.sessions.reported)
        assert plane.sessions.counters_of(name).sessions_total == 0


def test_only_sessions_that_moved_bytes_cost_a_report() -> None:
    """Small talk, bulk and the other direction: each is counted, and nothing is looked at twice."""
    with (
        Backend() as backend,
        Plane(backend.endpoint) as plane,
        plane.connect() as silent,
        backend.accept() as mute,
        plane.connect() as client,
        backend.accept() as server,
    ):
        counted = plane.count().endpoints[backend.endpoint.name]
        for number in range(1, 4):
            assert not plane.sessions.relay.dirty
            client.sendall(b"to")
            assert server.recv(2) == b"to"
            client.sendall(b"to")
            assert server.recv(2) == b"to"
            assert len(plane.sessions.relay.dirty) == 1
            plane.count()
            assert (counted.bytes_in, counted.bytes_out) == (number * 4, (number - 1) * 5)
            server.sendall(b"there")
            assert client.recv(5) == b"there"
            plane.count()
            assert (counted.bytes_in, counted.bytes_out) == (number * 4, number * 5)
        sender = threading.Thread(target=server.sendall, args=(bytes(10_000_000),), daemon=True)
        sender.start()
        left = 10_000_000
        while left:
            got = len(client.recv(1 << 20))
            assert got
            left -= got
            if left % 5 == 0:
                plane.count()
        sender.join(60)
        plane.count()
        assert counted.bytes_out == 10_000_000 + 15
        assert not plane.sessions.relay.dirty
        mute.sendall(b"!")
        assert silent.recv(1) == b"!"
        plane.count()
        assert counted.bytes_out == 10_000_000 + 16


def test_limit_leaves_clients_in_the_queue() -> None:
    """Beyond the limit clients wait, and are served when a session ends."""
    with Backend() as backend, Plane(backend.endpoint, limit=1) as plane:
        first = plane.connect()
        server = backend.accept()
        with plane.connect() as second:
            second.sendall(b"me too")
            backend.sock.settimeout(0.05)
            with pytest.raises(TimeoutError):
                backend.accept()
            first.close()
            server.close()
            backend.sock.settimeout(60)
            with backend.accept() as next_server:
                assert next_server.recv(10) == b"me too"


def test_ipv6() -> None:
    """Both legs speak IPv6."""
    with (
        Backend("::1") as backend,
        Plane(backend.endpoint, listen="::1") as plane,
        plane.connect() as client,
        backend.accept() as server,
    ):
        client.sendall(b"six")
        assert server.recv(3) == b"six"


def test_cut_all_is_a_reset_on_both_sides() -> None:
    """What the gateway cuts never looks complete."""
    with Backend() as backend, Plane(backend.endpoint) as plane:
        with plane.connect() as client, backend.accept() as server:
            client.sendall(b"1")
            assert server.recv(1) == b"1"
            plane.ask(lambda: plane.sessions.cut_all(End.DRAINED))
            with pytest.raises(ConnectionResetError):
                client.recv(1)
            with pytest.raises(ConnectionResetError):
                server.recv(1)
        assert plane.counters.ended == {"drained": 1}


def test_many_sessions_of_every_size() -> None:
    """500 sessions at once, each with its own amount both ways: every byte and every end right."""

    async def session(plane: Plane, size: int) -> None:
        reader, writer = await asyncio.open_connection(plane.address.host, plane.address.port)
        data = random.Random(size).randbytes(size)
        writer.write(data)
        writer.write_eof()
        assert await reader.read(-1) == data
        writer.close()
        await writer.wait_closed()

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def run() -> None:
        server = await asyncio.start_server(echo, "127.0.0.1", 0, backlog=1000)
        endpoint = endpoint_of(server.sockets[0].getsockname()[1])
        with Plane(endpoint) as plane:
            sizes = [0, 1, 65535, 65536, 65537, 3 << 20, *(i * 37 for i in range(494))]
            await asyncio.gather(*(session(plane, size) for size in sizes))
            await asyncio.to_thread(wait_until, lambda: plane.counters.sessions == 0)
            count = plane.counters.endpoints[endpoint.name]
            assert count.bytes_in == count.bytes_out == sum(sizes)
            assert plane.counters.ended == {"client": len(sizes)}
        server.close()
        await server.wait_closed()

    asyncio.run(run())


def test_reset_while_the_other_side_does_not_read() -> None:
    """A reset gets through although bytes are waiting: the reader learns that they are not all."""
    with Backend() as backend, Plane(backend.endpoint) as plane, plane.connect() as client:
        server = backend.accept()
        server.setblocking(False)
        name = backend.endpoint.name
        counted = -1

        def full() -> bool:
            nonlocal counted
            try:
                while True:
                    server.send(b"y" * 65536)
            except BlockingIOError:
                before, counted = counted, plane.count().endpoints[name].bytes_out
                return before == counted

        wait_until(full)
        reset(server)
        wait_until(lambda: plane.counters.ended == {"reset": 1})
        with pytest.raises(ConnectionResetError):
            read_all(client)


def test_urgent_byte_does_not_stop_the_stream() -> None:
    """Out-of-band data is passed on as an ordinary byte, and what follows it arrives too."""
    with (
        Backend() as backend,
        Plane(backend.endpoint) as plane,
        plane.connect() as client,
        backend.accept() as server,
    ):
        client.sendall(b"abc")
        client.send(b"!", socket.MSG_OOB)
        client.sendall(b"def")
        client.shutdown(socket.SHUT_WR)
        assert read_all(server) == b"abc!def"


def inactive(endpoint: Endpoint) -> Endpoint:
    return dataclasses.replace(endpoint, state=EndpointState.INACTIVE)


def test_sessions_of_an_endpoint_that_turned_inactive_end_one_by_one() -> None:
    """Spread over a second, whatever snapshots come in between."""
    settings = Settings(on_inactive="close")
    with Backend() as one, Backend() as two, Plane(one.endpoint, settings=settings) as plane:
        clients = [plane.connect() for _ in range(30)]
        servers = [one.accept() for _ in clients]
        wait_until(lambda: plane.count().endpoints[one.endpoint.name].sessions == 30)
        plane.apply(inactive(one.endpoint), two.endpoint)
        wait_until(lambda: plane.counters.ended.get("inactive", 0) >= 3)
        assert plane.counters.ended["inactive"] < 30
        while plane.counters.sessions:
            plane.apply(inactive(one.endpoint), two.endpoint)
        assert plane.counters.ended == {"inactive": 30}
        for sock in (*clients, *servers):
            sock.close()


def test_sessions_begun_with_an_inactive_endpoint_stay() -> None:
    """No endpoint was active, so it was tried and served: the next snapshot does not end that."""
    settings = Settings(on_inactive="close", idle_timeout_s=3600)
    with Backend() as one, Backend() as two, Plane(one.endpoint, settings=settings) as plane:
        plane.apply(inactive(one.endpoint))
        with plane.connect() as client, one.accept() as server:
            plane.apply(inactive(one.endpoint), inactive(two.endpoint))
            plane.apply(inactive(one.endpoint), two.endpoint)
            assert plane.ask(lambda: len(plane.sessions._cuts)) == 0
            client.sendall(b"still here")
            assert server.recv(20) == b"still here"


def test_a_reload_to_close_ends_those_that_were_there_before() -> None:
    """With keep they stayed when their endpoint turned inactive; those begun then stay for good."""
    closing = Settings(on_inactive="close", close_spread_s=3600)
    with Backend() as one, Plane(one.endpoint) as plane:
        with plane.connect(), one.accept():
            wait_until(lambda: plane.counters.sessions == 1)
            plane.apply(inactive(one.endpoint))
            with plane.connect(), one.accept():
                wait_until(lambda: len(plane.sessions) == 2)
                plane.apply(inactive(one.endpoint), settings=closing)
                (before, begun) = plane.sessions.all()
                assert (before in plane.sessions._cuts, begun in plane.sessions._cuts) == (
                    True,
                    False,
                )
                plane.apply(inactive(one.endpoint), settings=Settings())
                assert plane.ask(lambda: len(plane.sessions._cuts)) == 0


def test_what_has_begun_to_connect_is_closed_if_memory_runs_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Until an attempt owns the descriptor the dial does, so nothing stays open to the endpoint."""
    with BlackHole() as hole, Plane(hole.endpoint) as plane:
        before = descriptors()

        def fail(*_: object) -> None:
            raise MemoryError

        monkeypatch.setattr(dial_module, "Attempt", fail)
        with pytest.raises(ConnectionResetError), plane.connect() as client:
            client.recv(1)
        wait_until(lambda: plane.counters.ended == {End.ERROR: 1})
        wait_until(lambda: descriptors() == before)


def test_the_range_of_local_ports_may_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read again when an endpoint turns inactive: a dial of it may meet itself then."""
    told = tmp_path / "range"
    monkeypatch.setattr(tcp, "PORT_RANGE", str(told))
    told.write_text("60000 60001")
    with Backend() as one, Plane(one.endpoint) as plane:
        assert plane.sessions.dialer.ephemeral == range(60000, 60002)
        told.write_text("20000 60001")
        plane.apply(inactive(one.endpoint))
        assert plane.sessions.dialer.ephemeral == range(20000, 60002)


def test_sessions_begun_with_an_inactive_address_stay() -> None:
    """Whatever becomes of the other address of the endpoint: nothing changed for theirs."""
    settings = Settings(on_inactive="close", close_spread_s=3600)
    with Backend("127.0.0.9") as one:
        port = one.endpoint.port
        two = endpoint_of(port, "127.0.0.9", "127.0.0.1", host="two")
        half = dataclasses.replace(two, inactive=("127.0.0.9",))
        with Plane(inactive(two), settings=settings) as plane:
            plane.apply(inactive(two))
            with plane.connect() as client, one.accept() as server:
                for endpoint in (half, inactive(two), half):
                    plane.apply(endpoint)
                    assert plane.ask(lambda: len(plane.sessions._cuts)) == 0
                client.sendall(b"still here")
                assert server.recv(20) == b"still here"
                plane.apply(two)
                plane.apply(half)
                assert plane.ask(lambda: len(plane.sessions._cuts)) == 1


@pytest.mark.parametrize("busy", ["half-closed", "paused"])
def test_rebalancing_spares_who_waits(busy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that waits for its answer, or reads slowly, is older than one that is idle."""
    monkeypatch.setattr(age, "IDLE_S", 0.0)
    with Backend() as backend, Plane(backend.endpoint) as plane:
        with plane.connect() as waiting, backend.accept() as server:
            if busy == "half-closed":
                waiting.shutdown(socket.SHUT_WR)
                assert server.recv(1) == b""
            else:
                server.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    while True:
                        server.send(bytes(1 << 16))
            with plane.connect() as idle, backend.accept():
                wait_until(lambda: plane.counters.sessions == 2)
                for _ in range(2):
                    plane.ask(lambda: plane.sessions.give_up([backend.endpoint.name], [0.0]))
                with pytest.raises(ConnectionResetError):
                    idle.recv(1)
            assert plane.counters.ended == {"rebalance": 1}


def test_rebalancing_asks_each_host_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host with the oldest sessions does not connect again for all of them before others do."""
    monkeypatch.setattr(age, "IDLE_S", 0.0)
    hosts = ("127.0.0.1", "127.0.0.1", "127.0.0.2")
    with Backend() as backend, Plane(backend.endpoint) as plane, contextlib.ExitStack() as stack:
        clients = []
        for number, host in enumerate(hosts, 1):
            address = (plane.address.host, plane.address.port)
            client = socket.create_connection(address, 60, source_address=(host, 0))
            clients.append(stack.enter_context(client))
            stack.enter_context(backend.accept())
            wait_until(lambda number=number: plane.counters.sessions == number)  # type: ignore[misc]
        for closed in (0, 2, 1):
            plane.ask(lambda: plane.sessions.give_up([backend.endpoint.name], [0.0]))
            with pytest.raises(ConnectionResetError):
                clients[closed].recv(1)


def test_many_idle_sessions_are_cut_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others have their turn in between, and whoever sends something meanwhile is spared."""
    monkeypatch.setattr(cuts, "AT_ONCE", 1)
    settings = Settings(idle_timeout_s=3600.0, close_spread_s=0.0)
    with Backend() as backend, Plane(backend.endpoint) as plane, contextlib.ExitStack() as stack:
        plane.apply(backend.endpoint, settings=settings)
        open_sessions(3, plane, backend, stack)
        scheduled = plane.sessions._idle_timeout._cuts

        def be_idle_at_once() -> None:
            _be_idle_for(3600.0, plane)
            scheduled._timer.stop()
            scheduled._cut_due()
            assert plane.counters.ended == {"idle": 1}
            next(iter(plane.sessions.all())).client.moved += 1

        plane.ask(be_idle_at_once)
        wait_until(lambda: not plane.ask(lambda: len(scheduled)))
        assert plane.counters.ended == {"idle": 2}


def test_many_sessions_are_looked_at_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others have their turn while the kernel is asked of thousands; some may end meanwhile."""
    monkeypatch.setattr(idle, "AT_ONCE", 1)
    settings = Settings(idle_timeout_s=3600.0, close_spread_s=0.0)
    with Backend() as backend, Plane(backend.endpoint) as plane, contextlib.ExitStack() as stack:
        plane.apply(backend.endpoint, settings=settings)
        open_sessions(4, plane, backend, stack)

        def begin() -> None:
            sessions = list(plane.sessions.all())
            for each in sessions:
                each.waiting = -1  # where opening them took so long that it was time to look
            _be_idle_for(3600.0, plane)
            assert [each.waiting for each in sessions].count(0) == 1
            sessions[0].cut(End.AGE)
            sessions[-1].cut(End.AGE)

        plane.ask(begin)
        wait_until(lambda: plane.counters.ended == {"age": 2, "idle": 2})


def test_sessions_that_are_idle_together_are_cut_one_by_one() -> None:
    """Over --close-spread, as where a reload turns the timeout on; or not, if that turns it off."""
    on = Settings(idle_timeout_s=3600.0, close_spread_s=86400.0)
    with Backend() as backend, Plane(backend.endpoint) as plane, contextlib.ExitStack() as stack:
        open_sessions(3, plane, backend, stack)
        timeout = plane.sessions._idle_timeout

        def look() -> dict[Session, tuple[float, End]]:
            _be_idle_for(3600.0, plane)
            return dict(timeout._cuts._scheduled)

        plane.apply(backend.endpoint, settings=on)
        times = plane.ask(look)
        assert len(times) == 3
        latest = max(at for at, _ in times.values())
        assert latest < time.monotonic() + 3600.0, "at most as long again"
        assert plane.ask(look) == times, "each keeps its time"
        plane.apply(backend.endpoint, settings=Settings())
        assert plane.ask(look) == {}
        assert plane.counters.ended == {}
        plane.apply(backend.endpoint, settings=dataclasses.replace(on, close_spread_s=0.0))
        assert len(plane.ask(look)) == 3
        wait_until(lambda: plane.counters.ended == {"idle": 3})


def test_who_takes_bytes_slowly_is_not_idle() -> None:
    """Also long after all of them left the gateway; who takes nothing more is idle at last."""
    sent = bytes(200_000)
    with Backend() as backend, Plane(backend.endpoint) as plane, socket.socket() as client:
        plane.apply(backend.endpoint, settings=Settings(idle_timeout_s=3600.0))
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect((plane.address.host, plane.address.port))
        with backend.accept() as server:
            server.sendall(sent)

            def bytes_out() -> int:
                return plane.count().endpoints[backend.endpoint.name].bytes_out

            wait_until(lambda: bytes_out() == len(sent))
            plane.ask(plane.sessions._idle_timeout._look)
            for _ in range(3):
                read_exactly(client, 50_000)
                plane.ask(lambda: _be_idle_for(3600.0, plane))
                assert plane.counters.ended == {}

            def idle_at_last() -> bool:
                plane.ask(lambda: _be_idle_for(3600.0, plane))
                return plane.counters.ended == {"idle": 1}

            wait_until(idle_at_last)


AGED_S = 20.0
"""How much older sessions are made: none of them may have begun before its host did."""


def _grow_old(plane: Plane) -> None:
    """As if all sessions had begun AGED_S earlier."""
    for session in plane.sessions.all():
        session.started_at -= AGED_S


def _be_idle_for(seconds: float, plane: Plane) -> None:
    """As if no byte had moved for so long, and it is time to look."""
    for session in plane.sessions.all():
        session.idle_for(time.monotonic())
        session.moved_at -= seconds
    timeout = plane.sessions._idle_timeout
    timeout._timer.stop()
    timeout._due_at = time.monotonic()
    timeout._look()


def test_many_sessions_that_go_together_are_cut_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --close-spread, too, others have their turn in between."""
    monkeypatch.setattr(cuts, "AT_ONCE", 1)
    with Backend() as backend, Plane(backend.endpoint) as plane, contextlib.ExitStack() as stack:
        open_sessions(3, plane, backend, stack)

        def cut_at_once() -> None:
            plane.sessions.cut_over(0.0, End.DRAINED)
            scheduled = plane.sessions._cuts
            scheduled._timer.stop()
            scheduled._cut_due()
            assert plane.counters.ended == {"drained": 1}

        plane.ask(cut_at_once)
        wait_until(lambda: plane.counters.ended == {"drained": 3})


def test_sessions_that_are_too_old_at_a_reload_are_cut_one_by_one() -> None:
    """With --max-session-age turned on, over --close-spread; turned off again, they stay."""
    on = Settings(max_session_age_s=AGED_S / 2, close_spread_s=86400.0)
    with Backend() as backend, Plane(backend.endpoint) as plane, contextlib.ExitStack() as stack:
        open_sessions(3, plane, backend, stack)

        def look() -> int:
            plane.sessions._age._timer.stop()
            plane.sessions._age._look()
            return len(plane.sessions._cuts)

        plane.ask(lambda: _grow_old(plane))
        plane.apply(backend.endpoint, settings=on)
        assert plane.ask(look) == 3
        times = dict(plane.sessions._cuts._scheduled)
        plane.apply(backend.endpoint, settings=on)
        assert plane.sessions._cuts._scheduled == times, "each keeps its time"
        plane.apply(backend.endpoint, settings=Settings())
        assert plane.ask(look) == 0
        assert plane.counters.ended == {}
        plane.apply(backend.endpoint, settings=dataclasses.replace(on, close_spread_s=0.0))
        wait_until(lambda: plane.counters.ended == {"age": 3})


def test_what_a_drain_cuts_has_been_drained() -> None:
    """Also sessions whose cut was due for another reason: the log says how many a drain has cut."""
    on = Settings(max_session_age_s=AGED_S / 2, close_spread_s=86400.0)
    with Backend() as backend, Plane(backend.endpoint) as plane:
        with plane.connect(), backend.accept():
            plane.ask(lambda: _grow_old(plane))
            plane.apply(backend.endpoint, settings=on)
            plane.ask(lambda: plane.sessions.cut_over(0.0, End.DRAINED))
            wait_until(lambda: plane.counters.ended == {"drained": 1})


def test_sessions_that_are_to_be_cut_follow_a_shorter_spread() -> None:
    """Of a reload, or of the end of a drain: the last goes within it, and not all at its end."""
    old = Settings(max_session_age_s=1e-3, close_spread_s=86400.0)
    with Backend() as backend, Plane(backend.endpoint) as plane, contextlib.ExitStack() as stack:
        open_sessions(3, plane, backend, stack)

        def times() -> set[float]:
            return {at - time.monotonic() for at, _ in plane.sessions._cuts._scheduled.values()}

        def ages() -> list[float]:
            return [time.monotonic() - each.started_at for each in plane.sessions.all()]

        wait_until(lambda: [age > 0.01 for age in plane.ask(ages)] == [True] * 3, what="too old")
        plane.ask(lambda: plane.sessions._age._timer.start(86400.0))
        plane.apply(backend.endpoint, settings=old)
        assert len(plane.ask(times)) == 3
        plane.apply(backend.endpoint, settings=dataclasses.replace(old, close_spread_s=3600.0))
        moments = plane.ask(times)
        assert len(moments) == 3
        assert max(moments) < 3600.0
        plane.apply(backend.endpoint, settings=dataclasses.replace(old, close_spread_s=0.0))
        wait_until(lambda: plane.counters.ended == {"age": 3})


def test_a_worker_that_was_stopped_takes_nobody_for_idle() -> None:
    """Bytes that came while its loop stood still have moved nothing yet."""
    with Backend() as backend, Plane(backend.endpoint) as plane:
        plane.apply(backend.endpoint, settings=Settings(idle_timeout_s=20.0))
        with plane.connect() as client, backend.accept() as server:
            client.sendall(b"before")
            assert server.recv(10) == b"before"

            def stand_still() -> None:
                """For a minute, as far as the worker can tell."""
                client.sendall(b"meanwhile")
                timeout = plane.sessions._idle_timeout
                timeout._due_at -= 60.0
                for session in plane.sessions.all():
                    session.idle_for(time.monotonic())
                    session.moved_at -= 60.0
                timeout._timer.stop()
                timeout._look()

            plane.ask(stand_still)
            assert server.recv(10) == b"meanwhile"
            assert plane.counters.ended == {}


def test_a_dial_that_takes_long_is_no_idle_time() -> None:
    """A client that waited longer for its endpoint than it may be idle is not cut as it gets it."""
    with BlackHole() as hole, Plane(hole.endpoint) as plane:
        settings = Settings(idle_timeout_s=60.0, dial_timeout_s=600.0)
        plane.apply(hole.endpoint, settings=settings)
        with plane.connect():
            wait_until(lambda: plane.counters.sessions == 1)

            def look() -> None:
                timeout = plane.sessions._idle_timeout
                timeout._timer.stop()
                timeout._due_at = time.monotonic()
                timeout._look()

            def dial_for_an_hour() -> None:
                for session in plane.sessions.all():
                    session.started_at = session.moved_at = time.monotonic() - 3600.0
                look()

            plane.ask(dial_for_an_hour)
            hole.open()
            wait_until(lambda: all(each.upstream for each in plane.sessions.all()))
            plane.ask(look)
            assert plane.counters.sessions == 1
            assert plane.counters.ended == {}


def test_frequent_snapshots_do_not_put_off_the_idle_timeout() -> None:
    """Endpoints that change all the time keep no idle session alive."""
    settings = Settings(idle_timeout_s=0.2)
    with Backend() as backend, Plane(backend.endpoint, settings=settings) as plane:
        with plane.connect(), backend.accept():
            wait_until(lambda: plane.counters.sessions == 1)
            deadline = time.monotonic() + 20
            while plane.counters.sessions and time.monotonic() < deadline:
                plane.apply(backend.endpoint)
            assert plane.counters.ended == {"idle": 1}


@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("side", ["client", "endpoint"])
def test_bytes_behind_descriptors_are_read(tmp_path: Path, side: str, ends: bool) -> None:
    """A read stops behind those that came with descriptors, and one event tells of all."""
    path = str(tmp_path / "be")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        listener.settimeout(60)
        with Plane(Endpoint(f"unix:{path}", (f"unix:{path}",), 0)) as plane:
            client, accepted = socket.socketpair()
            client.settimeout(60)
            accepted.setblocking(False)
            plane.ask(lambda: plane.sessions.serve(accepted.detach(), UNIX_PEER))
            with client, listener.accept()[0] as server:
                server.settimeout(60)
                client.sendall(b"?")
                assert server.recv(9) == b"?"
                sender, reader = (client, server) if side == "client" else (server, client)

                def speak() -> None:
                    """In the worker's thread, so that it hears everything at once."""
                    for text in (b"one", b"two", b"three"):
                        socket.send_fds(sender, [text], [0])
                    sender.sendall(b"four")
                    if ends:
                        sender.shutdown(socket.SHUT_WR)

                plane.ask(speak)
                heard = b""
                while len(heard) < 15 and (data := reader.recv(100)):
                    heard += data
                assert heard == b"onetwothreefour"
