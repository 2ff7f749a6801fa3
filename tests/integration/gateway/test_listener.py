"""Listening and accepting over real sockets."""

from __future__ import annotations

import errno
import os
import resource
import select
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from gateway import poller as poller_module
from gateway.core.address import HostPort
from gateway.core.counters import PauseReason
from gateway.ingress import acceptor
from gateway.ingress.listener import describe_failure, drain_queue, open_listener
from gateway.sessions import register
from tests.backends import Backend as Server
from tests.backends import echo
from tests.clients import connect, read_exactly, reset, talk
from tests.gateway import running
from tests.plane import Backend, Plane, descriptors
from tests.support import free_port, wait_until


def test_exclusive_first_then_shared() -> None:
    """The first listener of an address may be joined by later ones of the same gateway."""
    address = HostPort("127.0.0.1", free_port())
    with (
        open_listener(address, exclusive=True),
        open_listener(address, exclusive=False),
        open_listener(address, exclusive=False),
    ):
        pass


def test_exclusive_finds_another_program() -> None:
    """Another listener is an error that names the address, a sharing one too."""
    address = HostPort("127.0.0.1", free_port())
    with open_listener(address, exclusive=True):
        with pytest.raises(OSError, match=str(address.port)) as caught:
            open_listener(address, exclusive=True)
        assert caught.value.errno == errno.EADDRINUSE


def test_a_port_that_needs_a_capability() -> None:
    """Nobody else is in the way, so the error says what is missing."""
    error = PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    missing = "Permission denied, a port below 1024 needs root or CAP_NET_BIND_SERVICE"
    assert describe_failure(error, 443) == missing
    assert describe_failure(error, 2379) == "Permission denied"
    assert describe_failure(OSError("no number"), 443) == "no number"


def test_all_interfaces_is_both_families() -> None:
    """An empty host takes clients of IPv4 and IPv6 on one socket."""
    address = HostPort("", free_port())
    with open_listener(address, exclusive=True) as listener:
        for host in ("127.0.0.1", "::1"):
            with socket.create_connection((host, address.port)):
                listener.settimeout(60)
                listener.accept()[0].close()


def test_accepted_sockets_inherit() -> None:
    """Accepted clients have TCP_NODELAY and keepalive without a call for each."""
    address = HostPort("127.0.0.1", free_port())
    with (
        open_listener(address, exclusive=True) as listener,
        socket.create_connection((address.host, address.port)),
    ):
        listener.settimeout(60)
        with listener.accept()[0] as client:
            assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert client.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            # Delayed from the beginning, an ACK keeps a client that writes its first words in two
            # parts waiting for 40 ms (Nagle's algorithm).
            assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK)


def test_drain_queue() -> None:
    """Clients that wait in the queue are all handed over, and nothing is waited for."""
    address = HostPort("127.0.0.1", free_port())
    taken: list[int] = []
    with open_listener(address, exclusive=True) as listener:
        clients = [socket.create_connection((address.host, address.port)) for _ in range(5)]
        drain_queue(listener, lambda fd, _peer: taken.append(fd))
        assert len(taken) == 5
        drain_queue(listener, lambda fd, _peer: taken.append(fd))
        assert len(taken) == 5
    for fd in taken:
        os.close(fd)
    for client in clients:
        client.close()


def test_pause_and_resume() -> None:
    """While there is no room clients wait; they are served when there is."""
    with Backend() as backend, Plane(backend.endpoint) as plane:
        plane.ask(lambda: plane.acceptor.pause(PauseReason.LIMIT))
        plane.quota.max_sessions = 1
        plane.scoreboard.set_sessions(plane.scoreboard.open_row(1, 1), 1)
        plane.ask(plane.acceptor.recheck)
        with plane.connect() as client:
            client.sendall(b"waiting")
            backend.sock.settimeout(0.05)
            with pytest.raises(TimeoutError):
                backend.accept()
            plane.quota.max_sessions = 2
            plane.ask(plane.acceptor.recheck)
            backend.sock.settimeout(60)
            with backend.accept() as server:
                assert server.recv(10) == b"waiting"


