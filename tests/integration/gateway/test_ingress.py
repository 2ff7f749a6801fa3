"""Where clients come in, on real sockets: what happens to those who wait when a worker leaves."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from gateway.core.address import HostPort
from gateway.core.descriptor_budget import RESERVE
from gateway.core.messages import Settings
from gateway.descriptors import receive, send
from gateway.ingress import ingress
from gateway.ingress.ingress import Ingress
from gateway.ingress.listener import open_listener
from gateway.scoreboard import Scoreboard
from tests.clients import reset
from tests.lone_worker import spec_alone
from tests.plane import Backend, Plane, read_all
from tests.support import free_port, wait_until

MANY = 200
"""Clients: more than the interpreter goes deep, at a dozen calls for each."""


class OpenIngress:
    """An ingress with a bound listener that does not accept yet; counts how often it was empty."""

    def __init__(self, plane: Plane) -> None:
        self.address = HostPort("127.0.0.1", free_port())
        self.emptied = 0
        self.scoreboard = Scoreboard()
        self.row = self.scoreboard.open_row(0, 1)
        self.inbox, self.sender = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        spec = spec_alone(self.address, self.inbox, self.scoreboard, self.row)
        self.ingress = Ingress(
            plane.loop,
            plane.poller,
            spec,
            plane.sessions,
            plane.counters,
            plane.budget,
            plane.log,
            on_empty=self._on_empty,
        )
        plane.on_session_end = self.ingress.session_ended

    def _on_empty(self) -> None:
        self.emptied += 1

    def connect(self) -> socket.socket:
        return socket.create_connection((self.address.host, self.address.port), timeout=10)

    def close(self) -> None:
        self.ingress.close()
        for sock in (self.inbox, self.sender):
            sock.close()
        self.scoreboard.close()


@contextmanager
def watcher(plane: Plane) -> Iterator[OpenIngress]:
    opened = plane.ask(lambda: OpenIngress(plane))
    try:
        yield opened
    finally:
        plane.ask(plane.sessions.close)
        plane.ask(opened.close)


def start_without_a_place(plane: Plane, entry: OpenIngress) -> int:
    """Start where another worker has the only place that --max-sessions allows; its row."""
    other = plane.ask(lambda: entry.scoreboard.open_row(1, 1))
    plane.ask(lambda: entry.scoreboard.set_sessions(other, 1))
    plane.ask(lambda: entry.ingress.apply(Settings(max_sessions=1)))
    plane.ask(entry.ingress.start)
    return other


def test_who_waits_at_a_stop_is_served_to_the_end() -> None:
    """One of them left while waiting, so its session is over at once: the others are not cut."""
    with (
        Backend() as backend,
        Plane(backend.endpoint) as plane,
        watcher(plane) as entry,
    ):
        plane.ask(lambda: entry.ingress.apply(plane.settings))
        reset(entry.connect())
        with entry.connect() as client:
            client.sendall(b"hi")
            plane.ask(lambda: entry.ingress.leave(accept_rest=True, shut=True))
            with backend.accept() as server:
                assert server.recv(10) == b"hi"
                assert entry.emptied == 0
                assert not plane.ask(lambda: entry.ingress.empty)
        wait_until(lambda: entry.emptied == 1)
        assert sum(plane.counters.ended.values()) == 2
        assert "drained" not in plane.counters.ended


def test_adopted_listeners_are_tuned_as_our_own() -> None:
    """Their worker may have ended before it was told anything, or hang since before a reload."""
    with Plane() as plane, watcher(plane) as entry:
        other = open_listener(HostPort("127.0.0.1", free_port()), exclusive=True)
        settings = Settings(keepalive_time_s=7.0)
        plane.ask(lambda: entry.ingress.apply(settings))
        plane.ask(lambda: entry.ingress.listeners.adopt(1, [other]))
        assert other.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 7
        plane.ask(lambda: entry.ingress.leave(accept_rest=False, shut=True))


def test_a_leaving_ingress_adopts_nothing() -> None:
    """Listeners that come too late are closed, and nobody can connect to what it left."""
    with Plane() as plane, watcher(plane) as entry:
        late = open_listener(HostPort("127.0.0.1", free_port()), exclusive=True)
        plane.ask(lambda: entry.ingress.leave(accept_rest=False, shut=True))
        plane.ask(lambda: entry.ingress.listeners.adopt(1, [late]))
        assert late.fileno() == -1
        with pytest.raises(ConnectionRefusedError):
            entry.connect()
        assert plane.ask(lambda: entry.ingress.empty)


@pytest.mark.parametrize("max_sessions", [0, 1])
def test_clients_wait_in_the_inbox_while_descriptors_are_short(max_sessions: int) -> None:
    """Nobody is told to send more, the inbox does not wake the loop, and later they are served.

    Also where accepting rests already, because the limit of sessions is reached.
    """
    settings = Settings(max_sessions=max_sessions)
    with Backend() as backend, Plane(backend.endpoint) as plane, watcher(plane) as entry:
        plane.ask(lambda: entry.ingress.apply(settings))
        plane.ask(entry.ingress.start)
        assert entry.scoreboard.accepting(entry.row)
        plane.ask(lambda: plane.budget.limit(100, 100 - RESERVE - 3))
        clients = [socket.socketpair() for _ in range(3)]
        for _, theirs in clients:
            send(entry.sender, b"+", [theirs.fileno()])
            theirs.close()
        wait_until(lambda: not entry.scoreboard.accepting(entry.row))
        assert plane.counters.sessions == 1
        plane.ask(lambda: plane.budget.limit(1000, 0))
        plane.ask(lambda: entry.ingress.tick(0.1))
        assert entry.scoreboard.accepting(entry.row)
        for ours, _ in clients:
            ours.close()
        for _ in clients:
            backend.accept().close()
        wait_until(lambda: sum(plane.counters.ended.values()) == 3)
        plane.ask(lambda: entry.ingress.leave(accept_rest=False, shut=True))


def test_who_is_in_flight_to_us_comes_before_the_kernels_queue() -> None:
    """With room for one session at a time, new clients do not keep taking the place that ended."""
    with Backend() as backend, Plane(backend.endpoint) as plane, watcher(plane) as entry:
        plane.ask(lambda: entry.ingress.apply(plane.settings))
        plane.ask(entry.ingress.start)
        plane.ask(lambda: plane.budget.limit(100, 100 - RESERVE - 3))
        handed_over = [socket.socketpair() for _ in range(3)]
        for ours, theirs in handed_over:
            ours.sendall(b"old")
            send(entry.sender, b"+", [theirs.fileno()])
            theirs.close()
        wait_until(lambda: not entry.scoreboard.accepting(entry.row))
        queued = [entry.connect() for _ in range(6)]
        for client in queued:
            client.sendall(b"new")
        served = []
        for count in range(1, 10):
            with backend.accept() as server:
                served.append(server.recv(3))
                reset(server)
            wait_until(lambda count=count: sum(plane.counters.ended.values()) == count)  # type: ignore[misc]
            plane.ask(lambda: entry.ingress.tick(0.1))
        assert served == [b"old"] * 3 + [b"new"] * 6
        for client in (*(ours for ours, _ in handed_over), *queued):
            client.close()
        plane.ask(lambda: entry.ingress.leave(accept_rest=False, shut=True))


def test_who_is_held_back_to_the_end_is_reset() -> None:
    """As those in the kernel's queue are: nobody takes it for an empty stream."""
    with Backend() as backend, Plane(backend.endpoint) as plane, watcher(plane) as entry:
        start_without_a_place(plane, entry)
        with socket.create_server(("127.0.0.1", 0)) as server:
            client = socket.create_connection(server.getsockname(), timeout=60)
            accepted, _ = server.accept()
        with client:
            send(entry.sender, b"+", [accepted.fileno()])
            accepted.close()
            wait_until(entry.ingress.clients_held_back)
            plane.ask(lambda: entry.ingress.leave(accept_rest=False, shut=True))
            plane.ask(entry.ingress.close)
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        assert [line["clients"] for line in plane.log.said("clients turned away at the end")] == [1]


