"""The access log: one line per session, with enough in it to find the session elsewhere."""

from __future__ import annotations

import socket
import threading
from typing import Any

import pytest

from gateway.core.messages import Settings
from gateway.core.socket_address import join_host_port
from gateway.poller import Watcher
from gateway.sessions.leg import Leg
from tests.clients import connect, reset
from tests.plane import Backend, BlackHole, Plane, closed_endpoint, endpoint_of
from tests.support import wait_until

LOGGED = Settings(access_log=True)


def name_of(sock: socket.socket) -> str:
    """What the socket's own side is called in logs."""
    return join_host_port(*sock.getsockname()[:2])


def peer_of(sock: socket.socket) -> str:
    """What an endpoint logs as its client."""
    return join_host_port(*sock.getpeername()[:2])


def read_line(plane: Plane) -> dict[str, Any]:
    """The fields of the first session that ended."""
    wait_until(lambda: plane.log.said("session"))
    return plane.log.said("session")[0]


def watcher_of_endpoint(plane: Plane) -> Watcher:
    """Who is told of the events of the only session's endpoint."""
    (session,) = plane.sessions._all
    assert session.upstream is not None
    return plane.poller._watchers[session.upstream.fd]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_session_says_what_the_endpoint_calls_it(host: str) -> None:
    """``local`` is the client's name in the endpoint's log, ``address`` is what was dialed."""
    with Backend(host) as backend, Plane(backend.endpoint, settings=LOGGED, listen=host) as plane:
        with plane.connect() as client, backend.accept() as server:
            client_name, local = name_of(client), peer_of(server)
            client.sendall(b"12345")
            server.recv(5)
            server.sendall(b"123")
            assert client.recv(3) == b"123"
            client.close()
            assert server.recv(1) == b""
        line = read_line(plane)
        assert 0 <= line.pop("dial_s") <= line.pop("first_byte_s") <= line.pop("duration_s")
        assert line == {
            "client": client_name, "endpoint": backend.endpoint.name,
            "address": host, "local": local, "attempts": 1,
            "bytes_in": 5, "bytes_out": 3, "end": "client",
        }  # fmt: skip


def test_an_ipv4_client_of_a_dual_stack_listener_is_logged_as_ipv4() -> None:
    """The kernel writes it as a mapped address; people grep for the plain one."""
    with Backend() as backend, Plane(backend.endpoint, settings=LOGGED, listen="") as plane:
        address = ("127.0.0.1", plane.address.port)
        with connect(address) as client, backend.accept():
            name = name_of(client)
        assert read_line(plane)["client"] == name


def test_attempts_that_failed_are_counted_and_waited_for() -> None:
    """``attempts`` counts the endpoints that refused, ``address`` is the one that did not."""
    with Backend("127.0.0.2") as backend:
        refusing = closed_endpoint()
        with Plane(refusing, backend.endpoint, settings=LOGGED) as plane:
            with plane.connect() as client, backend.accept():
                client.sendall(b"x")
            line = read_line(plane)
        assert (line["address"], line["attempts"]) == ("127.0.0.2", 2)
        assert line["dial_s"] >= 0


def test_a_hedged_dial_counts_both_attempts() -> None:
    """The endpoint that did not answer is an attempt too, and the wait for it is in ``dial_s``."""
    settings = Settings(access_log=True, dial_hedge_s=0.05)
    with Backend() as backend, BlackHole() as hole:
        with Plane(hole.endpoint, backend.endpoint, settings=settings) as plane:
            with plane.connect(), backend.accept():
                pass
            line = read_line(plane)
        assert line["attempts"] == 2
        assert line["dial_s"] >= 0.05


def test_every_address_that_could_not_be_dialed_is_an_attempt() -> None:
    """Connects that fail at once count as those that fail later."""
    port = closed_endpoint().port
    endpoint = endpoint_of(port, "127.0.0.1", "127.0.0.2", "127.0.0.3", host="all.test")
    with Plane(endpoint, settings=LOGGED) as plane:
        with pytest.raises(ConnectionResetError), plane.connect() as client:
            client.recv(1)
        line = read_line(plane)
    assert (line["end"], line["attempts"]) == ("dial-failed", 3)
    assert (line["endpoint"], line["address"], line["local"]) == ("", "", "")
    assert line["dial_s"] >= 0
    assert line["first_byte_s"] is None


def test_without_endpoints_there_is_no_attempt() -> None:
    """Nothing was dialed, and the line has the same fields."""
    with Plane(settings=LOGGED) as plane:
        with pytest.raises(ConnectionResetError), plane.connect() as client:
            client.recv(1)
        line = read_line(plane)
    assert (line["end"], line["attempts"]) == ("no-endpoint", 0)


