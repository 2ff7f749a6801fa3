"""Sessions of a peer that is gone without a word, and of one that is only paused.

Gone: two network namespaces, one goes dark. Paused: a reader that is stopped by SIGSTOP; its kernel
acknowledges every probe and takes no byte.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from tests.clients import connect, talk
from tests.gateway import Gateway, running
from tests.servers import Server, serving
from tests.support import wait_until
from tests.wires import hosts, inside, ip, prefix

pytestmark = pytest.mark.slow(seconds=8)

NEAR, FAR = "10.77.0.1", "10.77.0.2"


@pytest.fixture
def namespaces() -> Iterator[tuple[str, str]]:
    """The gateway's and the endpoint's, joined by a cable."""
    with hosts(NEAR, FAR) as (near, far):
        yield near, far


def echo_once(conn: socket.socket) -> None:
    conn.sendall(conn.recv(1))


@pytest.mark.parametrize("talking", [True, False], ids=["unacknowledged data", "idle"])
def test_sessions_of_a_vanished_endpoint_end(namespaces: tuple[str, str], talking: bool) -> None:
    """Packets are lost from now on, no FIN, no RST: the client learns of it in seconds."""
    near, far = namespaces
    listener = inside(far, lambda: socket.create_server((FAR, 0)))
    port = listener.getsockname()[1]
    flags = [
        "--access-log", "--tcp-user-timeout=1s", "--keepalive-time=1s", "--keepalive-interval=1s",
        "--keepalive-probes=1", f"--endpoints={FAR}:{port}",
    ]  # fmt: skip
    with contextlib.ExitStack() as stack:
        server: Server = stack.enter_context(serving(echo_once, listener=listener))
        gateway = stack.enter_context(Gateway(*flags, prefix=prefix(near)))
        gateway.wait_ready()
        client = inside(near, lambda: connect(gateway.address))
        stack.enter_context(client)
        talk(client, b"?")
        wait_until(lambda: server.open >= 1)
        ip("-n", far, "addr", "del", f"{FAR}/24", "dev", "eth0")  # received, but nobody's
        if talking:
            client.sendall(b"?")
        client.settimeout(60)
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(1) == b""
        line = gateway.wait_line("session")
        assert line["end"] == "reset"

        def is_deactivated() -> bool:
            """A probe that this host was too busy for is made again when a client comes."""
            inside(near, lambda: connect(gateway.address)).close()
            return bool(gateway.lines("deactivated endpoint"))

        wait_until(is_deactivated, 120, "the endpoint is deactivated")
        assert gateway.lines("deactivated endpoint")[0]["endpoint"] == f"{FAR}:{port}"


READER = """
import hashlib, socket, sys
sock = socket.socket()
sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
port = int(sys.argv[1])
if port:
    sock.connect(("127.0.0.1", port))
else:
    sock.bind(("127.0.0.1", 0))
    sock.listen()
    print(sock.getsockname()[1], flush=True)
    sock = sock.accept()[0]
print("began", len(sock.recv(1)), flush=True)
digest, size = hashlib.sha256(b"?"), 1
while data := sock.recv(65536):
    digest.update(data)
    size += len(data)
print(size, digest.hexdigest(), flush=True)
"""
"""Connects to the port, or listens if it is 0; reads to the end and says what it was."""

USER_TIMEOUT_S = 4.0
"""A worker may look after a stalled session an eighth of it late: 0.1 s is often too short."""

PAUSED_S = 1.5 * USER_TIMEOUT_S


@contextlib.contextmanager
def reader(port: int = 0) -> Iterator[subprocess.Popen[str]]:
    argv = [sys.executable, "-c", READER, str(port)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def send_all(sock: socket.socket, data: bytes) -> threading.Thread:
    """Send in the background, then end the stream."""

    def send() -> None:
        sock.settimeout(60)
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("size", [300_000, 1 << 25], ids=["kernel buffers", "backpressure"])
@pytest.mark.parametrize("side", ["client", "endpoint"])
def test_a_paused_reader_lives_on(side: str, size: int) -> None:
    """Stopped for longer than the user timeout, it goes on later and gets every byte."""
    data = b"?" + os.urandom(size)
    flags = ["--access-log", "--health-check=off", f"--tcp-user-timeout={USER_TIMEOUT_S}s"]
    with contextlib.ExitStack() as stack:
        if side == "endpoint":
            process = stack.enter_context(reader())
            gateway = stack.enter_context(running(*flags, endpoints=[f"127.0.0.1:{said(process)}"]))
            sock = stack.enter_context(connect(gateway.address))
        else:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            port = listener.getsockname()[1]
            gateway = stack.enter_context(running(*flags, endpoints=[f"127.0.0.1:{port}"]))
            process = stack.enter_context(reader(gateway.port))
            sock = stack.enter_context(listener.accept()[0])
        sock.sendall(data[:1])
        assert said(process) == "began 1"
        process.send_signal(signal.SIGSTOP)
        sender = send_all(sock, data[1:])
        paused_at = time.monotonic()
        wait_until(lambda: time.monotonic() > paused_at + PAUSED_S)
        assert gateway.lines("session") == []
        process.send_signal(signal.SIGCONT)
        assert said(process) == f"{len(data)} {hashlib.sha256(data).hexdigest()}"
        sender.join(60)


@pytest.mark.parametrize("paused_s", [0.0, PAUSED_S], ids=["at once", "after a pause"])
def test_sessions_of_an_endpoint_that_vanished_with_full_buffers_end(
    namespaces: tuple[str, str], paused_s: float
) -> None:
    """It took no bytes any more, living at first; then it is gone, and the session ends in time."""
    near, far = namespaces
    listener = inside(far, lambda: socket.create_server((FAR, 0)))
    port = listener.getsockname()[1]
    flags = [
        "--access-log", "--health-check=off", f"--tcp-user-timeout={USER_TIMEOUT_S}s",
        f"--endpoints={FAR}:{port}",
    ]  # fmt: skip
    with contextlib.ExitStack() as stack:
        stack.enter_context(listener)
        gateway = stack.enter_context(Gateway(*flags, prefix=prefix(near)))
        gateway.wait_ready()
        client = inside(near, lambda: connect(gateway.address))
        stack.enter_context(client)
        stack.enter_context(listener.accept()[0])
        client.settimeout(0.5)
        with contextlib.suppress(TimeoutError):
            while True:
                client.sendall(bytes(1 << 16))
        full_at = time.monotonic()
        wait_until(lambda: time.monotonic() >= full_at + paused_s)
        assert gateway.lines("session") == []
        ip("-n", far, "addr", "del", f"{FAR}/24", "dev", "eth0")
        assert gateway.wait_line("session", 30)["end"] == "reset"
        client.settimeout(60)
        with pytest.raises(ConnectionResetError):
            client.recv(1)