def test_who_is_held_back_gets_no_place_of_a_session_that_is_cut() -> None:
    """Nor does who comes then: there would be an endpoint for a moment, and then a reset."""
    with Backend() as backend, Plane(backend.endpoint) as plane, watcher(plane) as entry:
        other = start_without_a_place(plane, entry)
        pairs = [socket.socketpair() for _ in range(2)]
        send(entry.sender, b"+", [pairs[0][1].fileno()])
        wait_until(entry.ingress.clients_held_back)
        plane.ask(lambda: entry.ingress.leave(accept_rest=True, shut=True))
        plane.ask(entry.ingress.serve_no_more)
        plane.ask(lambda: entry.scoreboard.set_sessions(other, 0))
        send(entry.sender, b"+", [pairs[1][1].fileno()])
        plane.ask(lambda: entry.ingress.tick(0.1))
        assert len(plane.ask(entry.ingress.clients_held_back)) == 2
        assert plane.counters.sessions == 0
        assert entry.emptied == 0
        for sock in (*pairs[0], *pairs[1]):
            sock.close()


def test_a_client_of_a_unix_listener_that_an_upgrade_added() -> None:
    """An old worker serves it as what it is: nothing behind descriptors is lost."""
    with Backend() as backend, Plane(backend.endpoint) as plane, watcher(plane) as entry:
        plane.ask(lambda: entry.ingress.apply(plane.settings))
        plane.ask(entry.ingress.start)
        ours, theirs = socket.socketpair()
        with ours:
            for data in (b"a", b"b"):
                send(ours, data, [ours.fileno()])
            ours.sendall(b"c")
            ours.shutdown(socket.SHUT_WR)
            send(entry.sender, b"u", [theirs.fileno()])
            theirs.close()
            with backend.accept() as server:
                assert read_all(server) == b"abc"
        plane.ask(lambda: entry.ingress.leave(accept_rest=False, shut=True))


