"""What every session asks of the kernel; in Python here, and in C where the relay is compiled."""

from __future__ import annotations

import _socket
import errno
import fcntl
import os
import select
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway import tcp_calls
from tests.plane import descriptors

HOSTS = ["127.0.0.1", "::1"]


@contextmanager
def server(host: str = "127.0.0.1") -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as sock:
        sock.settimeout(10)
        yield sock


@contextmanager
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a TCP connection; the first does not block."""
    with (
        server() as listener,
        socket.create_connection(listener.getsockname(), timeout=10) as other,
        listener.accept()[0] as one,
    ):
        one.setblocking(False)
        yield one, other


@pytest.mark.parametrize("host", HOSTS)
def test_accept(host: str) -> None:
    """The client does not block, is not inherited by programs, and has its whole address."""
    with server(host) as listener:
        listener.setblocking(False)
        accept = tcp_calls.accept_of(listener)
        with pytest.raises(BlockingIOError):
            accept()
        with socket.create_connection(listener.getsockname()[:2]) as client:
            assert select.select([listener], [], [], 10)[0]
            fd, peer = accept()
            try:
                assert peer == client.getsockname()
                assert not os.get_blocking(fd)
                assert fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
            finally:
                os.close(fd)


def test_accept_from_what_does_not_listen() -> None:
    """The error says so, which is how a listener that somebody destroyed is found."""
    with socket.socket() as sock:
        accept = tcp_calls.accept_of(sock)
        with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
            accept()


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("data", [None, b"", b"first words"])
def test_connect(host: str, data: bytes | None) -> None:
    """Connected, with the options of a session, and its first bytes on their way."""
    with server(host) as listener:
        fd, sent = tcp_calls.connect(host, listener.getsockname()[1], data, True)
        with socket.socket(fileno=fd) as sock:
            assert sent == (None if data is None else len(data))
            assert not os.get_blocking(fd)
            assert fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE)
            with listener.accept()[0] as accepted:
                assert sock.getpeername() == accepted.getsockname()
                sock.close()
                assert accepted.makefile("rb").read() == (data or b"")


@pytest.mark.parametrize("source", ["127.0.0.9", "::1"])
def test_connect_from_an_address(source: str) -> None:
    """The endpoint sees the address of the operator's choice."""
    host = "::1" if ":" in source else "127.0.0.1"
    with server(host) as listener:
        fd, _ = tcp_calls.connect(host, listener.getsockname()[1], None, False, source)
        os.close(fd)
        client, address = listener.accept()
        client.close()
        assert address[0] == source


@pytest.mark.parametrize("host", HOSTS)
def test_connect_that_is_refused(host: str) -> None:
    """The errno says why, and no descriptor stays behind."""
    with server(host) as listener:
        port = listener.getsockname()[1]
    before = descriptors()
    with pytest.raises(ConnectionRefusedError):
        tcp_calls.connect(host, port, b"x")
    with pytest.raises(OSError, match=os.strerror(errno.EADDRNOTAVAIL)):
        tcp_calls.connect("127.0.0.1", port, b"x", False, "192.0.2.1")
    assert descriptors() == before


def test_connect_that_takes_a_while() -> None:
    """Nothing is written to a connection that does not stand yet."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        with socket.create_connection(address), socket.socket() as second:
            second.setblocking(False)
            second.connect_ex(address)
            fd, sent = tcp_calls.connect("127.0.0.1", address[1], b"x")
            os.close(fd)
    assert sent is None


MEETS_ITSELF = """
import errno, os
from gateway import tcp_calls
for host in ("127.0.0.1", "::1"):
    for asked in (False, True):
        before = len(os.listdir("/proc/self/fd"))
        try:
            fd, sent = tcp_calls.connect(host, 40000, b"x", asked)
        except OSError as error:
            print(host, asked, errno.errorcode[error.errno])
        else:
            print(host, asked, sent)
            os.close(fd)
        assert len(os.listdir("/proc/self/fd")) == before
