"""Sessions over UNIX sockets: bytes, ends and failures, as far as the kernel has them there."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.backends import Backend, echo
from tests.clients import read_exactly, talk
from tests.gateway import Gateway, running
from tests.support import PATIENCE, free_port, wait_until
from tests.unix_clients import connect

Script = Callable[[socket.socket], None]

ERRORS = (ConnectionResetError, BrokenPipeError)
"""What tells a client that its session failed: a reset, or a pipe without a reader if the client
spoke after the end."""


def ask(client: socket.socket) -> bytes:
    """Say something, and read the answer until it ends or has 100 bytes."""
    client.sendall(b"request")
    return read_exactly(client, 100)


@contextlib.contextmanager
def scripted(path: str, script: Script) -> Iterator[socket.socket]:
    """A server on a UNIX socket that plays ``script`` with each connection, one after the other."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen(16)

        def serve() -> None:
            while True:
                try:
                    conn, _ = server.accept()
                except OSError:
                    return
                conn.settimeout(60)
                with conn:
                    script(conn)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join(60)
    os.unlink(path)


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path)


def gateway_on(folder: str, *endpoints: str, flags: tuple[str, ...] = ()) -> Any:
    return running(
        "--access-log", *flags, listen=f"unix:{folder}/gw", endpoints=list(endpoints), workers=1
    )


def ended(gateway: Gateway, count: int = 1) -> dict[str, Any]:
    return gateway.wait_line("session", count=count)


def test_half_close_both_ways(folder: str) -> None:
    """Each end of stream is passed on as one, while the other direction goes on."""

    def count_then_answer(conn: socket.socket) -> None:
        heard = 0
        while data := conn.recv(65536):
            heard += len(data)
        conn.sendall(b"%d" % heard)

    with scripted(f"{folder}/be", count_then_answer), gateway_on(folder, f"unix:{folder}/be") as gw:
        with connect(f"{folder}/gw") as client:
            client.sendall(b"x" * 3_000_000)
            client.shutdown(socket.SHUT_WR)
            assert read_exactly(client, 100) == b"3000000"
        line = ended(gw)
        assert (line["end"], line["bytes_in"], line["bytes_out"]) == ("client", 3_000_000, 7)


def test_bulk_both_ways_at_once(folder: str) -> None:
    """More than fits into any buffer goes through whole, by splice."""
    data = os.urandom(20_000_000)
    with Backend(echo, path=f"{folder}/be") as backend, gateway_on(folder, backend.address):
        with connect(f"{folder}/gw", 60) as client:
            writer = threading.Thread(target=client.sendall, args=(data,), daemon=True)
            writer.start()
            assert read_exactly(client, len(data)) == data
            writer.join(60)


def test_one_that_speaks_and_leaves_at_once(folder: str) -> None:
    """What an endpoint says before it closes arrives, whether or not the client spoke first."""

    def greet(conn: socket.socket) -> None:
        conn.sendall(b"220 hello")

    with scripted(f"{folder}/be", greet), gateway_on(folder, f"unix:{folder}/be"):
        for _ in range(20):
            with connect(f"{folder}/gw") as client:
                assert read_exactly(client, 100) == b"220 hello"


def test_a_request_of_a_client_that_left(folder: str) -> None:
    """A client that wrote and closed at once, while its endpoint was dialed, has said it all."""
    heard: list[bytes] = []

    def note(conn: socket.socket) -> None:
        heard.append(read_exactly(conn, 100))

    # Nobody answers a SYN to this address: the dial takes until the hedge.
    with (
        scripted(f"{folder}/be", note),
        black_hole() as hole,
        gateway_on(folder, hole, f"unix:{folder}/be", flags=("--dial-hedge=200ms",)) as gw,
    ):
        for _ in range(4):
            with connect(f"{folder}/gw") as client:
                client.sendall(b"request")
        wait_until(lambda: len(heard) == 4)
        assert set(heard) == {b"request"}
        ended(gw, 4)
        assert {line["end"] for line in gw.lines("session")} <= {"client", "reset"}


def test_a_session_ends_with_a_peer_that_left(folder: str) -> None:
    """It does not wait for the other side: nobody is there to read what that might still say."""
    heard_end, over = threading.Event(), threading.Event()

    def hang(conn: socket.socket) -> None:
        word = conn.recv(100)
        if word == b"leave":
            conn.sendall(b"bye")
            return
        if word == b"end":
            assert conn.recv(100) == b""
            heard_end.set()
        over.wait(60)
        over.clear()

    with scripted(f"{folder}/be", hang), gateway_on(folder, f"unix:{folder}/be") as gw:
        with connect(f"{folder}/gw") as client:
            client.sendall(b"leave")
            assert read_exactly(client, 100) == b"bye"
            assert ended(gw)["end"] == "endpoint"
        with connect(f"{folder}/gw") as client:
            client.sendall(b"stay")
        line = ended(gw, 2)
        assert (line["end"], line["bytes_in"]) == ("client", 4)
        over.set()
        with connect(f"{folder}/gw") as client:
            client.sendall(b"end")
            client.shutdown(socket.SHUT_WR)
            assert heard_end.wait(60)
            assert len(gw.lines("session")) == 2
        assert ended(gw, 3)["end"] == "client"
        over.set()


