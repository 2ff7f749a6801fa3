"""What the gateway says it did is what it did: to the session, to the byte, through every fault."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from supervisor.cli.admin_client import UnreachableError, fetch_status
from tests.backends import Backend, echo
from tests.clients import Address, connect, read_exactly
from tests.gateway import Gateway, run_command, running
from tests.integration.admin.test_server import get
from tests.support import free_port, wait_until

MESSAGE = b"x" * 1000


@contextlib.contextmanager
def observed(*flags: str, **options: Any) -> Iterator[tuple[Gateway, str]]:
    """A gateway that is ready, and its admin address."""
    admin = f"127.0.0.1:{free_port()}"
    with running(f"--admin-addr={admin}", *flags, **options) as gateway:
        gateway.wait_line("admin address is open")
        yield gateway, admin


def totals(admin: str) -> dict[str, int]:
    """The totals of the status document; none while the master changes its image."""
    try:
        found: dict[str, int] = fetch_status([admin])["totals"]
    except UnreachableError:
        return {}
    return found


def talk(address: Address, rounds: int = 1) -> None:
    """One session that sends so many messages and reads them back."""
    with connect(address) as client:
        for _ in range(rounds):
            client.sendall(MESSAGE)
            assert read_exactly(client, len(MESSAGE)) == MESSAGE


def expect(admin: str, sessions: int, moved: int, *, held: int = 0) -> None:
    """Wait until the totals are these, to the session and to the byte each way."""
    want = {
        "sessions": held,
        "sessions_total": sessions,
        "bytes_in": moved,
        "bytes_out": moved,
        "refused": 0,
    }
    try:
        wait_until(lambda: totals(admin) == want, what=f"totals {want}")
    except AssertionError:
        assert totals(admin) == want
        raise


def test_totals_are_exact_over_four_workers() -> None:
    """Sessions and bytes of a client of known size, in the document, the metrics and the log."""
    with (
        Backend(echo) as a,
        Backend(echo) as b,
        observed("--access-log", endpoints=[a.address, b.address], workers=4) as (gateway, admin),
    ):
        for number in range(40):
            talk(gateway.address, 1 + number % 3)
        moved = sum((1 + number % 3) * len(MESSAGE) for number in range(40))
        expect(admin, 40, moved)
        shares = [each["sessions_total"] for each in fetch_status([admin])["endpoints"]]
        assert sum(shares) == 40
        assert min(shares) >= 18  # each worker has a rotation of its own
        read: dict[str, float] = {}
        for family in parse(get(admin, "/metrics")[2].decode()):
            for sample in family.samples:
                key = sample.name + sample.labels.get("direction", "")
                read[key] = read.get(key, 0) + sample.value
        assert read["etcd_gateway_sessions_total"] == 40
        assert read["etcd_gateway_bytes_totalin"] == moved
        assert read["etcd_gateway_bytes_totalout"] == moved
        assert read["etcd_gateway_session_duration_seconds_count"] == 40
        assert read["etcd_gateway_sessions_ended_total"] == 40
        gateway.wait_line("session", count=40)
        sessions = gateway.lines("session")
        assert sum(line["bytes_in"] for line in sessions) == moved
        assert sum(line["bytes_out"] for line in sessions) == moved
        fields = {"client", "endpoint", "duration_s", "bytes_in", "bytes_out", "end", "slot", "gen"}
        assert all(fields <= line.keys() and line["end"] == "client" for line in sessions)


def test_nothing_goes_back_when_a_worker_is_killed() -> None:
    """What was reported before kill -9 stays counted, and the new worker's work is added."""
    with (
        Backend(echo) as backend,
        observed(endpoints=[backend.address], workers=4) as (gateway, admin),
    ):
        for _ in range(20):
            talk(gateway.address)
        expect(admin, 20, 20 * len(MESSAGE))
        for pid in gateway.workers():
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda pid=pid: pid not in gateway.workers())  # type: ignore[misc]
        gateway.wait_line("worker ready", count=8)
        expect(admin, 20, 20 * len(MESSAGE))
        for _ in range(20):
            talk(gateway.address)
        expect(admin, 40, 40 * len(MESSAGE))
        page = get(admin, "/metrics")[2].decode()
        assert 'etcd_gateway_worker_restarts_total{reason="exit"} 4.0' in page


