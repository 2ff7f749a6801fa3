"""Clients in the middle of their header, while everything happens to a gateway that can."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from pathlib import Path

from gateway.core.proxy_protocol import Header, Route, Version, read_header, write_header
from supervisor.cli.admin_client import fetch_status
from tests.clients import connect, read_exactly
from tests.gateway import running
from tests.servers import serving
from tests.support import free_port, wait_until

HEADER = write_header(Version.V2, Route(("192.0.2.7", 5555), ("192.0.2.8", 2379)))
FLAGS = ("--proxy-in=127.0.0.0/8,unix", "--proxy-out=v2", "--access-log")


def tell(conn: socket.socket) -> None:
    """Says whom the header names, then echoes."""
    data = b""
    while not isinstance(header := read_header(data), Header):
        if not (more := conn.recv(4096)):
            return
        data += more
    name = header.route.source[0] if header.route else "nobody"
    conn.sendall(f"{name!s:>15}".encode() + data[header.size :])
    while more := conn.recv(4096):
        conn.sendall(more)


def served(client: socket.socket) -> bool:
    return read_exactly(client, 15).decode().strip() == "192.0.2.7"


def test_clients_are_handed_over_before_their_header() -> None:
    """The worker that a client is handed over to reads the header, whoever accepted."""
    admin = f"127.0.0.1:{free_port()}"
    with (
        serving(tell) as server,
        running(*FLAGS, f"--admin-addr={admin}", endpoints=[f"127.0.0.1:{server.port}"]) as gateway,
    ):
        clients = []
        for _ in range(8):
            clients.append(connect(gateway.address))
            clients[-1].sendall(HEADER[:20])
            clients[-1].sendall(HEADER[20:])
            assert served(clients[-1])
        wait_until(lambda: fetch_status([admin])["totals"]["sessions"] == 8)
        shares = [worker["sessions"] for worker in fetch_status([admin])["workers"]]
        assert shares == [4, 4]
        for client in clients:
            client.close()
        wait_until(lambda: len(gateway.lines("session")) == 8)
        assert {line["client"] for line in gateway.lines("session")} == {"192.0.2.7:5555"}


def test_an_upgrade_in_the_middle_of_a_header() -> None:
    """The old worker reads the rest and serves; new clients come to the new workers."""
    with (
        serving(tell) as server,
        running(*FLAGS, endpoints=[f"127.0.0.1:{server.port}"]) as gateway,
    ):
        gateway.signal(signal.SIGUSR2)
        gateway.wait_line("upgrading", 60)
        with connect(gateway.address) as client:
            client.sendall(HEADER[:20])
            gateway.wait_line("ready to proxy client requests", 60, count=2)
            with contextlib.suppress(ConnectionResetError):  # a host too slow for the 3 seconds
                client.sendall(HEADER[20:])
                assert served(client)
        with connect(gateway.address) as another:
            another.sendall(HEADER)
            assert served(another)


def test_who_sends_no_header_gives_its_place_back() -> None:
    """A client without its header has a place under --max-sessions, for 3 seconds."""
    with (
        serving(tell) as server,
        running(*FLAGS, "--max-sessions=1", endpoints=[f"127.0.0.1:{server.port}"]) as gateway,
        connect(gateway.address),
    ):
        gateway.wait_line("accepting paused")
        with connect(gateway.address) as waiting:
            waiting.sendall(HEADER)
            assert served(waiting)
        assert gateway.wait_line("session")["end"] == "proxy-header"
        line = gateway.wait_line("clients without a PROXY protocol header")
        assert line["clients"] == 1
        assert line["last"].endswith("no PROXY protocol header within 3 s")


def test_a_stop_in_the_middle_of_a_header() -> None:
    """The drain cuts who has not sent its header, and the exit code is 0."""
    with (
        serving(tell) as server,
        running(*FLAGS, "--drain-timeout=200ms", endpoints=[f"127.0.0.1:{server.port}"]) as gateway,
        connect(gateway.address) as client,
    ):
        client.sendall(HEADER[:20])
        gateway.signal(signal.SIGTERM)
        assert gateway.process.wait(60) == 0
        assert {line["end"] for line in gateway.lines("session")} <= {"drained"}


def test_headers_over_unix_sockets(tmp_path: Path) -> None:
    """They are read from UNIX peers that --proxy-in names, and written to UNIX endpoints."""
    front, back = tmp_path / "front.sock", tmp_path / "back.sock"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(back))
    listener.listen(16)
    flags = (*FLAGS, "--allow=192.0.2.0/24")
    with (
        serving(tell, listener=listener),
        running(*flags, listen=f"unix:{front}", endpoints=[f"unix:{back}"]) as gateway,
    ):
        for first, rest in ((HEADER[:1], HEADER[1:]), (HEADER + b"data", b"")):
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(60)
                client.connect(str(front))
                client.sendall(first)
                client.sendall(rest)
                assert served(client)
                if not rest:
                    assert read_exactly(client, 4) == b"data"
        wait_until(lambda: len(gateway.lines("session")) == 2)
        for line in gateway.lines("session"):
            assert line["client"] == "192.0.2.7:5555"
            assert line["via"].startswith("unix:pid=")


def test_clients_of_unix_sockets_are_told(tmp_path: Path) -> None:
    """Without a header of their own they are told by version 2 as what they are; all may come."""
    front = tmp_path / "front.sock"
    heard: list[Header] = []

    def hear(conn: socket.socket) -> None:
        header = read_header(conn.recv(4096))
        assert isinstance(header, Header)
        heard.append(header)

    with (
        serving(hear) as server,
        running(
            "--proxy-out=v2",
            "--allow=192.0.2.0/24",
            listen=f"unix:{front}",
            endpoints=[f"127.0.0.1:{server.port}"],
        ),
        socket.socket(socket.AF_UNIX) as client,
    ):
        client.connect(str(front))
        wait_until(lambda: heard)
        assert heard[0].route == Route(b"", os.fsencode(front))