@pytest.mark.parametrize("stop", [False, True])
def test_who_is_held_back_goes_to_a_worker_that_stays(stop: bool) -> None:
    """A worker that is replaced is offered no place any more: it hands over who waits for one.

    At a stop nobody stays, although one that has not heard of it yet looks so.
    """
    with Backend() as backend, Plane(backend.endpoint) as plane, watcher(plane) as entry:
        other = plane.ask(lambda: entry.scoreboard.open_row(1, 1))
        plane.ask(lambda: entry.scoreboard.set_sessions(other, 1))
        plane.ask(lambda: entry.scoreboard.set_accepting(other, True))
        plane.ask(lambda: entry.scoreboard.beat(other, time.monotonic_ns() + 10**12))
        their_inbox, peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        plane.ask(lambda: entry.ingress.add_peer(1, peer))
        plane.ask(lambda: entry.ingress.apply(Settings(max_sessions=1)))
        plane.ask(entry.ingress.start)
        ours, theirs = socket.socketpair()
        with ours, theirs, their_inbox, peer:
            send(entry.sender, b"+", [theirs.fileno()])
            wait_until(entry.ingress.clients_held_back)
            plane.ask(lambda: entry.ingress.leave(accept_rest=stop, shut=False))
            plane.ask(entry.ingress.end_if_empty)
            if stop:
                assert len(entry.ingress.clients_held_back()) == 1
                return
            assert entry.emptied == 1
            _, [fd] = receive(their_inbox, 1, 1)
            with socket.socket(fileno=fd) as client:
                client.sendall(b"hi")
            assert ours.recv(2) == b"hi"


def test_who_is_held_back_keeps_its_place_in_the_line() -> None:
    """Looking for a place and finding none is no turn; a place that is used is one."""
    with Backend() as backend, Plane(backend.endpoint) as plane, watcher(plane) as entry:
        other = start_without_a_place(plane, entry)
        ours, theirs = socket.socketpair()
        with ours:
            send(entry.sender, b"+", [theirs.fileno()])
            theirs.close()
            wait_until(entry.ingress.clients_held_back)
            waits_since = set()
            for _ in range(3):
                plane.ask(lambda: entry.ingress.tick(0.1))
                waits_since.add(entry.scoreboard.waiting_since_ns(entry.row))
            assert len(waits_since) == 1
            assert all(waits_since)
            plane.ask(lambda: entry.scoreboard.set_sessions(other, 0))
            plane.ask(lambda: entry.ingress.tick(0.1))
            backend.accept().close()
            assert entry.scoreboard.waiting_since_ns(entry.row) == 0
        wait_until(lambda: plane.counters.sessions == 0)
        plane.ask(lambda: entry.ingress.leave(accept_rest=False, shut=True))


