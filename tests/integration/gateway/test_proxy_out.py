"""PROXY protocol headers that go out: before the first byte, once, to whoever wins the dial."""

from __future__ import annotations

import os
import socket

import pytest

from gateway import tcp_calls
from gateway.core.counters import End
from gateway.core.messages import Settings
from gateway.core.proxy_protocol import (
    Header,
    Route,
    Version,
    read_header,
    write_header,
    write_own,
)
from gateway.poller import OUT
from gateway.sessions import dialer
from tests.clients import connect, reset
from tests.plane import Backend, BlackHole, Plane, closed_endpoint, read_all
from tests.support import wait_until

VERSIONS = ["v1", "v2"]
versions = pytest.mark.parametrize("version", VERSIONS)


def receive(server: socket.socket) -> tuple[Header, bytes]:
    """The header that a connection begins with, and what came with it in one read."""
    data = server.recv(1 << 16)
    header = read_header(data)
    assert isinstance(header, Header)
    return header, data[header.size :]


def route_of(client: socket.socket) -> Route:
    return Route(client.getsockname()[:2], client.getpeername()[:2])


@versions
@pytest.mark.parametrize("listen", ["127.0.0.1", "::1", ""])
def test_header_and_first_bytes_at_once(version: str, listen: str) -> None:
    """The header has the client's address and ours, and shares its segment with the first bytes."""
    settings = Settings(proxy_out=version, access_log=True)
    with Backend() as backend, Plane(backend.endpoint, settings=settings, listen=listen) as plane:
        address = (listen or "127.0.0.1", plane.address.port)
        with connect(address) as client:
            client.sendall(b"first")
            with backend.accept() as server:
                header, rest = receive(server)
                if not rest:  # the client's bytes came after its connection was accepted
                    rest = server.recv(100)
                assert (header.route, rest) == (route_of(client), b"first")
                client.sendall(b"second")
                assert server.recv(100) == b"second"
                client.shutdown(socket.SHUT_WR)
                assert server.recv(1) == b""
        wait_until(lambda: plane.log.said("session"))
        assert plane.log.said("session")[0]["bytes_in"] == 11


@versions
def test_a_server_that_speaks_first(version: str) -> None:
    """The header does not wait for a client that says nothing."""
    with (
        Backend() as backend,
        Plane(backend.endpoint, settings=Settings(proxy_out=version)) as plane,
    ):
        with plane.connect() as client, backend.accept() as server:
            header, rest = receive(server)
            assert (header.route, rest) == (route_of(client), b"")
            server.sendall(b"220 welcome")
            assert client.recv(100) == b"220 welcome"


@versions
@pytest.mark.parametrize("size", [0, 1, 300_000])
def test_data_and_end_at_once(version: str, size: int) -> None:
    """A client that sends all it has and ends its stream at once loses nothing."""
    data = bytes(size)
    with (
        Backend() as backend,
        Plane(backend.endpoint, settings=Settings(proxy_out=version)) as plane,
    ):
        with plane.connect() as client:
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            with backend.accept() as server:
                whole = read_all(server)
                header = read_header(whole)
                assert isinstance(header, Header)
                assert whole[header.size :] == data
        assert plane.count().endpoints[backend.endpoint.name].bytes_in == size


@pytest.mark.parametrize("first", [b"", b"first"])
def test_only_the_winner_gets_a_header(first: bytes) -> None:
    """Of two attempts under way the one that connects is told the client, and told once."""
    settings = Settings(proxy_out="v2", dial_hedge_s=0.02)
    with (
        BlackHole() as hole,
        Backend() as backend,
        Plane(hole.endpoint, closed_endpoint(), backend.endpoint, settings=settings) as plane,
        plane.connect() as client,
    ):
        client.sendall(first)
        with backend.accept() as server:
            header, rest = receive(server)
            assert header.route == route_of(client)
            assert rest + (server.recv(100) if len(rest) < len(first) else b"") == first
            client.sendall(b"more")
            assert server.recv(100) == b"more"


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_bytes_that_came_while_it_was_dialed(when: str) -> None:
    """A connection that takes a while gets the header with all that the client said meanwhile."""
    settings = Settings(proxy_out="v2", dial_hedge_s=0.0, dial_timeout_s=10.0)
    with BlackHole() as hole, Plane(hole.endpoint, settings=settings) as plane:
        client = plane.connect()
        if when == "before":
            client.sendall(b"early ")
        wait_until(lambda: plane.sessions.dialer.unfinished)
        (session,) = plane.sessions._all
        client.sendall(b"bytes")
        wait_until(lambda: session.pending)
        hole.open()
        hole.sock.settimeout(60)
        expected = b"early bytes" if when == "before" else b"bytes"
        with client:
            while True:
                server, peer = hole.sock.accept()
                server.settimeout(60)
                with server:
                    if peer in [filler.getsockname() for filler in hole.fillers]:
                        continue
                    header, rest = receive(server)
                    while len(rest) < len(expected):
                        rest += server.recv(100)
                    assert (header.route, rest) == (route_of(client), expected)
                    break


