"""PROXY protocol headers that come in, on real sockets: however they arrive, and if they do not."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.core.counters import End
from gateway.core.endpoint import Endpoint
from gateway.core.messages import Settings
from gateway.core.proxy_protocol import SIGNATURE, Route, Version, write_header, write_own
from gateway.core.socket_address import address_text
from gateway.sessions import proxy_in
from gateway.unix import UNIX_PEER
from tests.clients import reset
from tests.plane import Backend, Plane, descriptors
from tests.support import wait_until
from tests.wires import inside, loopback

LOOPBACK = Settings(proxy_in=("127.0.0.0/8",), access_log=True)
ROUTE = Route(("192.0.2.7", 5555), ("192.0.2.8", 2379))
HEADERS = {
    "v1": write_header(Version.V1, ROUTE),
    "v2": write_header(Version.V2, ROUTE, [(2, b"etcd.example.com"), (5, b"id")]),
    "v2, IPv6": write_header(Version.V2, Route(("2001:db8::7", 5555), ("2001:db8::8", 2379))),
}
CLIENTS = {"v1": "192.0.2.7:5555", "v2": "192.0.2.7:5555", "v2, IPv6": "[2001:db8::7]:5555"}

every_header = pytest.mark.parametrize("name", HEADERS)


@contextmanager
def proxied(settings: Settings = LOOPBACK) -> Iterator[tuple[Plane, Backend]]:
    """A worker that expects headers from loopback; it has given back all descriptors at its end."""
    with Backend() as backend, Plane(backend.endpoint, settings=settings) as plane:
        before = descriptors()
        yield plane, backend
        wait_until(lambda: plane.counters.sessions == 0, what="all sessions ended")
        plane.ask(plane.sessions.relay.pipes.close_spare)
        wait_until(lambda: descriptors() <= before, what="all descriptors given back")


def session_line(plane: Plane) -> dict[str, object]:
    wait_until(lambda: plane.log.said("session"), what="the line of the session")
    return plane.log.said("session")[-1]


def await_bytes(plane: Plane, count: int) -> None:
    """Until the worker has read so many bytes of the only header that it waits for."""
    awaited = plane.sessions.headers_in._awaited
    wait_until(lambda: [len(each.data) for each in tuple(awaited)] == [count])


def read_to_end(sock: socket.socket) -> bytes:
    data = b""
    while part := sock.recv(1 << 17):
        data += part
    return data


@every_header
@pytest.mark.parametrize("size", [0, 1, 200_000])
def test_header_data_and_end_at_once(name: str, size: int) -> None:
    """The endpoint gets what followed the header, to the byte, and the end of the stream."""
    data = random.Random(size).randbytes(size)
    with proxied() as (plane, backend):
        with plane.connect() as client:
            peer = address_text(client.getsockname())
            client.sendall(HEADERS[name] + data)
            client.shutdown(socket.SHUT_WR)
            with backend.accept() as server:
                assert read_to_end(server) == data
                server.sendall(b"answer")
                server.shutdown(socket.SHUT_WR)
                assert read_to_end(client) == b"answer"
        line = session_line(plane)
        assert (line["client"], line["via"]) == (CLIENTS[name], peer)
        assert (line["bytes_in"], line["bytes_out"], line["end"]) == (size, 6, End.CLIENT)


@every_header
def test_cut_at_every_byte(name: str) -> None:
    """Wherever a header is cut, nothing is dialed before its last byte and nothing is lost."""
    header = HEADERS[name]
    with proxied() as (plane, backend):
        for cut in range(1, len(header)):
            with plane.connect() as client:
                client.sendall(header[:cut])
                await_bytes(plane, cut)
                assert plane.counters.endpoints.keys() <= {backend.endpoint.name}
                client.sendall(header[cut:] + b"data")
                with backend.accept() as server:
                    assert server.recv(100) == b"data"


@every_header
def test_byte_by_byte(name: str) -> None:
    """A header of which each byte comes alone is one header."""
    with proxied() as (plane, backend), plane.connect() as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for count, byte in enumerate(HEADERS[name][:-1], 1):
            client.sendall(bytes((byte,)))
            await_bytes(plane, count)
        client.sendall(HEADERS[name][-1:])
        with backend.accept() as server:
            server.sendall(b"the server speaks first")
            assert client.recv(100) == b"the server speaks first"


@pytest.mark.parametrize("header", [write_own(Version.V2, ROUTE), b"PROXY UNKNOWN\r\n"])
def test_the_proxys_own_connections(header: bytes) -> None:
    """A health check of the proxy is served, and its client is the proxy itself."""
    with proxied() as (plane, backend):
        with plane.connect() as client:
            peer = address_text(client.getsockname())
            client.sendall(header + b"check")
            with backend.accept() as server:
                assert server.recv(100) == b"check"
        line = session_line(plane)
        assert line["client"] == peer
        assert "via" not in line


def test_others_send_none() -> None:
    """From peers outside of --proxy-in nothing is read: what they send is the stream."""
    settings = Settings(proxy_in=("10.0.0.0/8", "unix"), access_log=True)
    with proxied(settings) as (plane, backend):
        with plane.connect() as client, client, plane.connect() as silent:
            client.sendall(HEADERS["v1"])
            with backend.accept() as first, backend.accept() as second:
                heard = {sock.recv(200, socket.MSG_DONTWAIT) for sock in (first,)}
                assert heard == {HEADERS["v1"]}
                second.sendall(b"greeting")
                assert silent.recv(100) == b"greeting"
        assert "via" not in session_line(plane)


@pytest.mark.parametrize(
    ("sent", "problem"),
    [
        (
            b"GET / HTTP/1.1\r\n\r\n",
            "expected a PROXY protocol header, got b'GET / HTTP/1.1\\r\\n'",
        ),
        (SIGNATURE + b"\x31", "unknown version and command 0x31"),
        (b"PROXY TCP4 1.2.3.4\r\n", "expected TCP4"),
    ],
)
def test_no_header(sent: bytes, problem: str) -> None:
    """What is no header ends the session at once, with a reset and the reason in the log."""
    with proxied() as (plane, _):
        with plane.connect() as client:
            client.sendall(sent)
            with pytest.raises(ConnectionResetError):
                client.recv(100)
        line = session_line(plane)
        assert line["end"] == End.PROXY_HEADER
        assert str(line["error"]).startswith(problem)
        assert plane.counters.ended == {"proxy-header": 1}
        assert problem in plane.counters.last_turned_away["proxy-header"]
        assert not plane.counters.endpoints


@pytest.mark.parametrize("sent", [b"", b"PROXY TCP4 1.2.", SIGNATURE])
def test_no_header_in_time(sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who does not send a whole header in its time is closed, in the order of arrival."""
    monkeypatch.setattr(proxy_in, "HEADER_S", 1.0)
    with proxied() as (plane, _):
        with plane.connect() as first, plane.connect() as second:
            for client in (first, second):
                client.sendall(sent)
            for client in (first, second):
                with pytest.raises(ConnectionResetError):
                    client.recv(100)
        wait_until(lambda: plane.counters.ended == {"proxy-header": 2})
        assert session_line(plane)["error"] == "no PROXY protocol header within 1 s"