def test_many_who_are_held_back_meet_no_endpoint() -> None:
    """A stop takes everybody who is queued; each of them is told, and none is left behind."""
    with Plane() as plane, watcher(plane) as entry:
        other = start_without_a_place(plane, entry)
        clients = [entry.connect() for _ in range(MANY)]
        plane.ask(lambda: entry.ingress.leave(accept_rest=True, shut=True))
        assert len(plane.ask(entry.ingress.clients_held_back)) == MANY
        plane.ask(lambda: entry.scoreboard.set_sessions(other, 0))
        plane.ask(lambda: entry.ingress.tick(0.1))
        for client in clients:
            with client, pytest.raises(ConnectionResetError):
                client.recv(1)
        assert plane.counters.ended == plane.counters.refused == {"no-endpoint": MANY}
        assert plane.counters.sessions == 0
        assert entry.emptied == 1
        assert not plane.log.said("session failed")


def test_many_in_the_inbox_meet_no_endpoint_while_descriptors_are_short() -> None:
    """Who ends at once makes room for the next one; the count of sessions stays what it is."""
    with Plane() as plane, watcher(plane) as entry:
        plane.ask(lambda: entry.ingress.apply(plane.settings))
        plane.ask(entry.ingress.start)
        plane.ask(lambda: plane.budget.limit(100, 100 - RESERVE - 4))
        pairs = [socket.socketpair() for _ in range(MANY)]

        def send_all() -> None:
            """In the worker's thread, so that all of them are there when it looks."""
            for _, theirs in pairs:
                send(entry.sender, b"+", [theirs.fileno()])
                theirs.close()

        plane.ask(send_all)
        wait_until(lambda: not entry.scoreboard.accepting(entry.row))
        plane.ask(lambda: entry.ingress.tick(0.1))
        wait_until(lambda: sum(plane.counters.ended.values()) == MANY)
        assert plane.counters.sessions == 0
        assert plane.ask(entry.scoreboard.total_sessions) == 0
        assert not plane.log.said("session failed")
        for ours, _ in pairs:
            ours.close()
        plane.ask(lambda: entry.ingress.leave(accept_rest=False, shut=True))


def test_a_place_is_free_when_nothing_is_left_of_its_session() -> None:
    """The endpoint never holds one connection more than --max-sessions, not for a moment."""
    held_open: list[bool] = []
    with Backend() as backend, Plane(backend.endpoint) as plane, watcher(plane) as entry:
        plane.ask(lambda: entry.ingress.apply(Settings(max_sessions=1)))
        plane.ask(entry.ingress.start)
        clients = []
        for _ in range(2):
            ours, theirs = socket.socketpair()
            clients.append(ours)
            send(entry.sender, b"+", [theirs.fileno()])
            theirs.close()
        clients[0].sendall(b"first")
        with backend.accept() as server:
            assert server.recv(5) == b"first"
            server.sendall(b"unread")
            wait_until(lambda: select.select(clients[:1], [], [], 0)[0])
            wait_until(entry.ingress.clients_held_back)
            dialer = plane.sessions.dialer
            connect = dialer.connect

            def connect_and_look(
                address: str, port: int, data: bytes | None = None, may_meet_itself: bool = False
            ) -> tuple[int, int | None]:
                held_open.append(not select.select([server], [], [], 0)[0])
                return connect(address, port, data, may_meet_itself)

            dialer.connect = connect_and_look
            clients[0].close()
            with backend.accept():
                pass
        clients[1].close()
        plane.ask(lambda: entry.ingress.leave(accept_rest=False, shut=True))
    assert held_open == [False]


def test_who_was_handed_over_too_late_does_not_wait_for_the_end_of_a_drain() -> None:
    """The sender looked before we left, and sent after."""
    with Backend() as backend, Plane(backend.endpoint) as plane, watcher(plane) as entry:
        plane.ask(lambda: entry.ingress.apply(plane.settings))
        plane.ask(entry.ingress.start)
        with entry.connect(), backend.accept():
            plane.ask(lambda: entry.ingress.leave(accept_rest=False, shut=True))
            ours, theirs = socket.socketpair()
            with ours:
                send(entry.sender, b"+", [theirs.fileno()])
                theirs.close()
                ours.sendall(b"hi")
                plane.ask(lambda: entry.ingress.tick(0.1))
                with backend.accept() as server:
                    assert server.recv(10) == b"hi"
        wait_until(lambda: entry.emptied == 1)