def test_nobody_is_accepted_without_room() -> None:
    """At the limit clients stay in the kernel's queue, and cost no descriptor."""
    with Backend() as backend, Plane(backend.endpoint, limit=1) as plane:
        first = plane.connect()
        server = backend.accept()
        with plane.connect() as second:
            second.sendall(b"waiting")
            wait_until(lambda: plane.pauses or plane.counters.sessions > 1)
            assert plane.pauses == [PauseReason.LIMIT]
            assert plane.counters.sessions == 1
            assert plane.ask(plane.acceptor.has_clients)
            first.close()
            server.close()
            with backend.accept() as server:
                assert server.recv(10) == b"waiting"


@contextmanager
def descriptor_limit(soft: int) -> Iterator[None]:
    old = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, old)


def test_no_descriptors_left() -> None:
    """Out of descriptors nobody is refused: clients wait until a session ends; it is counted."""
    with Backend() as backend, Plane(backend.endpoint) as plane:
        clients = [socket.socket() for _ in range(4)]
        target = (plane.address.host, plane.address.port)
        spare = os.open("/dev/null", os.O_RDONLY)
        with descriptor_limit(descriptors() + 2):
            os.close(spare)
            held = []
            while True:
                try:
                    held.append(os.open("/dev/null", os.O_RDONLY))
                except OSError:
                    break
            for client in clients:
                client.connect(target)
                client.sendall(b"hi")
            wait_until(lambda: plane.pauses == [PauseReason.DESCRIPTORS])
            for fd in held:
                os.close(fd)
        servers = [backend.accept() for _ in clients]
        for server in servers:
            assert server.recv(5) == b"hi"
        for sock in (*clients, *servers):
            sock.close()
        wait_until(lambda: plane.counters.sessions == 0)
        assert set(plane.counters.ended) <= {"client", "endpoint"}


class FullEpoll:
    """The epoll of a host where ``fs.epoll.max_user_watches`` may be reached."""

    def __init__(self, epoll: select.epoll) -> None:
        self._epoll = epoll
        self.full = False

    def register(self, fd: int, events: int) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        self._epoll.register(fd, events)

    def __getattr__(self, name: str) -> object:
        return getattr(self._epoll, name)