def test_who_resets_before_the_header_leaves_nothing_behind() -> None:
    """A flood of such clients would stay in memory until their time is over."""
    with proxied() as (plane, _):
        for _ in range(3):
            client = plane.connect()
            wait_until(lambda: plane.sessions.headers_in._awaited)
            reset(client)
            wait_until(lambda: plane.counters.sessions == 0)
            assert not plane.ask(lambda: len(plane.sessions.headers_in._awaited))


def test_a_header_that_came_while_the_loop_stood_still(monkeypatch: pytest.MonkeyPatch) -> None:
    """A header that lies in the kernel when its time is over is a header in time."""
    monkeypatch.setattr(proxy_in, "HEADER_S", 60.0)
    with proxied() as (plane, backend), plane.connect() as client:
        awaited = plane.sessions.headers_in._awaited
        wait_until(lambda: awaited)

        def arrive_late() -> None:
            """In the worker's thread, so that its loop stands still meanwhile."""
            client.sendall(HEADERS["v1"] + b"data")
            (each,) = awaited
            each.until = 0.0
            plane.sessions.headers_in._look()

        plane.ask(arrive_late)
        with backend.accept() as server:
            assert server.recv(100) == b"data"


def test_an_error_of_ours_costs_one_session_also_by_the_clock() -> None:
    """A header that is found late and meets a bug leaves the others their time."""
    with proxied() as (plane, _):

        def fail_to_pick(tried: object = ()) -> None:
            raise OSError("no memory for it")

        plane.table.pick = fail_to_pick  # type: ignore[method-assign]
        with plane.connect() as late, plane.connect() as silent:
            awaited = plane.sessions.headers_in._awaited
            wait_until(lambda: len(awaited) == 2)

            def arrive_late() -> None:
                """In the worker's thread, so that its loop stands still meanwhile."""
                late.sendall(HEADERS["v1"])
                for each in awaited:
                    each.until = 0.0
                plane.sessions.headers_in._look()

            plane.ask(arrive_late)
            for client in (late, silent):
                with pytest.raises(ConnectionResetError):
                    client.recv(1)
        assert plane.counters.ended == {"error": 1, "proxy-header": 1}


