"""A worker that is busy with bulk flows serves everybody else, and is not taken for a hung one."""

from __future__ import annotations

import socket
import threading

import pytest

from supervisor.cli.admin_client import fetch_status
from tests.clients import connect
from tests.gateway import running
from tests.servers import serving
from tests.support import free_port

BULK_SESSIONS = 24
BULK_BYTES = 16 << 20
CHUNK = bytes(1 << 20)


def talk(conn: socket.socket) -> None:
    """Send BULK_BYTES to who asks for bulk, and echo everything else."""
    conn.settimeout(60)
    first = conn.recv(100)
    if first == b"bulk":
        for _ in range(BULK_BYTES // len(CHUNK)):
            conn.sendall(CHUNK)
    else:
        while first:
            conn.sendall(first)
            first = conn.recv(100)


@pytest.mark.own_cpu
def test_bulk_flows_do_not_make_a_worker_look_hung() -> None:
    """While they run, a small session gets its answers and the gateway stays ready."""
    admin = f"127.0.0.1:{free_port()}"
    received: list[int] = []
    with serving(talk) as server:
        flags = ("--health-check=off", f"--admin-addr={admin}")
        with running(*flags, endpoints=[f"127.0.0.1:{server.port}"], workers=1) as gateway:
            gateway.wait_line("admin address is open")

            def download() -> None:
                buffer = bytearray(1 << 20)
                with connect(gateway.address, 60) as sock:
                    sock.sendall(b"bulk")
                    count = 0
                    while count < BULK_BYTES and (size := sock.recv_into(buffer)):
                        count += size
                    received.append(count)

            threads = [threading.Thread(target=download, daemon=True) for _ in range(BULK_SESSIONS)]
            for thread in threads:
                thread.start()
            asked, reasons = 0, set[str]()
            with connect(gateway.address, 60) as small:
                while any(thread.is_alive() for thread in threads):
                    small.sendall(b"ping")
                    assert small.recv(100) == b"ping"
                    asked += 1
                    reasons.update(fetch_status([admin])["unready"])
            for thread in threads:
                thread.join(60)
            assert received == [BULK_BYTES] * BULK_SESSIONS
            assert asked
            assert reasons == set()
            assert not gateway.lines("worker hangs")