"""


@pytest.mark.skipif(
    os.geteuid() != 0 or not (shutil.which("unshare") and shutil.which("ip")),
    reason="needs root, unshare and ip",
)
def test_connect_that_meets_itself() -> None:
    """Nobody listens where both ends of a connection are ours, so it counts as refused."""
    setup = "ip link set lo up; echo 40000 40000 > /proc/sys/net/ipv4/ip_local_port_range;"
    argv = ["unshare", "--net", "sh", "-c", f'{setup} exec "$@"', "sh"]
    environ = {**os.environ, "PYTHONPATH": str(Path(tcp_calls.__file__).parents[1])}
    run = subprocess.run(
        [*argv, sys.executable, "-c", MEETS_ITSELF],
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.stdout.splitlines() == [
        "127.0.0.1 False 1",
        "127.0.0.1 True ECONNREFUSED",
        "::1 False 1",
        "::1 True ECONNREFUSED",
    ], run.stderr


def test_read() -> None:
    """What is there, the end of the stream, and that there is nothing now."""
    with pair() as (one, other):
        with pytest.raises(BlockingIOError):
            tcp_calls.read_some(one.fileno(), 1 << 16)
        other.sendall(b"some words")
        assert tcp_calls.read_some(one.fileno(), 4) == b"some"
        assert tcp_calls.read_some(one.fileno(), 1 << 16) == b" words"
        other.close()
        assert tcp_calls.read_some(one.fileno(), 1 << 16) == b""


def test_read_after_a_reset() -> None:
    """The error that the kernel keeps is raised."""
    with pair() as (one, other):
        other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        other.close()
        with pytest.raises(ConnectionResetError):
            tcp_calls.read_some(one.fileno(), 1 << 16)


def test_the_last_write_ends_the_stream() -> None:
    """The other side reads the bytes and the end."""
    with pair() as (one, other):
        assert tcp_calls.write_last(one.fileno(), b"last words") == 10
        assert other.makefile("rb").read() == b"last words"


def test_a_last_write_that_is_not_taken_whole_ends_nothing() -> None:
    """What was not taken is still to come."""
    data = bytes(1 << 24)
    with pair() as (one, other):
        sent = tcp_calls.write_last(one.fileno(), data)
        assert 0 < sent < len(data)
        with pytest.raises(BlockingIOError):
            tcp_calls.write_last(one.fileno(), data)
        one.setblocking(True)
        other.settimeout(10)
        received = 0
        while received < sent:
            received += len(other.recv(1 << 20))
        one.sendall(b"rest")
        one.shutdown(socket.SHUT_WR)
        assert other.makefile("rb").read() == b"rest"


@pytest.mark.interpreted
def test_an_end_that_our_own_host_forbids(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an error, also when the last bytes were taken."""

    class Socket(_socket.socket):
        def shutdown(self, _how: int) -> None:
            raise PermissionError(errno.EACCES, "Permission denied")

    class Sockets:
        socket = Socket

    with pair() as (one, other):
        monkeypatch.setattr(tcp_calls, "_socket", Sockets)
        with pytest.raises(PermissionError):
            tcp_calls.write_last(one.fileno(), b"last words")
        with pytest.raises(PermissionError):
            tcp_calls.shut_write(one.fileno())
        one.close()
        assert other.makefile("rb").read() == b"last words"


def test_end_of_stream() -> None:
    """A peer that is gone already is no error; a descriptor that is no socket is one."""
    with pair() as (one, other):
        tcp_calls.shut_write(one.fileno())
        assert other.recv(1) == b""
    with socket.socket() as sock:
        tcp_calls.shut_write(sock.fileno())
    r, w = os.pipe()
    try:
        with pytest.raises(OSError, match=os.strerror(errno.ENOTSOCK)):
            tcp_calls.shut_write(w)
    finally:
        os.close(r)
        os.close(w)
