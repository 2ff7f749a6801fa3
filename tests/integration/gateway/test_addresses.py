"""Which addresses a dial tries, in which order, and what it drops when a snapshot comes."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import socket
import time
from collections.abc import Iterator

import pytest

from gateway.core.counters import DialResult
from gateway.core.endpoint import Endpoint, EndpointState
from gateway.core.messages import Settings, Snapshot
from tests.plane import Backend, BlackHole, Plane, endpoint_of
from tests.support import wait_until

UNHEDGED = Settings(dial_timeout_s=20.0, dial_hedge_s=0.0)


@contextlib.contextmanager
def name_with_a_hole() -> Iterator[tuple[Endpoint, socket.socket, BlackHole]]:
    """An endpoint with two addresses: a black hole, then a listener."""
    with BlackHole() as hole, socket.socket() as listener:
        port = hole.endpoint.port
        listener.bind(("127.0.0.9", port))
        listener.listen(64)
        listener.settimeout(60)
        yield endpoint_of(port, "127.0.0.1", "127.0.0.9", host="two"), listener, hole


def greet(plane: Plane, listener: socket.socket) -> None:
    """One session: served by the listener."""
    with plane.connect() as client:
        server, _ = listener.accept()
        with server:
            server.sendall(b"hi")
            assert client.recv(10) == b"hi"


def test_a_dead_address_costs_one_client_a_hedge() -> None:
    """The first client waits for the hedge; later ones do not even dial the dead address."""
    with name_with_a_hole() as (endpoint, listener, _), Plane(endpoint) as plane:
        for _ in range(5):
            greet(plane, listener)
        assert plane.counters.endpoints["two:" + str(endpoint.port)].dials == {
            "abandoned": 1,
            "connected": 5,
        }
        assert [failure[1:3] for failure in plane.dial_failures] == [
            ("127.0.0.1", DialResult.ABANDONED)
        ]
        assert plane.table.suspects == set()


def test_a_dead_address_is_tried_again_at_no_clients_cost() -> None:
    """When its time has come, it is dialed beside the good one; once it answers it is used."""
    settings = Settings(dial_hedge_s=0.0)
    with name_with_a_hole() as (endpoint, listener, hole), Plane(endpoint) as plane:
        greet(plane, listener)
        plane.apply(endpoint, settings=settings)  # no hedge: whoever waits for the hole waits long

        def due() -> None:
            for failed in plane.sessions.dialer.addresses.failures.values():
                for each in failed.values():
                    each.retry_at = 0.0

        plane.ask(due)
        greet(plane, listener)
        assert plane.count().endpoints[endpoint.name].dials == {"abandoned": 2, "connected": 2}
        greet(plane, listener)
        assert plane.count().endpoints[endpoint.name].dials == {"abandoned": 2, "connected": 3}
        hole.sock.settimeout(60)
        hole.open()
        for filler in hole.fillers:
            filler.close()
        plane.ask(due)
        with plane.connect() as client:
            client.sendall(b"?")
            servers = []
            for sock in (hole.sock, listener):
                sock.setblocking(False)

            def accepted() -> bool:
                for sock in (hole.sock, listener):
                    with contextlib.suppress(BlockingIOError):
                        servers.append(sock.accept()[0])
                return plane.count().endpoints[endpoint.name].sessions == 1

            wait_until(accepted)
            assert not plane.ask(lambda: bool(plane.sessions.dialer.addresses.failures))
            for server in servers:
                server.close()


@pytest.mark.parametrize("how", ["gone", "in its grace", "another address"])
def test_a_dial_to_what_left_goes_to_the_next_endpoint(how: str) -> None:
    """The snapshot drops the attempt at once; the client is served by another endpoint."""
    with BlackHole() as hole, Backend() as other:
        with Plane(hole.endpoint, settings=UNHEDGED) as plane, plane.connect() as client:
            wait_until(lambda: len(plane.sessions.dialer.unfinished) == 1)
            name, port = hole.endpoint.name, hole.endpoint.port
            match how:
                case "gone":
                    plane.apply(other.endpoint)
                case "in its grace":
                    left = Endpoint(name, ("127.0.0.1",), port, state=EndpointState.REMOVED)
                    plane.apply(left, other.endpoint)
                case _:
                    with socket.create_server(("127.0.0.9", port)) as moved:
                        moved.settimeout(60)
                        plane.apply(Endpoint(name, ("127.0.0.9",), port))
                        with moved.accept()[0] as server:
                            server.sendall(b"moved")
                            assert client.recv(10) == b"moved"
                    return
            with other.accept() as server:
                server.sendall(b"here")
                assert client.recv(10) == b"here"
            assert plane.counters.endpoints[name].dials == {"abandoned": 1}
            assert plane.dial_failures == []


def test_a_dial_to_the_only_endpoint_ends_when_it_leaves() -> None:
    """There is nothing else to dial: the client gets its reset now, not after the timeout."""
    with BlackHole() as hole, Plane(hole.endpoint, settings=UNHEDGED) as plane:
        with plane.connect() as client:
            wait_until(lambda: len(plane.sessions.dialer.unfinished) == 1)
            plane.apply()
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        wait_until(lambda: plane.counters.refused == {"dial-failed": 1})


def test_an_address_joins_while_the_only_one_is_dialed() -> None:
    """There was nothing to dial beside it when the hedge was due; now there is."""
    hedged = Settings(dial_timeout_s=20.0, dial_hedge_s=0.1)
    with BlackHole() as hole, socket.create_server(("127.0.0.9", hole.endpoint.port)) as listener:
        listener.settimeout(60)
        name, port = hole.endpoint.name, hole.endpoint.port
        with Plane(hole.endpoint, settings=hedged) as plane, plane.connect() as client:
            wait_until(lambda: len(plane.sessions.dialer.unfinished) == 1)
            time.sleep(3 * hedged.dial_hedge_s)
            plane.apply(Endpoint(name, ("127.0.0.1", "127.0.0.9"), port), settings=hedged)
            with listener.accept()[0] as server:
                server.sendall(b"joined")
                assert client.recv(10) == b"joined"


@pytest.mark.parametrize("hole_leaves", [False, True])
def test_an_address_joins_an_endpoint_that_refused(*, hole_leaves: bool) -> None:
    """The client waits for another endpoint by then, and need not wait for its timeout."""
    settings = UNHEDGED if hole_leaves else Settings(dial_timeout_s=20.0, dial_hedge_s=0.1)
    with BlackHole() as hole, socket.create_server(("127.0.0.9", hole.endpoint.port)) as listener:
        listener.settimeout(60)
        port = hole.endpoint.port
        refusing = endpoint_of(port, "127.0.0.8", host="m")
        joined = endpoint_of(port, "127.0.0.8", "127.0.0.9", host="m")
        with Plane(refusing, hole.endpoint, settings=settings) as plane, plane.connect() as client:
            wait_until(lambda: refusing.name in plane.counters.endpoints)
            wait_until(lambda: len(plane.sessions.dialer.unfinished) == 1)
            plane.apply(joined, *([] if hole_leaves else [hole.endpoint]), settings=settings)
            with listener.accept()[0] as server:
                server.sendall(b"joined")
                assert client.recv(10) == b"joined"


def test_an_address_joins_an_endpoint_beside_which_another_one_is_dialed() -> None:
    """The newest attempt is to another endpoint, which has nothing left to try."""
    hedged = Settings(dial_timeout_s=20.0, dial_hedge_s=0.05)
    with (
        BlackHole() as hole,
        BlackHole("127.0.0.10") as other,
        socket.create_server(("127.0.0.9", hole.endpoint.port)) as listener,
    ):
        listener.settimeout(60)
        name, port = hole.endpoint.name, hole.endpoint.port
        with Plane(hole.endpoint, other.endpoint, settings=hedged) as plane:
            dials = plane.sessions.dialer.unfinished
            with plane.connect() as client:
                wait_until(lambda: [len(dial.attempts) for dial in tuple(dials)] == [2])
                both = Endpoint(name, ("127.0.0.1", "127.0.0.9"), port)
                plane.apply(both, other.endpoint, settings=hedged)
                with listener.accept()[0] as server:
                    server.sendall(b"joined")
                    assert client.recv(10) == b"joined"


def test_an_address_joins_while_there_are_no_descriptors() -> None:
    """The client waits for one until the timeout, whatever becomes of the endpoints meanwhile."""
    settings = Settings(dial_timeout_s=20.0, dial_hedge_s=0.0)
    with Backend() as backend, Plane(backend.endpoint, settings=settings) as plane:
        dialer, old = plane.sessions.dialer, backend.endpoint
        connect = dialer.connect
        further = Endpoint(old.name, ("127.0.0.1", "127.0.0.9"), old.port)

        def none_left(*_: object) -> tuple[int, int | None]:
            raise OSError(errno.EMFILE, "no descriptor")

        dialer.connect = none_left
        with plane.connect() as client:
            wait_until(lambda: len(dialer.unfinished) == 1)

            def join() -> None:
                plane.sessions.apply(Snapshot(2, (further,), settings))
                dialer.connect = connect

            plane.table.endpoints = (further,)
            plane.ask(join)
            with backend.accept() as server:
                server.sendall(b"here")
                assert client.recv(10) == b"here"


def test_an_address_leaves_while_another_one_is_dialed() -> None:
    """The dial beside it goes on through every further snapshot; then comes what is new."""
    first, second, new = "127.0.0.1", "127.0.0.9", "127.0.0.10"
    with BlackHole(first) as hole:
        port = hole.endpoint.port
        both = endpoint_of(port, first, second, host="two")
        hedged = Settings(dial_timeout_s=20.0, dial_hedge_s=0.01)
        with (
            BlackHole(second, port),
            socket.create_server((new, port)) as listener,
            Plane(both, settings=hedged) as plane,
            plane.connect() as client,
        ):
            listener.settimeout(60)
            dials = plane.sessions.dialer.unfinished
            wait_until(lambda: [len(dial.attempts) for dial in tuple(dials)] == [2])
            moved = endpoint_of(port, second, new, host="two")
            for settings in (UNHEDGED, UNHEDGED, Settings(dial_timeout_s=0.01, dial_hedge_s=0.0)):
                plane.apply(moved, settings=settings)
            with listener.accept()[0] as server:
                server.sendall(b"here")
                assert client.recv(10) == b"here"
            assert plane.log.said("session failed") == []
            assert plane.counters.endpoints[moved.name].dials == {
                "abandoned": 1,
                "timeout": 1,
                "connected": 1,
            }


def test_sessions_are_counted_by_address_where_there_are_several() -> None:
    """Of one address the endpoint's own count says everything."""
    with Backend() as backend, socket.socket() as listener:
        listener.bind(("127.0.0.9", backend.endpoint.port))
        listener.listen(64)
        two = endpoint_of(backend.endpoint.port, "127.0.0.9", "127.0.0.1", host="two")
        for endpoint, counted in ((backend.endpoint, {}), (two, {"127.0.0.9": 1})):
            with Plane(endpoint) as plane, plane.connect() as client:
                client.sendall(b"hi")
                wait_until(lambda plane=plane: plane.counters.endpoints)  # type: ignore[misc]
                [counters] = plane.count().endpoints.values()
                assert counters.addresses == counted