def test_a_client_that_leaves_during_the_dial_has_its_attempts() -> None:
    """The dial is over because nobody waits for it any more."""
    with BlackHole() as hole, Plane(hole.endpoint, settings=LOGGED) as plane:
        with plane.connect() as client:
            wait_until(lambda: plane.sessions.dialer.unfinished)
            reset(client)
        line = read_line(plane)
    assert (line["end"], line["attempts"], line["local"]) == ("reset", 1, "")
    assert line["dial_s"] >= 0


def test_the_first_byte_is_the_endpoints() -> None:
    """What the client says is not waited for; an endpoint that says nothing has no first byte."""
    with Backend() as backend, Plane(backend.endpoint, settings=LOGGED) as plane:
        with plane.connect() as client, backend.accept() as server:
            client.sendall(b"asked")
            assert server.recv(5) == b"asked"
        assert read_line(plane)["first_byte_s"] is None


def test_the_first_byte_may_come_before_the_client_speaks() -> None:
    """An endpoint that speaks first is measured like the others."""
    with Backend() as backend, Plane(backend.endpoint, settings=LOGGED) as plane:
        with plane.connect() as client, backend.accept() as server:
            server.sendall(b"hello")
            assert client.recv(5) == b"hello"
        line = read_line(plane)
    assert line["dial_s"] <= line["first_byte_s"] <= line["duration_s"]


@pytest.mark.parametrize("at_end", ["end", "reset"])
def test_the_first_byte_may_come_with_the_end(at_end: str) -> None:
    """Bytes that arrive together with the end of the stream, or with a reset, are counted."""
    with Backend() as backend, Plane(backend.endpoint, settings=LOGGED) as plane:
        with plane.connect() as client, backend.accept() as server:
            client.sendall(b"x")
            assert server.recv(1) == b"x"
            let_go = threading.Event()
            plane.loop.call_soon_threadsafe(let_go.wait, 10)  # the worker sees all of it at once
            server.sendall(b"bye")
            if at_end == "end":
                server.close()
            else:
                reset(server)
            let_go.set()
            line_end = "endpoint" if at_end == "end" else "reset"
            assert client.recv(3) == b"bye"
            client.close()
        line = read_line(plane)
    assert line["end"] == line_end
    assert line["dial_s"] <= line["first_byte_s"] <= line["duration_s"]


def test_bytes_that_the_client_does_not_take_have_come_all_the_same() -> None:
    """The first byte is the endpoint's, whether the client reads or not."""
    with Backend() as backend, Plane(backend.endpoint, settings=LOGGED) as plane:
        with plane.connect() as client, backend.accept() as server:
            server.setblocking(False)
            moved = 0
            while True:
                try:
                    moved += server.send(bytes(1 << 20))
                except BlockingIOError:
                    if plane.ask(lambda: next(iter(plane.sessions._all)).upstream.blocked):  # type: ignore[union-attr]
                        break
            reset(client)
        line = read_line(plane)
    assert line["dial_s"] <= line["first_byte_s"] <= line["duration_s"]


def test_after_the_first_byte_the_log_costs_a_session_nothing() -> None:
    """The watcher of the first byte takes itself away; without the log there never is one."""
    with Backend() as backend, Plane(backend.endpoint, settings=LOGGED) as plane:
        with plane.connect() as client, backend.accept() as server:
            client.sendall(b"x")
            assert server.recv(1) == b"x"
            assert not isinstance(plane.ask(lambda: watcher_of_endpoint(plane)), Leg)
            server.sendall(b"y")
            assert client.recv(1) == b"y"
            wait_until(lambda: isinstance(plane.ask(lambda: watcher_of_endpoint(plane)), Leg))
    with Backend() as backend, Plane(backend.endpoint) as plane:
        with plane.connect() as client, backend.accept() as server:
            client.sendall(b"x")
            assert server.recv(1) == b"x"
            assert isinstance(plane.ask(lambda: watcher_of_endpoint(plane)), Leg)


def test_a_session_from_before_the_access_log_says_what_is_known() -> None:
    """Turned on by a reload, the log has a line for sessions that came before, too."""
    with Backend() as backend, Plane(backend.endpoint) as plane:
        with plane.connect() as client, backend.accept() as server:
            client.sendall(b"x")
            assert server.recv(1) == b"x"
            server.sendall(b"y")
            assert client.recv(1) == b"y"
            plane.apply(backend.endpoint, settings=LOGGED)
        line = read_line(plane)
    assert (line["endpoint"], line["bytes_out"]) == (backend.endpoint.name, 1)
    assert (line["client"], line["local"], line["dial_s"]) == ("", "", None)
    assert line["first_byte_s"] is None
