"""Sessions of a peer that is gone without a word: two network namespaces, one goes dark."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator

import pytest

from tests.gateway import Gateway
from tests.servers import Server, serving
from tests.support import wait_until

CLONE_NEWNET = 0x40000000
NEAR, FAR = "10.77.0.1", "10.77.0.2"


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def inside(namespace: str, make: Callable[[], socket.socket]) -> socket.socket:
    """A socket made in the namespace; it stays there, whoever uses it."""
    made: list[socket.socket] = []

    def enter() -> None:
        with open(f"/run/netns/{namespace}", "rb") as file:
            if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
        made.append(make())

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    return made[0]


@pytest.fixture
def namespaces() -> Iterator[tuple[str, str]]:
    """The gateway's and the endpoint's, joined by a cable."""
    near, far = f"gw-near-{os.getpid()}", f"gw-far-{os.getpid()}"
    try:
        ip("netns", "add", near)
    except (subprocess.CalledProcessError, FileNotFoundError):
        pytest.skip("needs root and ip(8)")
    try:
        ip("netns", "add", far)
        ip("-n", near, "link", "add", "near", "type", "veth", "peer", "name", "far", "netns", far)
        for namespace, name, address in ((near, "near", NEAR), (far, "far", FAR)):
            ip("-n", namespace, "link", "set", "lo", "up")
            ip("-n", namespace, "addr", "add", f"{address}/24", "dev", name)
            ip("-n", namespace, "link", "set", name, "up")
        yield near, far
    finally:
        for namespace in (near, far):
            with contextlib.suppress(subprocess.CalledProcessError):
                ip("netns", "del", namespace)


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
        gateway = stack.enter_context(Gateway(*flags, prefix=["ip", "netns", "exec", near]))
        gateway.wait_ready()
        client = inside(near, lambda: socket.create_connection(gateway.address, 5))
        stack.enter_context(client)
        client.sendall(b"?")
        assert client.recv(1) == b"?"
        wait_until(lambda: server.open >= 1)
        ip("-n", far, "addr", "del", f"{FAR}/24", "dev", "far")  # received, but nobody's
        if talking:
            client.sendall(b"?")
        client.settimeout(10)
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(1) == b""
        line = gateway.wait_line("session")
        assert line["end"] == "reset"
        assert gateway.wait_line("deactivated endpoint")["endpoint"] == f"{FAR}:{port}"