@pytest.mark.parametrize("sent", [b"", b"PROXY", HEADERS["v2"][:20]])
def test_who_leaves_before_the_header_is_complete(sent: bytes) -> None:
    """An end of the stream there is a header that did not come; without a word it is not logged."""
    with proxied() as (plane, _):
        with plane.connect() as client:
            client.sendall(sent)
            client.shutdown(socket.SHUT_WR)
            wait_until(lambda: plane.counters.ended == {"proxy-header": 1})
        assert bool(plane.counters.turned_away) is bool(sent)


@pytest.mark.parametrize("sent", [b"", b"PROXY", HEADERS["v2"][:20], HEADERS["v2"] + b"data"])
def test_reset(sent: bytes) -> None:
    """A reset before, in and after the header is the client's reset."""
    with proxied() as (plane, _):
        client = plane.connect()
        wait_until(lambda: plane.counters.sessions == 1)
        client.sendall(sent)
        reset(client)
        line = session_line(plane)
        assert (line["end"], line["reset_by"]) == (End.RESET, End.CLIENT)


def test_a_drain_waits_for_headers_and_cuts_what_has_none() -> None:
    """Who is in the middle of its header is a session: served if the rest comes, else cut."""
    with proxied() as (plane, backend):
        with plane.connect() as client, plane.connect() as silent:
            client.sendall(HEADERS["v1"][:9])
            wait_until(lambda: plane.counters.sessions == 2)
            client.sendall(HEADERS["v1"][9:])
            with backend.accept() as server:
                plane.ask(lambda: plane.sessions.cut_all(End.DRAINED))
                for sock in (server, silent, client):
                    with pytest.raises(ConnectionResetError):
                        sock.recv(1)
        wait_until(lambda: plane.counters.ended == {"drained": 2})
        plane.ask(plane.sessions.headers_in._look)


def test_allow_judges_the_original_client() -> None:
    """A client that its header shows to be outside of --allow is closed; nothing is dialed."""
    settings = Settings(proxy_in=("127.0.0.0/8",), allow=("192.0.2.0/24",), access_log=True)
    outsider = Route(("198.51.100.1", 7), ROUTE.destination)
    with proxied(settings) as (plane, backend):
        with plane.connect() as client:
            client.sendall(write_header(Version.V2, outsider))
            with pytest.raises(ConnectionResetError):
                client.recv(100)
        line = session_line(plane)
        assert (line["end"], line["client"]) == (End.DENIED, "198.51.100.1:7")
        assert plane.counters.last_turned_away == {"denied": "198.51.100.1:7"}
        assert not plane.counters.endpoints
        for header in (HEADERS["v1"], write_own(Version.V2, ROUTE)):
            with plane.connect() as client:
                client.sendall(header + b"data")
                with backend.accept() as server:
                    assert server.recv(100) == b"data"


def test_a_reload_concerns_new_clients() -> None:
    """Who came before a reload goes on as it began."""
    with proxied() as (plane, backend):
        with plane.connect() as client:
            client.sendall(HEADERS["v1"][:9])
            wait_until(lambda: plane.counters.sessions == 1)
            plane.apply(backend.endpoint, settings=Settings())
            client.sendall(HEADERS["v1"][9:] + b"old")
            with backend.accept() as server:
                assert server.recv(100) == b"old"
        with plane.connect() as client:
            client.sendall(b"new")
            with backend.accept() as server:
                assert server.recv(100) == b"new"