def test_sessions_of_an_endpoint_that_got_a_second_address_count_at_the_first() -> None:
    """And one that was being dialed then; so what is asked of that address meets them as well."""
    settings = Settings(on_inactive="close", dial_timeout_s=20.0, dial_hedge_s=0.0)
    with BlackHole("127.0.0.9") as hole, socket.socket() as listener:
        port = hole.endpoint.port
        listener.bind(("127.0.0.1", port))
        listener.listen(64)
        name = f"two:{port}"
        with Plane(endpoint_of(port, "127.0.0.1", host="two"), settings=settings) as plane:
            with plane.connect(), plane.connect() as late:
                wait_until(lambda: plane.counters.sessions == 2)
                assert plane.count().endpoints[name].addresses == {}
                plane.apply(endpoint_of(port, "127.0.0.9", host="two"))
                with plane.connect():
                    wait_until(lambda: plane.sessions.dialer.unfinished)
                    both = endpoint_of(port, "127.0.0.9", "127.0.0.1", host="two")
                    plane.apply(both)
                    assert plane.count().endpoints[name].addresses == {"127.0.0.1": 2}
                    hole.open()
                    wait_until(lambda: plane.counters.endpoints[name].sessions == 3)
                    assert plane.count().endpoints[name].addresses == {
                        "127.0.0.1": 2,
                        "127.0.0.9": 1,
                    }
                    plane.apply(dataclasses.replace(both, inactive=("127.0.0.1",)))
                    with pytest.raises(ConnectionResetError):
                        late.recv(1)
                    wait_until(lambda: plane.counters.ended == {"inactive": 2})
                    assert plane.count().endpoints[name].addresses == {"127.0.0.9": 1}
