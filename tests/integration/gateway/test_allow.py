"""Who may come, and from which address endpoints are dialed: a whole gateway, and its reload."""

from __future__ import annotations

import signal
import socket
import urllib.request
from pathlib import Path

import pytest

from supervisor.cli.admin_client import fetch_status
from supervisor.core.exit_codes import EXIT_FAILURE
from tests.gateway import Gateway, all_know, run_command, running
from tests.servers import greet, serving
from tests.support import PATIENCE, free_port, wait_until


def greeted(gateway: Gateway, source: str) -> bool:
    """Whether a client with this address reaches the endpoint; False: it was reset."""
    try:
        with socket.create_connection(gateway.address, 10, (source, 0)) as client:
            return client.recv(3) == b"220"
    except ConnectionResetError:
        return False


def metrics_of(admin: str) -> str:
    with urllib.request.urlopen(f"http://{admin}/metrics", timeout=20 * PATIENCE) as page:
        return str(page.read().decode())


def test_allow(tmp_path: Path) -> None:
    """Others are closed without a dial, counted and told of; a reload is for new clients."""
    admin = f"127.0.0.1:{free_port()}"
    config = tmp_path / "gateway.toml"
    config.write_text('allow = ["127.0.0.0/24"]\n')
    flags = (f"--config-file={config}", f"--admin-addr={admin}", "--access-log")
    with (
        serving(greet) as server,
        running(*flags, endpoints=[f"127.0.0.1:{server.port}"]) as gateway,
        socket.create_connection(gateway.address, 10, ("127.0.0.9", 0)) as before,
    ):
        assert before.recv(3) == b"220"
        accepted = server.accepted
        for _ in range(20):
            assert not greeted(gateway, "127.0.1.9")
        assert server.accepted == accepted
        line = gateway.wait_line("clients denied")
        assert line["last"].startswith("127.0.1.9:")
        assert 1 <= line["clients"] <= 20
        wait_until(lambda: len(gateway.lines("session")) == 20)
        for session in gateway.lines("session"):
            assert (session["end"], session["endpoint"]) == ("denied", "")
            assert session["client"].startswith("127.0.1.9:")
        metric = 'etcd_gateway_sessions_ended_total{endpoint="",reason="denied"} 20.0'
        wait_until(lambda: metric in metrics_of(admin))
        assert len(gateway.lines("clients denied")) == 1

        version = fetch_status([admin])["snapshot_version"]
        config.write_text('allow = ["127.0.1.0/24"]\n')
        gateway.signal(signal.SIGHUP)
        gateway.wait_line("reload complete")
        wait_until(lambda: all_know(admin, version))
        assert greeted(gateway, "127.0.1.9")
        assert not greeted(gateway, "127.0.0.9")
        assert before.recv(1000)


def test_source_address(tmp_path: Path) -> None:
    """Sessions and probes come from it; one of another host fails the start, or the reload."""
    seen: set[str] = set()

    def note(conn: socket.socket) -> None:
        seen.add(conn.getpeername()[0])
        conn.sendall(b"220")

    config = tmp_path / "gateway.toml"
    config.write_text('source-addr = ["127.0.0.7"]\n')
    flags = (f"--config-file={config}", "--health-check=http", "--health-interval=50ms")
    with (
        serving(note) as server,
        running(*flags, endpoints=[f"127.0.0.1:{server.port}"]) as gateway,
    ):
        assert greeted(gateway, "127.0.0.1")
        wait_until(lambda: server.accepted >= 3)
        assert seen == {"127.0.0.7"}
        config.write_text('source-addr = ["192.0.2.99"]\n')
        gateway.signal(signal.SIGHUP)
        line = gateway.wait_line("reload failed")
        assert "--source-addr 192.0.2.99: no address of this host" in line["error"]
        assert greeted(gateway, "127.0.0.1")
        assert seen == {"127.0.0.7"}
        gateway.signal(signal.SIGUSR2)
        assert "192.0.2.99" in gateway.wait_line("upgrade failed, the old image goes on")["error"]
        config.write_text('source-addr = ["127.0.0.8"]\n')
        gateway.signal(signal.SIGHUP)
        gateway.wait_line("reload complete")
        wait_until(lambda: "127.0.0.8" in seen)


@pytest.mark.parametrize("command", ["start", "check"])
def test_a_source_address_of_another_host(command: str) -> None:
    """The command ends with 1, and its last line says why."""
    done = run_command(
        command, "--source-addr=192.0.2.99", "--endpoints=127.0.0.1:9",
        f"--listen-addr=127.0.0.1:{free_port()}",
    )  # fmt: skip
    assert done.returncode == EXIT_FAILURE
    assert "--source-addr 192.0.2.99: no address of this host" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