def test_a_thousand_random_headers() -> None:
    """Whatever comes in place of headers ends its session, and the next client is served."""
    draw = random.Random(17)
    samples = [*HEADERS.values(), write_own(Version.V2, ROUTE), b"PROXY UNKNOWN\r\n"]
    with proxied(Settings(proxy_in=("0.0.0.0/0",))) as (plane, backend):
        backend.sock.listen(2048)
        clients = []
        for _ in range(1000):
            data = bytearray(draw.choice(samples))
            for _ in range(draw.randrange(1, 4)):
                at = draw.randrange(len(data))
                data[at : at + draw.randrange(3)] = draw.randbytes(draw.randrange(3))
            client = plane.connect()
            client.sendall(data[: draw.randrange(len(data) + 1)])
            with contextlib.suppress(OSError):  # it was reset already
                client.shutdown(socket.SHUT_WR)
            clients.append(client)
        ended = plane.counters.ended
        wait_until(lambda: ended.get("proxy-header", 0) + backend_sessions(plane, backend) >= 1000)
        for client in clients:
            client.close()
        plane.ask(lambda: plane.sessions.cut_all(End.DRAINED))
        assert ended["proxy-header"] > 100
        assert not plane.log.said("session failed")
        client = plane.connect()
        client.sendall(HEADERS["v1"])
        wait_until(lambda: plane.counters.sessions == 1)
        reset(client)


def backend_sessions(plane: Plane, backend: Backend) -> int:
    counters = plane.counters.endpoints.get(backend.endpoint.name)
    return counters.sessions_total if counters else 0


def test_a_peer_that_is_gone_before_anybody_knows_it() -> None:
    """What a client sent before its reset goes to no endpoint while nobody can tell who it was."""
    settings = Settings(proxy_in=("127.0.0.0/8",), allow=("192.0.2.0/24",))
    with proxied(settings) as (plane, _):

        def come_and_go() -> None:
            """In the worker's thread, so that it accepts afterwards."""
            client = plane.connect()
            client.sendall(write_header(Version.V2, Route(("10.9.9.9", 1), ("10.9.9.8", 2))))
            reset(client)

        plane.ask(come_and_go)
        wait_until(lambda: plane.counters.ended == {"reset": 1})
        assert not plane.counters.endpoints


def upload(plane: Plane, data: bytes) -> socket.socket:
    """A client that has sent a header and ``data`` before the worker reads anything."""

    def connect_and_send() -> socket.socket:
        """In the worker's thread, so that its loop stands still meanwhile."""
        client = plane.connect()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        client.sendall(HEADERS["v1"] + data)
        client.shutdown(socket.SHUT_WR)
        return client

    return plane.ask(connect_and_send)


@pytest.mark.parametrize("proxy_out", ["off", "v2"])
def test_bytes_behind_the_first_ones_stay_behind_them(tmp_path: Path, proxy_out: str) -> None:
    """Also where the dial is over before it returns, by way of an endpoint that is down."""
    data = random.Random(1).randbytes(150_000)
    down, up = (
        Endpoint(f"unix:{path}", (f"unix:{path}",), 0) for path in (tmp_path / "a", tmp_path / "b")
    )
    settings = Settings(proxy_in=("127.0.0.0/8",), proxy_out=proxy_out)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "b"))
        listener.listen()
        listener.settimeout(60)
        with Plane(down, up, settings=settings) as plane, upload(plane, data):
            with listener.accept()[0] as server:
                heard = read_to_end(server)
    header = b"" if proxy_out == "off" else write_header(Version.V2, ROUTE)
    assert heard == header + data