@contextlib.contextmanager
def black_hole() -> Iterator[str]:
    """A listener whose queue is full: the kernel drops further SYNs."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        port = server.getsockname()[1]
        with contextlib.ExitStack() as stack:
            for _ in range(2):
                client = stack.enter_context(socket.socket())
                client.setblocking(False)
                client.connect_ex(("127.0.0.1", port))
            yield f"127.0.0.1:{port}"


def test_a_reset_of_the_endpoint(folder: str) -> None:
    """A close with unread bytes is a reset: a TCP client gets one, and a UNIX client that had sent
    more than was read."""

    def slam(conn: socket.socket) -> None:
        assert conn.recv(1) == b"r"
        conn.sendall(b"par")

    port = free_port()
    listen = f"unix:{folder}/gw,127.0.0.1:{port}"
    with (
        scripted(f"{folder}/be", slam),
        running("--access-log", listen=listen, endpoints=[f"unix:{folder}/be"], workers=1) as gw,
    ):
        with socket.create_connection(("127.0.0.1", port), 20 * PATIENCE) as client:
            with pytest.raises(ERRORS):
                ask(client)
        line = ended(gw)
        assert (line["end"], line["reset_by"]) == ("reset", "endpoint")


def test_a_reset_of_the_client(folder: str) -> None:
    """A client that closes with unread bytes has reset its session, and a TCP endpoint hears it."""
    fate: list[str] = []

    def serve() -> None:
        conn, _ = server.accept()
        with conn:
            conn.settimeout(60)
            conn.sendall(b"x" * 1000)
            try:
                fate.append(repr(read_exactly(conn, 10)))
            except ConnectionResetError:
                fate.append("reset")

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        endpoint = f"127.0.0.1:{server.getsockname()[1]}"
        with gateway_on(folder, endpoint, flags=("--health-check=off",)) as gw:
            with connect(f"{folder}/gw") as client:
                assert client.recv(1) == b"x"
            line = ended(gw)
            assert (line["end"], line["reset_by"]) == ("reset", "client")
            thread.join(60)
    assert fate == ["reset"]


def test_a_client_without_an_endpoint_is_told(folder: str) -> None:
    """What it said was not read, so it gets an error and no empty answer."""
    with gateway_on(folder, f"unix:{folder}/nobody") as gw:
        with connect(f"{folder}/gw") as client:
            with pytest.raises(ERRORS):
                ask(client)
        assert ended(gw)["end"] in ("dial-failed", "no-endpoint")


@pytest.mark.parametrize("kind", ["missing", "stale", "file", "datagram"])
def test_what_cannot_be_dialed_is_left_for_the_next(folder: str, kind: str) -> None:
    """The next endpoint serves, whatever the file is."""
    bad = f"{folder}/bad"
    with contextlib.ExitStack() as stack:
        if kind == "stale":
            with socket.socket(socket.AF_UNIX) as gone:
                gone.bind(bad)
        elif kind == "file":
            Path(bad).touch()
        elif kind == "datagram":
            other = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
            other.bind(bad)
        backend = stack.enter_context(Backend(echo, path=f"{folder}/be"))
        gw = stack.enter_context(gateway_on(folder, f"unix:{bad}", backend.address))
        for _ in range(4):
            with connect(f"{folder}/gw") as client:
                talk(client)
        line = gw.wait_line("deactivated endpoint")
        assert line["endpoint"] == f"unix:{bad}"


def test_a_full_queue_is_waited_for(folder: str) -> None:
    """It is no evidence against the endpoint: the client waits until there is room."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.socket(socket.AF_UNIX))
        server.bind(f"{folder}/be")
        server.listen(0)
        first = stack.enter_context(connect(f"{folder}/be"))
        gw = stack.enter_context(
            gateway_on(folder, f"unix:{folder}/be", flags=("--dial-timeout=20s",))
        )
        client = stack.enter_context(connect(f"{folder}/gw", 20))
        client.sendall(b"hello")
        assert gw.wait_line("cannot dial")["error"] == "the socket's queue is full"
        first.close()
        server.accept()[0].close()
        while True:
            conn = stack.enter_context(server.accept()[0])
            if heard := conn.recv(5):  # a probe says nothing
                break
        assert heard == b"hello"
        conn.sendall(b"world")
        assert client.recv(5) == b"world"
        assert gw.lines("deactivated endpoint") == []


