"""A gateway with few descriptors: neither probes nor admin clients use those that workers need."""

from __future__ import annotations

import contextlib
import os
import signal
import socket

from supervisor.cli.admin_client import fetch_status
from tests.backends import Backend, greet
from tests.gateway import running
from tests.support import free_port, wait_until

FEW = ["prlimit", "--nofile=64:64", "--"]
"""Enough for two workers, and 18 more."""


def test_hundreds_of_endpoints_are_probed_with_what_is_left() -> None:
    """No worker is taken for a broken one, every endpoint is probed, the admin address answers."""
    admin = f"127.0.0.1:{free_port()}"
    with Backend(greet, host="0.0.0.0") as backend:
        names = [f"127.1.{n // 200}.{n % 200 + 1}:{backend.port}" for n in range(300)]
        with running(f"--admin-addr={admin}", endpoints=names, prefix=FEW) as gateway:
            gateway.wait_line("admin address is open")
            wait_until(lambda: backend.connections >= 300, 30, "all were probed")
            for msg in ("worker breaks the protocol", "cannot probe", "internal error"):
                assert gateway.lines(msg) == []
            assert fetch_status([admin])["state"] == "ready"


def test_idle_admin_clients_leave_descriptors_for_workers() -> None:
    """More of them than there are descriptors, and a worker that dies is replaced."""
    admin = f"127.0.0.1:{free_port()}"
    with (
        Backend(greet) as backend,
        running(f"--admin-addr={admin}", endpoints=[backend.address], prefix=FEW) as gateway,
        contextlib.ExitStack() as stack,
    ):
        gateway.wait_line("admin address is open")
        host, _, port = admin.rpartition(":")
        for _ in range(80):
            stack.enter_context(socket.create_connection((host, int(port)), 5))
        os.kill(gateway.workers()[0], signal.SIGKILL)
        gateway.wait_line("worker ready", count=3)
        assert gateway.lines("cannot start worker") == []
        assert gateway.lines("worker breaks the protocol") == []
