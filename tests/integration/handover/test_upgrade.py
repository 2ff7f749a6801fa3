"""USR2 and the master's death under hostile handles."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
import urllib.request
from pathlib import Path

from tests.backends import Backend, echo
from tests.clients import connect, talk
from tests.gateway import Gateway, running
from tests.support import PATIENCE, free_port, wait_until
from tests.tls import Authority, Server


def command_line(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def zombies(gateway: Gateway) -> list[int]:
    stats = {pid: Path(f"/proc/{pid}/stat").read_text() for pid in gateway.workers()}
    return [pid for pid, stat in stats.items() if stat.rpartition(")")[2].split()[0] == "Z"]


def test_usr2_three_times_at_once_is_one_upgrade() -> None:
    """Nothing is left of the others, and sessions live."""
    with (
        Backend(echo) as backend,
        running(endpoints=[backend.address]) as gateway,
        connect(gateway.address) as session,
    ):
        talk(session)
        workers = gateway.workers()
        gateway.signal(signal.SIGUSR2)
        wait_until(lambda: set(gateway.workers()) - set(workers), what="the new image is tried")
        [trial] = set(gateway.workers()) - set(workers)
        # Stopped before it executes anything, it would hold the master in vfork(2).
        wait_until(lambda: command_line(trial) != command_line(gateway.pid))
        os.kill(trial, signal.SIGSTOP)
        for count in (1, 2):
            gateway.signal(signal.SIGUSR2)
            gateway.wait_line("no upgrade now", count=count)
        os.kill(trial, signal.SIGCONT)
        gateway.wait_line("ready to proxy client requests", count=2)
        wait_until(lambda: zombies(gateway) == [])
        talk(session)
        gateway.wait_line("worker ready", count=4)
        assert len(gateway.lines("upgrading")) == 1
        assert {line["reason"] for line in gateway.lines("no upgrade now")} == {"one is on"}


def test_upgrades_cut_no_handshake_with_a_member(tmp_path: Path) -> None:
    """etcd logs each handshake that breaks off; member sync is nearly always in one here."""
    authority = Authority(tmp_path)
    context = authority.context("127.0.0.1")
    ended: list[bytes] = []
    cut: list[OSError] = []

    def slow(sock: socket.socket) -> None:
        threading.Event().wait(0.3)
        try:
            with context.wrap_socket(sock, server_side=True) as tls:
                ended.append(tls.recv(1))
        except OSError as error:
            cut.append(error)

    with (
        Server(slow) as member,
        running(
            "--member-sync=100ms",
            "--health-check=off",
            f"--trusted-ca-file={authority.file}",
            endpoints=[f"https://127.0.0.1:{member.port}"],
        ) as gateway,
    ):
        for count in (2, 3, 4):
            ended.clear()
            wait_until(lambda: ended, what="a member is asked")
            gateway.signal(signal.SIGUSR2)
            gateway.wait_line("ready to proxy client requests", count=count)
    assert cut == []


def test_the_status_page_goes_on_after_usr2() -> None:
    """The next image shows the log lines of the one before, and its own after them."""
    admin = free_port()
    with running(f"--admin-addr=127.0.0.1:{admin}") as gateway:
        gateway.signal(signal.SIGUSR2)
        gateway.wait_line("ready to proxy client requests", count=2)
        gateway.wait_line("admin address is open", count=2)
        with urllib.request.urlopen(
            f"http://127.0.0.1:{admin}/status", timeout=20 * PATIENCE
        ) as answer:
            shown = [event["msg"] for event in json.load(answer)["events"]]
        assert shown.count("ready to proxy client requests") == 2
        assert shown.index("upgrading") < len(shown) - 1


def test_term_on_the_heels_of_usr2_drains_the_gateway() -> None:
    """Whichever image hears of it."""
    for again in range(3):
        with (
            Backend(echo) as backend,
            running("--drain-timeout=1m", endpoints=[backend.address]) as gateway,
        ):
            with connect(gateway.address) as session:
                talk(session)
                gateway.signal(signal.SIGUSR2)
                if again:
                    gateway.wait_line("upgrading")
                gateway.signal(signal.SIGTERM)
                gateway.wait_line("draining")
                talk(session)
            assert gateway.process.wait(60) == 0
            assert [line["sessions_cut"] for line in gateway.lines("drained")] == [0]
            assert gateway.lines("internal error") == []


def test_a_new_image_that_does_not_start_leaves_the_old_one(tmp_path: Path) -> None:
    """Its configuration is tried before anything is given up."""
    config = tmp_path / "gateway.toml"
    config.write_text('drain-timeout = "1s"\n')
    with running(f"--config-file={config}") as gateway:
        workers = gateway.workers()
        config.write_text("nonsense = 1\n")
        gateway.signal(signal.SIGUSR2)
        # Beside the log line, the new image says on standard error what is wrong.
        wait_until(lambda: "upgrade failed, the old image goes on" in gateway.text())
        assert "nonsense" in gateway.text()
        assert gateway.workers() == workers


def test_orphans_are_idle() -> None:
    """Workers whose master and peers are gone wait for their last session without a turn."""
    with (
        Backend(echo) as backend,
        running("--drain-timeout=60s", endpoints=[backend.address]) as gateway,
        connect(gateway.address) as session,
    ):
        talk(session)
        workers = gateway.workers()
        gateway.process.kill()
        gateway.process.wait(60)
        wait_until(lambda: sum(Path(f"/proc/{pid}").exists() for pid in workers) == 1)
        [last] = [pid for pid in workers if Path(f"/proc/{pid}").exists()]
        talk(session)
        before = cpu_ticks(last)
        time.sleep(1.0)
        assert cpu_ticks(last) - before < 50
        talk(session)


def cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