def test_who_is_taken_together_with_one_that_is_over_at_once_is_served() -> None:
    """A worker that leaves takes both; the end of the first is not the end of the worker."""
    with Backend() as backend, Plane(backend.endpoint) as plane, watcher(plane) as entry:
        plane.ask(lambda: entry.ingress.apply(plane.settings))
        plane.ask(entry.ingress.start)
        plane.ask(lambda: entry.ingress.leave(accept_rest=False, shut=True))
        with socket.create_server(("127.0.0.1", 0)) as server:
            gone, client = (socket.create_connection(server.getsockname()) for _ in range(2))
            for _ in range(2):
                with server.accept()[0] as accepted:
                    send(entry.sender, b"+", [accepted.fileno()])
        reset(gone)
        with client:
            client.sendall(b"hi")
            plane.ask(lambda: entry.ingress.tick(0.1))
            with backend.accept() as upstream:
                assert upstream.recv(10) == b"hi"
                assert plane.counters.ended == {"reset": 1}
                assert entry.emptied == 0
        wait_until(lambda: entry.emptied == 1)


def test_who_waits_at_a_stop_is_not_handed_over() -> None:
    """The worker with fewer sessions stops, too, although it has not heard of it yet."""
    with Backend() as backend, Plane(backend.endpoint) as plane, watcher(plane) as entry:
        other = plane.ask(lambda: entry.scoreboard.open_row(1, 1))
        plane.ask(lambda: entry.scoreboard.set_accepting(other, True))
        plane.ask(lambda: entry.scoreboard.beat(other, time.monotonic_ns() + 10**12))
        their_inbox, peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        plane.ask(lambda: entry.ingress.add_peer(1, peer))
        plane.ask(lambda: entry.ingress.apply(plane.settings))
        with their_inbox, peer, entry.connect(), entry.connect():
            plane.ask(lambda: entry.ingress.leave(accept_rest=True, shut=True))
            with backend.accept(), backend.accept():
                assert plane.counters.sessions == 2
            plane.ask(lambda: entry.scoreboard.set_accepting(other, False))


def start_beside_another(plane: Plane, entry: OpenIngress, *, slot: int, gen: int) -> int:
    """Start, beside a worker on the scoreboard that accepts; its row."""
    other = plane.ask(lambda: entry.scoreboard.open_row(slot, gen))
    plane.ask(lambda: entry.scoreboard.set_accepting(other, True))
    plane.ask(lambda: entry.scoreboard.beat(other, time.monotonic_ns() + 10**12))
    plane.ask(lambda: entry.ingress.apply(plane.settings))
    plane.ask(entry.ingress.start)
    return other


