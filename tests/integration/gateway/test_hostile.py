"""Hostile clients: a good client gets every byte meanwhile, and nothing of them is left.

The measurements beside HAProxy and nginx are ``make bench BENCH="--only hostile-*"``.
"""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from supervisor.cli.admin_client import fetch_status
from tests.backends import Backend
from tests.benchmarks.hostile import ABUSES, Abuse, build
from tests.clients import connect, read_exactly
from tests.gateway import Gateway, running
from tests.long_tests import LONG
from tests.support import free_port, wait_until

ROUNDS = 20

COUNT = 300 if LONG else 100
"""Hostile connections at a time."""

RATE = 200
"""Hostile connections, or bytes, a second: more of them is what the endpoint, a thread of the test,
could not bear."""

BULK = bytes(1 << 16)

pytestmark = [
    pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler"),
    pytest.mark.timeout(180),
]


async def serve(
    _backend: Backend, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Bulk for who asks for bulk, an echo for everybody else."""
    data = await reader.read(65_536)
    if data.startswith(b"GET /bulk"):
        # Megabytes in the kernel's buffers for each of hundreds of clients cost the CPU of seconds.
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
        for _ in range(1024):
            writer.write(BULK)
            await writer.drain()
    while data:
        writer.write(data)
        await writer.drain()
        data = await reader.read(65_536)


def ask(sock: socket.socket, number: int) -> None:
    data = f"{number:08d}".encode() * 512
    sock.sendall(data)
    assert read_exactly(sock, len(data)) == data


@pytest.mark.parametrize("abuse", ABUSES, ids=[each.kind for each in ABUSES])
def test_a_good_client_is_served_meanwhile(abuse: Abuse, tmp_path: Path) -> None:
    """Over a session from before and over new ones; afterwards all sessions have ended."""
    admin = f"127.0.0.1:{free_port()}"
    flags = [f"--admin-addr={admin}", "--health-check=off", "--keepalive-time=1s"]
    flags += ["--keepalive-interval=1s", "--tcp-user-timeout=5s"]
    program = str(build(tmp_path))
    with (
        Backend(serve) as backend,
        running(*flags, endpoints=[backend.address]) as gateway,
        connect(gateway.address) as old,
    ):
        count = min(abuse.count, COUNT)
        numbers = [str(gateway.port), abuse.kind, str(count), str(min(abuse.per_s, RATE))]
        with subprocess.Popen([program, *numbers], stdout=subprocess.PIPE, text=True) as hostile:
            try:
                assert hostile.stdout is not None
                assert hostile.stdout.readline() == "ready\n"
                for number in range(ROUNDS):
                    ask(old, number)
                    with connect(gateway.address) as new:
                        ask(new, number)
            finally:
                hostile.kill()
        wait_until(lambda: left(admin) == 1, 40, "their sessions have ended")
        ask(old, ROUNDS)
        check_log(gateway)


def left(admin: str) -> int:
    return int(fetch_status([admin])["totals"]["sessions"])


def check_log(gateway: Gateway) -> None:
    wrong = ("internal error", "session failed", "accepting failed", "clients lost")
    assert [line for line in gateway.lines() if line["msg"] in wrong] == []
    assert gateway.lines("worker exited") == []