def test_a_client_that_resets_as_its_dial_wins() -> None:
    """The endpoint was dialed in vain, which counts as any other dial that a client left."""
    settings = Settings(proxy_in=("127.0.0.0/8",), proxy_out="v2")
    with BlackHole() as hole, Plane(hole.endpoint) as plane:
        plane.apply(hole.endpoint, settings=settings)
        client = plane.connect()
        client.sendall(b"PROXY TCP4 10.0.0.1 10.0.0.2 1000 2000\r\n")
        wait_until(lambda: any(each.dial for each in plane.sessions.all()))

        def win() -> None:
            reset(client)
            for session in tuple(plane.sessions.all()):
                assert session.dial is not None
                session.dial.won(session.dial.attempts[0], OUT)

        plane.ask(win)
        assert plane.counters.ended == {"reset": 1}
        assert plane.counters.endpoints[hole.endpoint.name].dials == {"abandoned": 1}


def test_an_endpoint_that_resets_at_once() -> None:
    """The session ends with the endpoint's reset, and the client sees it."""
    with Backend() as backend, Plane(backend.endpoint, settings=Settings(proxy_out="v1")) as plane:
        with plane.connect() as client:
            reset(backend.accept())
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        wait_until(lambda: plane.counters.ended == {"reset": 1})


def test_nobody_to_dial() -> None:
    """A dial in vain ends as it does without headers."""
    with Plane(closed_endpoint(), settings=Settings(proxy_out="v1")) as plane:
        with pytest.raises(ConnectionResetError), plane.connect() as client:
            client.recv(1)
        wait_until(lambda: plane.counters.ended == {"dial-failed": 1})


@pytest.mark.parametrize(
    ("came", "out", "route", "tlvs"),
    [
        ("v1", "v2", True, ()),
        ("v2", "v2", True, ((2, b"example.com"), (5, b"id"))),
        ("v2", "v1", True, ()),
        ("own", "v2", False, ()),
        ("own", "v1", False, ()),
    ],
)
def test_the_original_address_goes_through(
    came: str, out: str, route: bool, tlvs: tuple[object, ...]
) -> None:
    """With headers in and out, the endpoint learns the client, authority and id of the first."""
    original = Route(("192.0.2.7", 5555), ("192.0.2.8", 2379))
    first = write_own(Version.V2, original)
    if came != "own":
        passed_on = [(2, b"example.com"), (4, b"padding"), (5, b"id")]
        first = write_header(Version(came), original, passed_on)
    settings = Settings(proxy_in=("127.0.0.1",), proxy_out=out)
    with Backend() as backend, Plane(backend.endpoint, settings=settings) as plane:
        with plane.connect() as client:
            client.sendall(first + b"data")
            with backend.accept() as server:
                header, rest = receive(server)
                assert header.route == (original if route else route_of(client))
                assert (header.tlvs, rest) == (tlvs, b"data")


@versions
def test_no_memory_for_the_header(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that does not take the header whole ends the session: none begins without it."""

    def write_a_part(address: str, port: int, data: bytes, _: bool) -> tuple[int, int]:
        fd = tcp_calls.connect(address, port)[0]
        return fd, os.write(fd, data[:3])

    monkeypatch.setattr(dialer, "connect_from", lambda _: write_a_part)
    with (
        Backend() as backend,
        Plane(backend.endpoint, settings=Settings(proxy_out=version)) as plane,
    ):
        with pytest.raises(ConnectionResetError), plane.connect() as client:
            client.recv(1)
        with pytest.raises(ConnectionResetError), backend.accept() as server:
            read_all(server)
        wait_until(lambda: plane.counters.ended == {End.ERROR: 1})


def test_a_reload_turns_it_on_and_off() -> None:
    """New clients are told of, or not, from the reload on."""
    with Backend() as backend, Plane(backend.endpoint) as plane:
        for version, begins in (("off", b"data"), ("v1", b"PROXY"), ("off", b"data")):
            plane.apply(backend.endpoint, settings=Settings(proxy_out=version))
            with plane.connect() as client:
                client.sendall(b"data")
                with backend.accept() as server:
                    assert server.recv(100).startswith(begins)


@pytest.mark.parametrize("listening", [True, False])
def test_source_address(listening: bool) -> None:
    """Endpoints are dialed from the address that the operator chose, first and second ones."""
    settings = Settings(source_addr=("127.0.0.9", "::1"), dial_hedge_s=0.02)
    with (
        Backend() as backend,
        Backend("::1") as sixth,
        BlackHole() as hole,
        Plane(backend.endpoint, settings=settings) as plane,
    ):
        first = [] if listening else [hole.endpoint, closed_endpoint()]
        for target, source in ((backend, "127.0.0.9"), (sixth, "::1")):
            plane.table._turn = 0
            plane.apply(*first, target.endpoint)
            with plane.connect() as client, target.accept() as server:
                assert server.getpeername()[0] == source
                client.sendall(b"data")
                assert server.recv(10) == b"data"


def test_an_address_that_left_this_host() -> None:
    """It is this host's fault and no endpoint's; a reload that names another one heals it."""
    settings = Settings(source_addr=("192.0.2.99",), dial_timeout_s=0.2)
    with Backend() as backend, Plane(backend.endpoint, settings=settings) as plane:
        with pytest.raises(ConnectionResetError), plane.connect() as client:
            client.recv(1)
        assert {result.value for _, _, result, _ in plane.dial_failures} == {"local"}
        plane.apply(backend.endpoint, settings=Settings(source_addr=("127.0.0.9",)))
        with plane.connect(), backend.accept() as server:
            assert server.getpeername()[0] == "127.0.0.9"
