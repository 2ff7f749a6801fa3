"""A gateway with few descriptors: neither probes nor admin clients use those that workers need."""

from __future__ import annotations

import contextlib
import os
import re
import signal

from supervisor.cli.admin_client import fetch_status
from tests.backends import Backend, greet
from tests.clients import connect
from tests.dns import NameServer
from tests.gateway import fetch_metrics, running
from tests.support import free_port, wait_until

FEW = ["prlimit", "--nofile=64:64", "--"]
"""Enough for two workers, and 18 more."""


def count_probed(admin: str) -> int:
    """How many endpoints passed a probe; 0 if the answer took longer than a connection may last."""
    try:
        text = fetch_metrics(admin)
    except ConnectionError:
        return 0
    passed = re.findall(
        r'^etcd_gateway_probes_total\{.*result="passed"\} (.*)$', text, re.MULTILINE
    )
    return sum(float(count) > 0 for count in passed)


def test_hundreds_of_endpoints_are_probed_with_what_is_left() -> None:
    """No worker is taken for a broken one, every endpoint is probed, the admin address answers."""
    admin = f"127.0.0.1:{free_port()}"
    with Backend(greet, host="0.0.0.0") as backend:
        names = [f"127.1.{n // 200}.{n % 200 + 1}:{backend.port}" for n in range(300)]
        with running(f"--admin-addr={admin}", endpoints=names, prefix=FEW) as gateway:
            gateway.wait_line("admin address is open")
            wait_until(lambda: count_probed(admin) == 300, 60, "all were probed")
            for msg in ("worker breaks the protocol", "cannot probe", "internal error"):
                assert gateway.lines(msg) == []
            assert fetch_status([admin])["state"] == "ready"


def test_hundreds_of_names_are_looked_up_with_what_is_left() -> None:
    """Each name resolves, each endpoint is probed, and a worker that dies meanwhile is replaced."""
    admin = f"127.0.0.1:{free_port()}"
    with NameServer() as ns, Backend(greet, host="0.0.0.0") as backend:
        for n in range(300):
            ns.set(f"n{n}.test", "A", f"127.1.{n // 200}.{n % 200 + 1}", ttl=300)
        names = [f"n{n}.test:{backend.port}" for n in range(300)]
        flags = (f"--admin-addr={admin}", f"--nameserver={ns.address}")
        with running(*flags, endpoints=names, prefix=FEW) as gateway:
            gateway.wait_line("admin address is open")
            wait_until(lambda: count_probed(admin) == 300, 60, "all were probed")
            gateway.signal(signal.SIGHUP)
            os.kill(gateway.workers()[0], signal.SIGKILL)
            gateway.wait_line("worker ready", count=3)
            gateway.wait_line("reload complete", 60)
            assert fetch_status([admin])["discovery"]["last_error"] is None
            for msg in ("worker breaks the protocol", "cannot start worker", "internal error"):
                assert gateway.lines(msg) == []


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
            stack.enter_context(connect((host, int(port))))
        os.kill(gateway.workers()[0], signal.SIGKILL)
        gateway.wait_line("worker ready", count=3)
        assert gateway.lines("cannot start worker") == []
        assert gateway.lines("worker breaks the protocol") == []


def test_ttin_adds_no_worker_that_the_open_files_do_not_allow() -> None:
    """Slots without a worker would take what the others need, and the gateway were degraded."""
    admin = f"127.0.0.1:{free_port()}"
    with Backend(greet) as backend:
        flags = {"endpoints": [backend.address], "prefix": FEW}
        with running(f"--admin-addr={admin}", **flags) as gateway:
            gateway.wait_line("admin address is open")
            for count in (1, 2):
                gateway.signal(signal.SIGTTIN)
                gateway.wait_line("number of workers changed", count=count)
            gateway.signal(signal.SIGTTIN)
            refused = gateway.wait_line("number of workers unchanged")
            assert refused["workers"] == 4
            assert "expected at least 67 for 5 workers" in refused["reason"]
            wait_until(lambda: fetch_status([admin])["state"] == "ready", 20)