def test_totals_survive_a_new_image_of_the_master() -> None:
    """After USR2 the counters go on, a session of an old worker included."""
    with (
        Backend(echo) as backend,
        observed(endpoints=[backend.address], workers=2) as (gateway, admin),
        connect(gateway.address) as long,
    ):
        long.sendall(MESSAGE)
        assert read_exactly(long, len(MESSAGE)) == MESSAGE
        for _ in range(10):
            talk(gateway.address)
        expect(admin, 11, 11 * len(MESSAGE), held=1)
        gateway.signal(signal.SIGUSR2)
        gateway.wait_line("admin address is open", count=2)
        expect(admin, 11, 11 * len(MESSAGE), held=1)
        for _ in range(10):
            talk(gateway.address)
        long.sendall(MESSAGE)
        assert read_exactly(long, len(MESSAGE)) == MESSAGE
        long.close()
        expect(admin, 21, 22 * len(MESSAGE))


def test_the_series_of_a_removed_endpoint_vanish(tmp_path: Path) -> None:
    """Gone from the metrics after its grace, still part of the totals."""
    config = tmp_path / "gateway.toml"
    with Backend(echo) as a, Backend(echo) as b:
        config.write_text(f'endpoints = ["{a.address}", "{b.address}"]\nremoval-grace = "100ms"\n')
        with observed(f"--config-file={config}", workers=2) as (gateway, admin):
            for _ in range(10):
                talk(gateway.address)
            expect(admin, 10, 10 * len(MESSAGE))
            assert b.address.encode() in get(admin, "/metrics")[2]
            config.write_text(config.read_text().replace(f', "{b.address}"', ""))
            done = run_command("reload", f"--admin-addr={admin}")
            assert (done.returncode, done.stdout) == (0, "reload complete\n")
            wait_until(
                lambda: f'endpoint="{b.address}"'.encode() not in get(admin, "/metrics")[2],
                what="series are gone",
            )
            expect(admin, 10, 10 * len(MESSAGE))
            workers = fetch_status([admin])["workers"]
            assert sum(each["sessions_total"] for each in workers) == 10


def test_the_commands_tell_how_a_real_gateway_is(tmp_path: Path) -> None:
    """status exits 0 and then 3, reload exits 1 with the reason, both find a unix socket."""
    config = tmp_path / "gateway.toml"
    path = tmp_path / "admin.sock"
    gone = free_port()
    config.write_text(f'endpoints = ["127.0.0.1:{gone}"]\nadmin-addr = "unix:{path}"\n')
    with Gateway(f"--config-file={config}", "--health-interval=200ms") as gateway:
        gateway.wait_ready().wait_line("admin address is open")
        find = f"--config-file={config}"
        gateway.wait_line("deactivated endpoint")
        wait_until(lambda: run_command("status", find).returncode == 3, what="degraded")
        assert "no endpoint is active" in run_command("status", find).stdout
        with socket.create_server(("127.0.0.1", gone)):
            wait_until(lambda: run_command("status", find).returncode == 0, what="ready")
        config.write_text(config.read_text() + 'bogus = "1"\n')
        failed = run_command("reload", f"--admin-addr=unix:{path}")
        assert failed.returncode == 1
        assert "bogus" in failed.stderr
    assert not path.exists()