@pytest.mark.skipif(os.getuid() != 0, reason="the gateway has to run as somebody else")
def test_a_socket_that_may_not_be_written_to(folder: str) -> None:
    """It is this host's problem, and said so; the endpoint is not to blame."""
    os.chmod(folder, 0o755)
    with (
        Backend(echo, path=f"{folder}/be") as backend,
        running(
            listen=f"unix:@{folder}/gw",
            endpoints=[backend.address],
            prefix=["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"],
        ) as gw,
    ):
        os.chmod(f"{folder}/be", 0o600)
        with connect(f"@{folder}/gw") as client:
            with pytest.raises(ERRORS):
                ask(client)
        assert gw.wait_line("cannot dial")["error"] == "permission denied"
        assert gw.lines("deactivated endpoint") == []


def test_urgent_bytes_stay_in_the_stream(folder: str) -> None:
    """UNIX sockets have MSG_OOB too (Linux 5.15); no byte is lost or changes its place."""
    with Backend(echo, path=f"{folder}/be") as backend, gateway_on(folder, backend.address):
        with connect(f"{folder}/gw") as client:
            try:
                client.send(b"X", socket.MSG_OOB)
            except OSError:
                pytest.skip("this kernel has none")
            client.sendall(b"ab")
            client.send(b"Y", socket.MSG_OOB)
            client.sendall(b"cd")
            assert read_exactly(client, 6) == b"XabYcd"


def test_descriptors_do_not_go_through(folder: str) -> None:
    """The stream is not harmed by them; a new kernel tells the sender."""
    with Backend(echo, path=f"{folder}/be") as backend, gateway_on(folder, backend.address):
        with connect(f"{folder}/gw") as client:
            with contextlib.suppress(PermissionError):
                socket.send_fds(client, [b"a"], [0])
                assert read_exactly(client, 1) == b"a"
            talk(client)


def test_old_and_busy_sessions_live(folder: str) -> None:
    """What TCP sessions get after a second or two (keepalive, the watch over stalls) does no harm;
    a client that takes nothing for a while loses nothing."""
    data = os.urandom(3_000_000)
    with (
        Backend(echo, path=f"{folder}/be") as backend,
        gateway_on(folder, backend.address, flags=("--tcp-user-timeout=1s",)) as gw,
        connect(f"{folder}/gw", 60) as client,
    ):
        talk(client)
        writer = threading.Thread(target=client.sendall, args=(data,), daemon=True)
        writer.start()  # the echo blocks, and stays so for longer than the timeout
        with connect(f"{folder}/gw", 60) as other:
            for _ in range(30):
                talk(other)
                other.settimeout(0.1)
                with contextlib.suppress(TimeoutError):
                    other.recv(1)
                other.settimeout(60)
        assert read_exactly(client, len(data)) == data
        writer.join(60)
        assert gw.lines("session failed") + gw.lines("internal error") == []


def test_the_idle_timeout_ends_sessions(folder: str) -> None:
    """As on TCP; the client reads an end of stream."""
    with (
        Backend(echo, path=f"{folder}/be") as backend,
        gateway_on(folder, backend.address, flags=("--idle-timeout=300ms",)) as gw,
    ):
        with connect(f"{folder}/gw", 20) as client:
            talk(client)
            assert client.recv(1) == b""
        assert ended(gw)["end"] == "idle"


@pytest.mark.parametrize("listener", ["unix", "tcp"])
@pytest.mark.parametrize("size", [200_000, 400_000])
def test_a_word_to_a_server_that_closed_cuts_nothing_that_it_said(
    folder: str, size: int, listener: str
) -> None:
    """The client says something more before it has read the whole answer; nobody hears it."""
    answer = os.urandom(size)
    closed = threading.Event()

    def serve(conn: socket.socket) -> None:
        assert read_exactly(conn, 8) == b"question"
        conn.sendall(answer)
        conn.close()
        closed.set()

    port = free_port()
    listen = f"unix:{folder}/gw,127.0.0.1:{port}"
    with (
        scripted(f"{folder}/be", serve),
        running("--access-log", listen=listen, endpoints=[f"unix:{folder}/be"], workers=1) as gw,
    ):
        with (
            connect(f"{folder}/gw")
            if listener == "unix"
            else socket.create_connection(("127.0.0.1", port), 60)
        ) as client:
            client.sendall(b"question")
            assert closed.wait(60)
            with contextlib.suppress(BrokenPipeError):  # all was passed on, and nobody is there
                client.sendall(b"more")
            assert read_exactly(client, size + 1) == answer
        line = ended(gw)
        assert (line["end"], line["bytes_out"]) == ("endpoint", size)