@pytest.mark.interpreted
@pytest.mark.parametrize("speaks", [True, False])
def test_no_watches_left(speaks: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is refused: who was accepted waits for room, and others in the kernel's queue."""
    with Backend() as backend, Plane(backend.endpoint) as plane:
        epoll = FullEpoll(plane.poller._epoll)
        monkeypatch.setattr(poller_module, "poll", lambda epoll, *rest: epoll.poll(*rest))
        monkeypatch.setattr(poller_module, "register", lambda epoll, *rest: epoll.register(*rest))
        plane.poller._epoll = epoll  # type: ignore[assignment]
        with plane.connect() as before, backend.accept() as old:
            before.sendall(b"!")
            assert old.recv(1) == b"!"
            epoll.full = True
            clients = [plane.connect() for _ in range(3)]
            if speaks:
                for client in clients:
                    client.sendall(b"hi")
            wait_until(lambda: plane.pauses == [PauseReason.MEMORY])
            plane.ask(plane.acceptor.recheck)
            wait_until(lambda: plane.counters.sessions == 2)
            before.sendall(b"?")
            assert old.recv(1) == b"?"
            epoll.full = False
            servers = [backend.accept() for _ in clients]
            for client in clients:
                client.sendall(b"ho")
            said = b"hiho" if speaks else b"ho"
            assert [read_exactly(server, len(said)) for server in servers] == [said] * 3
            for sock in (*clients, *servers):
                sock.close()
            wait_until(lambda: plane.counters.sessions == 1)
        assert "error" not in plane.counters.ended


def connect_and_listen(plane: Plane) -> bytes:
    with plane.connect() as client:
        return client.recv(1)


@pytest.mark.parametrize("where", ["accept", "session", "dial"])
def test_no_memory_left(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As under vm.overcommit_memory=2: at most one client is lost, and the others wait."""

    def fail(*_: object, **__: object) -> Any:
        raise MemoryError

    with Backend() as backend, Plane(backend.endpoint) as plane:
        before = descriptors()
        watcher = plane.acceptor._watchers[plane.listener.fileno()]
        accept = watcher.accept
        with monkeypatch.context() as short:
            if where == "accept":
                watcher.accept = fail
            elif where == "session":
                short.setattr(register, "Session", fail)
            else:
                short.setattr(plane.sessions.dialer, "connect", fail)
            clients = []
            if where == "accept":
                clients.append(plane.connect())
            else:
                with pytest.raises(ConnectionResetError):
                    connect_and_listen(plane)
            wait_until(lambda: plane.pauses == [PauseReason.MEMORY])
            clients += [plane.connect() for _ in range(3)]
            watcher.accept = accept
        servers = [backend.accept() for _ in clients]
        for sock in (*clients, *servers):
            sock.close()
        wait_until(lambda: descriptors() == before)
        assert plane.counters.sessions == 0
        assert not plane.log.said("accepting failed")


@pytest.mark.interpreted
def test_no_memory_to_accept_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits is served as soon as there is some."""
    tries: list[int] = []

    def fail(fd: int, *_: object) -> None:
        tries.append(fd)
        raise MemoryError

    monkeypatch.setattr("gateway.unwatched.AGAIN_S", 0.001)
    with Backend() as backend, Plane(backend.endpoint) as plane:
        plane.ask(lambda: plane.acceptor.pause(PauseReason.LIMIT))
        with monkeypatch.context() as short:
            short.setattr(plane.poller, "add", fail)
            plane.ask(plane.acceptor.recheck)
            wait_until(lambda: len(tries) > 2)
        with plane.connect(), backend.accept():
            assert plane.acceptor.pause_reason is None


@pytest.mark.parametrize("code", [errno.EPERM, errno.EACCES, errno.ENOSYS])
def test_nobody_can_be_accepted(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A security profile forbids it: it is tried slowly, told once, and goes on when it may."""
    monkeypatch.setattr(acceptor, "RESUME_AFTER_S", 0.001)
    tries: list[bool] = []
    with Backend() as backend, Plane(backend.endpoint) as plane:
        watcher = plane.acceptor._watchers[plane.listener.fileno()]
        accept = watcher.accept

        def refuse() -> tuple[int, object]:
            tries.append(watcher in plane.acceptor._resting)
            raise OSError(code, os.strerror(code))

        watcher.accept = refuse
        with plane.connect() as client:
            client.sendall(b"hi")
            wait_until(lambda: len(tries) > 2)
            watcher.accept = accept
            with backend.accept() as server:
                assert server.recv(2) == b"hi"
        assert not any(tries)
        (line,) = plane.log.said("cannot accept clients, trying on")
        assert line["listen"] == str(plane.address)
        assert line["error"] == os.strerror(code)


def test_those_who_still_wait_are_accepted_without_another_event(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The kernel reports the listener once for each 256 events; each batch accepts all the same."""
    monkeypatch.setattr(acceptor, "ACCEPT_S", 0.0)  # one client in each batch
    with Backend() as backend, Plane(backend.endpoint) as plane:
        clients: list[socket.socket] = []

        def accept_in_three_batches() -> list[int]:
            # Nothing of the loop runs meanwhile: all clients wait in the kernel's queue.
            target = (plane.address.host, plane.address.port)
            clients.extend(connect(target) for _ in range(5))
            [watcher] = plane.acceptor._watchers.values()
            plane.poller.last(watcher)
            counts = []
            for _ in range(3):
                plane.poller._call_last()
                counts.append(plane.counters.sessions)
            return counts

        assert plane.ask(accept_in_three_batches) == [1, 2, 3]
        wait_until(lambda: plane.counters.sessions == 5)
        for client in clients:
            reset(client)
        wait_until(lambda: plane.counters.sessions == 0)


def test_nobody_is_accepted_from_a_listener_that_was_removed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A drain begins between two batches: who still waits is another worker's."""
    monkeypatch.setattr(acceptor, "ACCEPT_S", 0.0)
    with Backend() as backend, Plane(backend.endpoint) as plane:
        clients: list[socket.socket] = []

        def remove_between_two_batches() -> int:
            target = (plane.address.host, plane.address.port)
            clients.extend(connect(target) for _ in range(3))
            [watcher] = plane.acceptor._watchers.values()
            plane.poller.last(watcher)
            plane.poller._call_last()
            plane.acceptor.remove(plane.listener)
            plane.poller._call_last()
            return plane.counters.sessions

        assert plane.ask(remove_between_two_batches) == 1
        plane.ask(lambda: drain_queue(plane.listener, plane.acceptor.on_client))
        assert plane.ask(lambda: plane.counters.sessions) == 3
        for client in clients:
            reset(client)
        wait_until(lambda: plane.counters.sessions == 0)


def test_listeners_share_the_time_of_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that serves many slots accepts for no longer than one that serves its own."""
    now = 0.0

    def tick() -> float:
        nonlocal now
        now += acceptor.ACCEPT_S / 8
        return now

    with Backend() as backend, Plane(backend.endpoint) as plane:
        address = HostPort("127.0.0.1", free_port())
        clients: list[socket.socket] = []
        second = open_listener(address, exclusive=True)

        def accept_in_one_batch() -> int:
            # Nothing of the loop runs meanwhile: all clients wait in the kernel's queues.
            plane.acceptor.add(second)
            monkeypatch.setattr(acceptor, "monotonic", tick)
            for each in (plane.address, address):
                clients.extend(connect((each.host, each.port)) for _ in range(20))
            for watcher in plane.acceptor._watchers.values():
                plane.poller.last(watcher)
            plane.poller._call_last()
            return plane.counters.sessions

        assert plane.ask(accept_in_one_batch) == 8, "four from each"
        wait_until(lambda: plane.counters.sessions == 40)
        for client in clients:
            reset(client)
        wait_until(lambda: plane.counters.sessions == 0)
        plane.ask(lambda: plane.acceptor.remove(second))
        second.close()


def test_places_go_to_all_listeners_in_turn() -> None:
    """A crowd at one address keeps nobody away from another one, of ours or of a slot adopted."""
    with Backend() as backend, Plane(backend.endpoint, limit=1) as plane:
        address = HostPort("127.0.0.1", free_port())
        second = open_listener(address, exclusive=True)
        plane.ask(lambda: plane.acceptor.add(second))
        with plane.connect() as first, backend.accept():
            crowd = [plane.connect() for _ in range(4)]
            alone = connect((address.host, address.port))
            for client in crowd:
                client.sendall(b"c")
            alone.sendall(b"a")
            wait_until(lambda: plane.pauses)
            reset(first)
        served = b""
        for _ in range(5):
            server = backend.accept()
            served += server.recv(1)
            reset(server)
        assert b"a" in served[:2]
        for client in (*crowd, alone):
            client.close()
        wait_until(lambda: plane.counters.sessions == 0)
        plane.ask(lambda: plane.acceptor.remove(second))
        second.close()


def destroy_listeners(port: int) -> bool:
    """What ``ss -K`` does to them; False: the kernel or our rights do not allow it."""
    if shutil.which("ss") is None:
        return False
    with socket.create_server(("127.0.0.1", 0)) as probe:
        for number in (probe.getsockname()[1], port):
            command = ["ss", "-K", "-l", "-t", "-n", "sport", "=", f":{number}"]
            subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            if number != port and probe.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                return False
    return True


def test_a_listener_that_was_destroyed_listens_again() -> None:
    """Somebody ends all connections of a port, listening sockets included: clients come back."""
    with Server(echo) as server, running(endpoints=[server.address], workers=1) as gateway:
        with connect(gateway.address) as before:
            if not destroy_listeners(gateway.port):
                pytest.skip("needs ss, the right to destroy sockets, and a kernel that can")
            gateway.wait_line("listening again, somebody destroyed the socket")
            with connect(gateway.address) as client:
                talk(client, b"hi")
            talk(before, b"ho")
        assert len(gateway.lines("listening again, somebody destroyed the socket")) == 1


def test_a_listener_that_was_shut_down_is_left_alone() -> None:
    """As at a stop, by another process of ours: it stays shut, and is looked at now and then."""
    looks: list[bool] = []
    with Plane() as plane:
        watcher = plane.acceptor._watchers[plane.listener.fileno()]
        accept = watcher.accept

        def look() -> tuple[int, object]:
            looks.append(watcher in plane.acceptor._resting)
            return accept()

        watcher.accept = look
        plane.listener.shutdown(socket.SHUT_RD)
        wait_until(lambda: len(looks) == 3)
        assert looks == [False] * 3
        wait_until(lambda: watcher in plane.acceptor._resting)
        assert not plane.listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        assert not plane.log.lines