def test_a_worker_that_hangs_is_seen() -> None:
    """In the log, in the document and by the status command; and that it goes on."""
    with (
        Backend(echo) as backend,
        observed(endpoints=[backend.address], workers=2) as (gateway, admin),
    ):
        victim = gateway.workers()[0]
        os.kill(victim, signal.SIGSTOP)
        try:
            assert gateway.wait_line("worker hangs")["pid"] == victim
            hangs = {each["pid"]: each["hangs"] for each in fetch_status([admin])["workers"]}
            assert hangs[victim]
            assert sum(hangs.values()) == 1
            shown = run_command("status", f"--admin-addr={admin}")
            assert (shown.returncode, "hangs" in shown.stdout) == (3, True)
            assert "discovery: the --endpoints list, nothing to look up\n" in shown.stdout
        finally:
            os.kill(victim, signal.SIGCONT)
        assert gateway.wait_line("worker recovered")["pid"] == victim


def test_usr1_writes_the_status_to_the_log_however_often() -> None:
    """Lines of bounded length for the whole, each worker and each endpoint."""
    with (
        Backend(echo) as backend,
        observed(endpoints=[backend.address], workers=2) as (gateway, admin),
    ):
        for count in range(1, 6):
            gateway.signal(signal.SIGUSR1)
            gateway.wait_line("status endpoint", count=count)
        assert len(gateway.lines("status worker")) == 10
        last = gateway.lines("status")[-1]
        assert (last["state"], last["slots"]) == ("ready", 2)
        assert "events" not in last
        assert len(get(admin, "/status")[2]) < 20_000


@pytest.mark.slow
def test_a_thousand_scrapes_and_a_hostile_client_leave_the_sessions_alone() -> None:
    """Resolution trips go on while the admin address is scraped and held open by silent clients."""
    with (
        Backend(echo) as backend,
        observed(endpoints=[backend.address], workers=2) as (gateway, admin),
        contextlib.ExitStack() as stack,
    ):
        client = stack.enter_context(connect(gateway.address))
        host, _, port = admin.rpartition(":")
        for _ in range(200):
            silent = stack.enter_context(connect((host, int(port))))
            silent.sendall(b"GET /metrics HTTP/1.1\r\n")
        worst = 0.0
        for _ in range(1000):
            assert get(admin, "/metrics")[0] == 200
            began = time.monotonic()
            client.sendall(MESSAGE)
            assert read_exactly(client, len(MESSAGE)) == MESSAGE
            worst = max(worst, time.monotonic() - began)
        expect(admin, 1, 1000 * len(MESSAGE), held=1)
        assert not gateway.lines("killing worker"), worst


def test_an_admin_address_that_cannot_be_had_ends_the_start() -> None:
    """Exit code 1 and one clear line, before any client saw the gateway."""
    done = run_command(
        "start",
        "--endpoints=127.0.0.1:1",
        f"--listen-addr=127.0.0.1:{free_port()}",
        "--admin-addr=unix:/nonexistent/admin.sock",
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "unix:/nonexistent/admin.sock: there is no directory /nonexistent" in done.stderr


def test_a_gateway_that_waits_for_dns_can_be_asked() -> None:
    """While nothing answers at the start: alive, not ready, starting, and how many workers there
    are to be; a reload has its turn."""
    admin = f"127.0.0.1:{free_port()}"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        nameserver = f"--nameserver=127.0.0.1:{silent.getsockname()[1]}"
        find = f"--admin-addr={admin}"
        with Gateway("--discovery-srv=example.com", nameserver, find, "--workers=3") as gateway:
            gateway.wait_line("admin address is open")
            found = fetch_status([admin])
            assert (found["limits"]["workers"], found["slots"]) == (3, 3)
            assert get(admin, "/livez")[0] == 200
            code, _, why = get(admin, "/readyz")
            assert (code, b"starting" in why) == (503, True)
            assert fetch_status([admin])["state"] == "starting"
            assert run_command("status", find).returncode == 3
            reload = run_command("reload", find)
            assert (reload.returncode, reload.stdout) == (0, "reload complete\n")
            assert fetch_status([admin])["state"] == "starting"
