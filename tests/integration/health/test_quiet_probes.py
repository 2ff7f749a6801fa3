"""Probes that nobody sees, over a link between two hosts as over loopback."""

from __future__ import annotations

import asyncio
import socket

import pytest

from supervisor.system.connections import knock, open_socket
from tests.backends import Backend, greet
from tests.clients import connect, read_line
from tests.gateway import running
from tests.support import free_port, wait_until
from tests.wires import hosts, inside


def test_a_knock_over_a_wire_is_seen_by_nobody() -> None:
    """Between two hosts, 50 knocks: the kernel answers each, and the program accepts none."""

    async def visit() -> list[bool]:
        answers = []
        for _ in range(50):
            with inside(one, lambda: open_socket("10.77.0.2")) as sock:
                answers.append(await knock(sock, "10.77.0.2", 2379))
        return answers

    with hosts("10.77.0.1", "10.77.0.2") as (one, other):
        listener = inside(other, lambda: socket.create_server(("10.77.0.2", 2379)))
        with listener:
            assert asyncio.run(visit()) == [True] * 50
            listener.setblocking(False)
            with pytest.raises(BlockingIOError):
                listener.accept()


def test_a_gateway_that_probes_by_tcp_is_not_noticed() -> None:
    """A server sees its clients, and of a hundred probes nothing."""
    admin = f"127.0.0.1:{free_port()}"
    with Backend(greet, name="b") as backend:
        with running(
            f"--admin-addr={admin}",
            "--health-interval=10ms",
            "--health-idle-interval=10ms",
            endpoints=[backend.address],
            workers=1,
        ) as gateway:
            wait_until(lambda: probes(admin) >= 100, 60, "a hundred probes")
            assert backend.connections == 0
            with connect(gateway.address) as client:
                assert read_line(client) == "b"
            assert backend.connections == 1


def probes(admin: str) -> int:
    host, port = admin.split(":")
    with connect((host, int(port))) as sock:
        sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        text = b"".join(iter(lambda: sock.recv(65536), b"")).decode()
    lines = [line for line in text.splitlines() if line.startswith("etcd_gateway_probes_total{")]
    return sum(int(float(line.rpartition(" ")[2])) for line in lines if '"passed"' in line)
