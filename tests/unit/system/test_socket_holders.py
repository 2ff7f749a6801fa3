"""Which process holds the other end of a connection on this host."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from gateway.core.socket_address import address_text
from supervisor.core.admin.session_holders import Process
from supervisor.system import sock_diag, socket_holders
from supervisor.system.socket_holders import find_holders

CLIENT = """
import socket, sys
socks = [socket.create_connection((sys.argv[1], int(sys.argv[2]))) for _ in range(int(sys.argv[3]))]
print("connected", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def client(host: str, port: int, count: int = 1) -> Iterator[int]:
    """A process with connections; its pid."""
    with subprocess.Popen(
        [sys.executable, "-c", CLIENT, host, str(port), str(count)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == b"connected\n"
        yield process.pid
        process.stdin.close()


def find(clients: set[str] | None, port: int, *, skip: tuple[int, ...] = ()) -> dict[str, Process]:
    found: dict[str, Process] = {}
    for piece in find_holders(clients, [port], skip=skip):
        found |= piece
    return found


@pytest.mark.parametrize("read", [sock_diag.clients, sock_diag.clients_from_proc])
@pytest.mark.parametrize(
    ("listen", "connect"), [("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("::", "127.0.0.1")]
)
def test_the_kernel_tells_who_is_connected(read: object, listen: str, connect: str) -> None:
    """The client's own end by its address, in both families; neither listener nor server."""
    assert callable(read)
    family = socket.AF_INET6 if ":" in listen else socket.AF_INET
    dual = listen == "::"
    with socket.create_server((listen, 0), family=family, dualstack_ipv6=dual) as server:
        port = server.getsockname()[1]
        with socket.create_connection((connect, port)) as sock, server.accept()[0]:
            found: dict[str, int] = {}
            for piece in read(port):
                found |= piece
            name = address_text(sock.getsockname()[:2])
            assert found == {name: os.fstat(sock.fileno()).st_ino}


def test_an_ipv4_client_through_an_ipv6_socket_is_written_as_ipv4() -> None:
    """As the server sees it, and as the access log writes it."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_INET6) as sock:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.connect(("::ffff:127.0.0.1", server.getsockname()[1]))
        found: dict[str, int] = {}
        for piece in sock_diag.clients(server.getsockname()[1]):
            found |= piece
        assert list(found) == [f"127.0.0.1:{sock.getsockname()[1]}"]


def test_the_process_of_a_client_is_found() -> None:
    """With its name; only those that were asked for, or all of them."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as server:
        port = server.getsockname()[1]
        with client("127.0.0.1", port, 300) as pid:
            accepted = [server.accept() for _ in range(300)]
            names = {address_text(peer) for _, peer in accepted}
            try:
                found = find(None, port)
                assert found.keys() == names
                assert {each.pid for each in found.values()} == {pid}
                (command,) = {each.command for each in found.values()}
                assert command is not None
                assert command.startswith("python")
                one = {min(names)}
                assert find(one, port).keys() == one
                assert find(names, port, skip=(pid,)) == {}
            finally:
                for sock, _ in accepted:
                    sock.close()


def test_without_netlink_proc_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sandbox may forbid AF_NETLINK, which is why there are two ways."""

    def forbidden(port: int) -> Iterator[dict[str, int]]:
        raise PermissionError(port)

    monkeypatch.setattr(sock_diag, "clients", forbidden)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as sock:
            found = find(None, port)
            assert found[address_text(sock.getsockname())].pid == os.getpid()


def test_the_search_ends_after_so_many_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host with millions of descriptors costs no more than others, and some are not found."""
    monkeypatch.setattr(socket_holders, "MOST_DESCRIPTORS", 0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            assert find(None, port) == {}


def test_a_process_that_is_gone_is_no_error() -> None:
    """Its socket may be known a moment longer than itself."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert socket_holders.describe_process(gone.pid) == Process(
        pid=gone.pid, command=None, unit=None
    )
