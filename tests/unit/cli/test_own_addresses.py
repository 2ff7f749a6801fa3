"""Whose the gateway's own addresses are, when they are not free."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from pathlib import Path

from gateway.core.address import HostPort
from supervisor.cli.own_addresses import Availability, try_listen
from tests.support import wait_until


def test_the_master_is_named_though_a_worker_is_older() -> None:
    """After a crash the workers of before go on beside the next master."""
    titles = ["etcd-gateway: worker 0 [x]", "etcd-gateway: master [x]", "etcd-gateway: worker 1"]
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        processes = []
        for title in titles:
            process = subprocess.Popen(
                ["bash", "-c", 'exec -a "$0" sleep 600', title], pass_fds=[listener.fileno()]
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            shown = Path(f"/proc/{process.pid}/cmdline")
            wait_until(lambda t=title, s=shown: s.read_bytes().startswith(t.encode()), 20)  # type: ignore[misc]
            processes.append(process)
        found = try_listen("listen-addr", HostPort("127.0.0.1", listener.getsockname()[1]))
        assert (found.availability, found.pid) == (Availability.RUNNING, processes[1].pid)