def test_who_is_handed_over_while_a_stop_begins_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another worker has not heard of the stop: who has no session waits until that leaves too.

    And no longer: one whose loop does not run hands nobody over.
    """
    monkeypatch.setattr(ingress, "ON_THE_WAY_NS", 10**12)
    with Backend() as backend, Plane(backend.endpoint) as plane, watcher(plane) as entry:
        other = start_beside_another(plane, entry, slot=1, gen=1)
        plane.ask(lambda: entry.ingress.leave(accept_rest=True, shut=True))
        plane.ask(entry.ingress.end_if_empty)
        assert entry.emptied == 0
        ours, theirs = socket.socketpair()
        with ours:
            send(entry.sender, b"+", [theirs.fileno()])
            theirs.close()
            ours.sendall(b"hi")
            plane.ask(lambda: entry.scoreboard.set_accepting(other, False))
            with backend.accept() as server:
                assert server.recv(10) == b"hi"
                assert entry.emptied == 0
                plane.ask(lambda: entry.scoreboard.set_accepting(other, True))
                plane.ask(lambda: entry.scoreboard.beat(other, 1))
        wait_until(lambda: entry.emptied == 1)
        assert "drained" not in plane.counters.ended


def test_who_left_before_there_was_room_is_named_all_the_same() -> None:
    """The kernel says at the accept who it was, and not any more once the connection was reset."""
    settings = Settings(max_sessions=1, access_log=True)
    with Backend() as backend, Plane(backend.endpoint) as plane, watcher(plane) as entry:
        plane.apply(backend.endpoint, settings=settings)
        plane.ask(lambda: entry.ingress.apply(settings))
        probe = entry.connect()
        name = "{}:{}".format(*probe.getsockname())
        reset(probe)
        plane.ask(entry.ingress.start)
        wait_until(lambda: plane.log.lines_of("session"))
        assert [line["client"] for line in plane.log.lines_of("session")] == [name]
        plane.ask(lambda: entry.ingress.leave(accept_rest=False, shut=True))


def test_a_worker_whose_master_is_gone_does_not_wait_for_those_of_the_next_one() -> None:
    """They are on the same scoreboard, accept for good and hand nobody to it."""
    with Plane() as plane, watcher(plane) as entry:
        start_beside_another(plane, entry, slot=0, gen=2)
        plane.ask(lambda: entry.ingress.leave(accept_rest=True, shut=False))
        plane.ask(entry.ingress.end_if_empty)
        wait_until(lambda: entry.emptied == 1)


def test_who_waits_for_the_rate_comes_when_a_reload_turns_it_off() -> None:
    """Nothing is left of it: neither that it was reached, nor a look that is still to come."""
    with Backend() as backend, Plane(backend.endpoint) as plane, watcher(plane) as entry:
        plane.ask(lambda: entry.ingress.apply(Settings(max_session_rate=1)))
        plane.ask(entry.ingress.start)
        with entry.connect(), backend.accept():
            with entry.connect() as waits, entry.connect() as waits_too:
                wait_until(lambda: plane.counters.accept_paused)
                plane.ask(lambda: entry.ingress.apply(Settings()))
                for client in (waits, waits_too):
                    client.sendall(b"hi")
                    with backend.accept() as server:
                        assert server.recv(10) == b"hi"
        plane.ask(lambda: entry.ingress.leave(accept_rest=False, shut=True))


def test_a_pause_counts_for_as_long_as_somebody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not only when it begins: an alert about the last minutes would end while clients wait."""
    with Backend() as backend, Plane(backend.endpoint) as plane, watcher(plane) as entry:
        counted = plane.counters.accept_paused
        plane.ask(lambda: entry.ingress.apply(Settings(max_sessions=1)))
        plane.ask(entry.ingress.start)
        with entry.connect(), backend.accept(), entry.connect():
            wait_until(lambda: counted, what="the pause")
            begun = counted["limit"]
            plane.ask(lambda: entry.ingress.tick(0.1))
            assert counted["limit"] == begun
            monkeypatch.setattr(ingress, "COUNT_AGAIN_NS", 0)
            plane.ask(lambda: entry.ingress.tick(0.1))
            assert counted["limit"] > begun
            plane.ask(lambda: entry.ingress.apply(Settings()))
            with backend.accept():
                over = counted["limit"]
                plane.ask(lambda: entry.ingress.tick(0.1))
                assert counted["limit"] == over
        plane.ask(lambda: entry.ingress.leave(accept_rest=False, shut=True))


def test_who_cannot_be_handed_over_for_an_error_is_turned_away() -> None:
    """A client whose worker fails over it is not left open without an owner."""
    with Backend() as backend, Plane(backend.endpoint) as plane, watcher(plane) as entry:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        plane.ask(lambda: entry.ingress.apply(plane.settings))
        plane.ask(entry.ingress.start)
        with theirs, entry.connect(), backend.accept():
            plane.ask(lambda: entry.ingress.add_peer(1, ours))
            other = plane.ask(lambda: entry.scoreboard.open_row(1, 1))
            plane.ask(lambda: entry.scoreboard.set_accepting(other, True))
            plane.ask(lambda: entry.scoreboard.beat(other, time.monotonic_ns() + 10**12))
            ours.close()
            # A reset, which may arrive before connect returns.
            with pytest.raises(ConnectionResetError), entry.connect() as client:
                client.recv(1)
            wait_until(lambda: plane.log.messages == ["accepting failed"])
        plane.ask(lambda: entry.ingress.leave(accept_rest=False, shut=True))


def test_who_may_not_come_tells_nothing_of_how_long_sessions_last() -> None:
    """Many clients that --allow refuses do not end the even spread of those that may come."""
    settings = Settings(allow=("10.0.0.0/8",))
    with Plane() as plane, watcher(plane) as entry:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        plane.ask(lambda: entry.ingress.add_peer(1, ours))
        plane.apply(settings=settings)
        plane.ask(lambda: entry.ingress.apply(settings))
        plane.ask(entry.ingress.start)
        for _ in range(50):
            with socket.socket() as client:
                client.connect_ex((entry.address.host, entry.address.port))
        wait_until(lambda: plane.counters.ended == {"denied": 50})
        plane.ask(lambda: entry.ingress.tick(0.1))
        assert entry.ingress._handoff.pays
        plane.ask(lambda: entry.ingress.leave(accept_rest=False, shut=True))
        ours.close()
        theirs.close()