def test_a_unix_client_that_closes_behind_its_header(tmp_path: Path) -> None:
    """What it sent arrives before its end, also by way of an endpoint that is down."""
    down, up = (
        Endpoint(f"unix:{path}", (f"unix:{path}",), 0) for path in (tmp_path / "a", tmp_path / "b")
    )
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "b"))
        listener.listen()
        listener.settimeout(60)
        with Plane(down, up, settings=Settings(proxy_in=("unix",))) as plane:
            client, accepted = socket.socketpair()
            accepted.setblocking(False)

            def come_late() -> None:
                """In the worker's thread, so that header, data and end are one event."""
                plane.sessions.serve(accepted.detach(), UNIX_PEER)
                client.sendall(HEADERS["v1"] + b"data")
                client.close()

            plane.ask(come_late)
            with listener.accept()[0] as server:
                assert read_to_end(server) == b"data"
            wait_until(lambda: plane.counters.sessions == 0)
            assert plane.counters.ended == {"client": 1}


def unix_client(plane: Plane) -> socket.socket:
    """A client on a UNIX socket, accepted already."""
    client, accepted = socket.socketpair()
    accepted.setblocking(False)
    plane.ask(lambda: plane.sessions.serve(accepted.detach(), UNIX_PEER))
    return client


@pytest.mark.parametrize(
    ("sent", "end"),
    [
        (HEADERS["v1"] + b"data", End.NO_ENDPOINT),
        (b"GET / HTTP/1.1\r\n", End.PROXY_HEADER),
        (SIGNATURE, End.PROXY_HEADER),
    ],
)
def test_a_unix_client_is_told(sent: bytes, end: End, monkeypatch: pytest.MonkeyPatch) -> None:
    """That nobody took its bytes: what is left unread is the only reset on a UNIX socket."""
    monkeypatch.setattr(proxy_in, "HEADER_S", 1.0)
    with Plane(settings=Settings(proxy_in=("unix",))) as plane:
        with unix_client(plane) as client:
            client.sendall(sent)
            with pytest.raises(ConnectionResetError):
                client.recv(100)
        wait_until(lambda: plane.counters.ended == {end.value: 1})


@every_header
@pytest.mark.parametrize("size", [0, 1, 200_000])
def test_pieces_of_a_unix_client(name: str, size: int) -> None:
    """Wherever they are cut, the endpoint gets what followed the header, and the end."""
    data = random.Random(size).randbytes(size)
    with Backend() as backend:
        with Plane(backend.endpoint, settings=Settings(proxy_in=("unix",))) as plane:
            for cut in (1, 5, len(HEADERS[name]) - 1):
                with unix_client(plane) as client:
                    client.sendall(HEADERS[name][:cut])
                    await_bytes(plane, cut - 1)  # the last one stays where it is
                    client.sendall(HEADERS[name][cut:] + data[:100])
                    client.sendall(data[100:])
                    client.shutdown(socket.SHUT_WR)
                    with backend.accept() as server:
                        assert read_to_end(server) == data


@pytest.mark.parametrize("name", HEADERS)
def test_a_unix_client_that_sends_its_header_byte_by_byte(name: str) -> None:
    """Small pieces that wait fill its buffer, of which each takes a hundred times its bytes."""
    with Backend() as backend:
        with Plane(backend.endpoint, settings=Settings(proxy_in=("unix",))) as plane:
            with unix_client(plane) as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)  # the least there is
                client.settimeout(60)
                for byte in HEADERS[name]:
                    client.sendall(bytes([byte]))
                client.sendall(b"!")
                with backend.accept() as server:
                    assert server.recv(1) == b"!"


@pytest.mark.parametrize("sent", [b"", b"PROXY", HEADERS["v2"][:20]])
def test_a_unix_client_that_leaves_before_its_header_is_complete(sent: bytes) -> None:
    """At once, not when the time of the header is over."""
    with Plane(settings=Settings(proxy_in=("unix",))) as plane:
        with unix_client(plane) as client:
            client.sendall(sent)
        wait_until(lambda: plane.counters.ended == {"proxy-header": 1})
        assert "ended before the header" in str(plane.counters.last_turned_away) or not sent


def test_first_bytes_that_the_endpoint_does_not_take_at_once() -> None:
    """On a wire with an ordinary MTU a fresh connection takes less than one read."""
    data = random.Random(2).randbytes(150_000)

    def run() -> None:
        with proxied() as (plane, backend), upload(plane, data), backend.accept() as server:
            assert read_to_end(server) == data

    with loopback(1500) as name:
        inside(name, run)
