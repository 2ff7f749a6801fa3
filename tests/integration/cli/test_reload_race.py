"""The command ``reload`` reports the reload that read the configuration as it is now."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from supervisor.cli.admin_client import fetch_status
from supervisor.cli.reload import await_master, has_ended
from tests.backends import Backend, echo
from tests.dns import Fault, NameServer
from tests.gateway import run_command, running
from tests.servers import greet, serving
from tests.support import free_port, wait_until


@pytest.mark.slow
def test_a_reload_under_way_is_not_taken_for_ours(tmp_path: Path) -> None:
    """A mistake that was written after the first reload began is reported, and not "complete"."""
    admin = f"127.0.0.1:{free_port()}"
    config = tmp_path / "gateway.toml"
    with NameServer() as ns, serving(greet) as backend:
        ns.set("_x._tcp.r.test", "SRV", f"0 0 {backend.port} m.r.test.", ttl=300)
        ns.set("m.r.test", "A", "127.0.0.1", ttl=300)
        good = (
            'discovery-srv = "_x._tcp.r.test"\ninsecure-discovery = true\n'
            f'nameserver = "{ns.address}"\nadmin-addr = "{admin}"\n'
        )
        config.write_text(good)
        with running(f"--config-file={config}") as gateway:
            gateway.wait_line("admin address is open")
            assert run_command("reload", f"--admin-addr={admin}").returncode == 0
            assert fetch_status([admin])["reload"]["number"] == 1
            ns.faults[""] = Fault.TIMEOUT
            gateway.signal(signal.SIGHUP)
            wait_until(lambda: fetch_status([admin])["reload"]["under_way"])
            config.write_text(good + 'dial-timeout = "2 parsecs"\n')
            done = run_command("reload", f"--admin-addr={admin}", timeout_s=60)
            assert done.returncode == 1
            assert "2 parsecs" in done.stderr
            reload = fetch_status([admin])["reload"]
            assert (reload["number"], reload["last_result"]) == (3, "failed")


def test_a_reload_during_an_upgrade_is_not_lost() -> None:
    """SIGHUP while the image changes: the next image reloads when its start is over."""
    with Backend(echo) as backend, running(endpoints=[backend.address]) as gateway:
        gateway.signal(signal.SIGUSR2)
        gateway.wait_line("upgrading")
        gateway.signal(signal.SIGHUP)
        gateway.wait_line("ready to proxy client requests", count=2)
        gateway.wait_line("reload complete")


def test_the_end_of_a_reload_is_seen_in_the_status_of_every_release() -> None:
    """Early ones did not number reloads, and run on where the package was replaced."""
    never, old = {"last_at": None}, {"last_at": "2026-11-22T21:12:00Z"}
    new = {"last_at": "2026-11-25T22:06:00Z", "number": 1, "under_way": False}
    assert not has_ended(old, old)
    assert has_ended(old, never)
    assert has_ended(new, old), "an upgrade in place was over meanwhile"
    assert not has_ended(new, new)
    assert has_ended(new | {"number": 2}, new)
    assert not has_ended(new | {"number": 2}, new | {"under_way": True})


BEGINS = """
import setproctitle, sys
sys.stdin.readline()
setproctitle.setproctitle("etcd-gateway: master [127.0.0.1:1]")
sys.stdin.readline()
"""


def test_a_master_that_executes_its_next_image_is_waited_for() -> None:
    """Until that has begun, the process has the interpreter's name; another program is refused."""
    argv = [sys.executable, "-c", BEGINS, "/usr/local/bin/etcd-gateway", "start"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE) as image:
        assert image.stdin is not None
        assert not await_master(image.pid, 0.0)
        image.stdin.write(b"\n")
        image.stdin.flush()
        assert await_master(image.pid, 60.0)
        image.stdin.close()
    with subprocess.Popen(["sleep", "60"]) as another:
        assert not await_master(another.pid, 60.0)
        another.kill()
    assert not await_master(another.pid, 60.0), "it is gone"
