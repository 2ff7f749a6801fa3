"""A UNIX socket as the listen address: shared by the workers, with the promises of the others."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.cli.admin_client import fetch_status
from tests.backends import Backend, echo
from tests.clients import talk
from tests.gateway import READY, Gateway, run_command, running
from tests.support import PATIENCE, free_port, wait_until
from tests.unix_clients import Load, connect


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "gateway.sock")


@pytest.fixture
def backend() -> Iterator[Backend]:
    with Backend(echo) as server:
        yield server


def sessions_total(admin: int) -> int:
    document = fetch_status([f"127.0.0.1:{admin}"])
    return int(sum(worker["sessions_total"] for worker in document["workers"]))


def test_unix_and_tcp_in_one_process(path: str, backend: Backend) -> None:
    """Both kinds of clients reach both kinds of endpoints; names are what was configured."""
    port = free_port()
    with (
        Backend(echo, path=f"{path}.backend") as local,
        running(
            "--access-log",
            listen=f"unix:{path},mode=0600,127.0.0.1:{port},unix:@{path[1:]}",
            endpoints=[local.address, backend.address],
        ) as gateway,
    ):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        ready = gateway.wait_line(READY)
        assert ready["listen"] == [f"unix:{path}", f"127.0.0.1:{port}", f"unix:@{path[1:]}"]
        for _ in range(4):
            for address in (path, f"@{path[1:]}"):
                with connect(address) as client:
                    talk(client, b"x" * 200_000)
            with socket.create_connection(("127.0.0.1", port), 20 * PATIENCE) as client:
                talk(client)
        gateway.wait_line("session", count=12)
        lines = gateway.lines("session")
        assert {line["endpoint"] for line in lines} == {local.address, backend.address}
        clients = {line["client"] for line in lines if line["client"].startswith("unix:")}
        assert clients == {f"unix:pid={os.getpid()},uid={os.getuid()}"}
        assert gateway.stop() == 0
    assert not os.path.exists(path)
    assert not os.path.exists(f"{path}.lock")


def test_a_second_gateway_and_a_stale_file(path: str, backend: Backend) -> None:
    """A socket that is served is refused with exit 1; one that a killed gateway left is taken."""
    with running(listen=f"unix:{path}", endpoints=[backend.address]) as first:
        second = run_command("start", f"--listen-addr=unix:{path}", "--log-format=json")
        assert second.returncode == 1
        assert second.stderr.splitlines()[-1].endswith(
            f"cannot listen on unix:{path}: Address already in use; "
            'expected in --listen-addr an address at which the gateway can listen"}'
        )
        with connect(path) as client:
            talk(client)
        checked = run_command(
            "check", f"--listen-addr=unix:{path}", f"--endpoints={backend.address}"
        )
        assert f"in use by the running gateway, pid {first.pid}" in checked.stdout
        first.process.kill()
        first.process.wait()
        left = first.lines("worker ready")
        wait_until(lambda: not any(os.path.exists(f"/proc/{line['pid']}") for line in left), 20)
    assert os.path.exists(path)
    with running(listen=f"unix:{path}", endpoints=[backend.address]), connect(path) as client:
        talk(client)


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("unix:/no/such/directory/s", "there is no directory /no/such/directory"),
        ("unix:/etc/passwd", "the file exists and is not a socket"),
        ("unix:/tmp/s,group=no-such-group", "there is no group no-such-group"),
    ],
)
def test_what_cannot_be_listened_on(where: str, said: str, backend: Backend) -> None:
    """The last line says why, and check says the same."""
    flags = (f"--listen-addr={where}", f"--endpoints={backend.address}")
    started = run_command("start", "--log-format=json", *flags)
    assert started.returncode == 1
    assert said in started.stderr.splitlines()[-1]
    checked = run_command("check", *flags)
    assert checked.returncode == 1
    assert said in checked.stderr
    assert "Traceback" not in started.stderr + checked.stderr


def test_the_own_address_as_an_endpoint(path: str) -> None:
    """By whatever name: exit 2."""
    link = Path(path).with_name("link")
    link.symlink_to(Path(path).parent)
    for name in (path, str(link / "gateway.sock")):
        for command in ("start", "check"):
            ended = run_command(command, f"--listen-addr=unix:{path}", f"--endpoints=unix:{name}")
            assert ended.returncode == 2
            assert f"is the gateway's own listen address unix:{path}" in ended.stderr


def test_a_killed_worker_loses_no_client_that_waits(path: str, backend: Backend) -> None:
    """What is queued is accepted by whoever lives; while all hang, it waits."""
    with running(listen=f"unix:{path}", endpoints=[backend.address], workers=3) as gateway:
        workers = gateway.workers()
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)
        clients = [connect(path, 20) for _ in range(20)]
        for pid in workers[:2]:
            os.kill(pid, signal.SIGKILL)
        gateway.wait_line("worker exited", count=2)
        for client in clients:
            talk(client)
            client.close()
        os.kill(workers[2], signal.SIGCONT)
        gateway.wait_line("worker ready", count=5)


def test_nothing_is_lost_while_workers_come_and_go(path: str, backend: Backend) -> None:
    """TTOU, TTIN and USR2 under load."""
    with running(listen=f"unix:{path}", endpoints=[backend.address], workers=3) as gateway:
        made = os.stat(path).st_ino
        with Load(path) as load:
            for count, number in enumerate((signal.SIGTTOU, signal.SIGTTOU, signal.SIGTTIN), 1):
                gateway.signal(number)
                gateway.wait_line("number of workers changed", count=count)
                served = load.served
                wait_until(lambda served=served: load.served > served + 20, 20)  # type: ignore[misc]
            for count in (2, 3):
                gateway.signal(signal.SIGUSR2)
                gateway.wait_line(READY, 40, count=count)
                served = load.served
                wait_until(lambda served=served: load.served > served + 20, 20)  # type: ignore[misc]
        assert load.lost == []
        assert os.stat(path).st_ino == made
        assert gateway.stop() == 0
    assert not os.path.exists(path)


def test_an_upgrade_to_another_mode(path: str, tmp_path: Path, backend: Backend) -> None:
    """The socket stays, and its file gets the mode of the new configuration; not by a reload."""
    config = tmp_path / "gateway.toml"
    config.write_text(f'listen-addr = "unix:{path},mode=0600"\nendpoints = "{backend.address}"\n')
    with Gateway(f"--config-file={config}", listen="") as gateway:
        gateway.wait_ready()
        config.write_text(config.read_text().replace("0600", "0666"))
        gateway.signal(signal.SIGHUP)
        gateway.wait_line("reload complete")
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        gateway.signal(signal.SIGUSR2)
        gateway.wait_line(READY, 40, count=2)
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o666
        with connect(path) as client:
            talk(client)


def test_clients_beyond_the_limit_wait(path: str, backend: Backend) -> None:
    """With --max-sessions the others wait in the kernel's queue, each until a session ends."""
    with running("--max-sessions=2", listen=f"unix:{path}", endpoints=[backend.address]) as gateway:
        first, second = connect(path), connect(path)
        talk(first)
        talk(second)
        third = connect(path)  # of clients that come together, any two have the places
        gateway.wait_line("accepting paused")
        third.settimeout(0.3)
        third.sendall(b"hello")
        with pytest.raises(TimeoutError):
            third.recv(1)
        first.close()
        third.settimeout(60)
        assert third.recv(5) == b"hello"
        for each in (second, third):
            each.close()


def test_sessions_spread_over_the_workers(path: str, backend: Backend) -> None:
    """Long sessions are even to the last one, as on TCP.

    A worker that gets no CPU is passed over, so on a busy machine it takes a second try.
    """
    admin = f"127.0.0.1:{free_port()}"

    def sessions() -> list[int]:
        return [worker["sessions"] for worker in fetch_status([admin])["workers"]]

    with running(
        f"--admin-addr={admin}", listen=f"unix:{path}", endpoints=[backend.address], workers=4
    ):
        seen = []
        for _ in range(3):
            with contextlib.ExitStack() as stack:
                clients = [stack.enter_context(connect(path)) for _ in range(40)]
                for client in clients:
                    talk(client)
                wait_until(lambda: sum(sessions()) == 40)
                seen.append(sessions())
            if set(seen[-1]) <= {9, 10, 11}:
                return
            wait_until(lambda: sum(sessions()) == 0)
        raise AssertionError(f"expected 9 to 11 sessions in each worker, got {seen}")


def test_a_stop_serves_who_waits(path: str, backend: Backend) -> None:
    """Clients in the queue are served; the file is gone at once; nobody else is accepted."""
    with running(
        "--drain-timeout=20s", listen=f"unix:{path}", endpoints=[backend.address]
    ) as gateway:
        workers = gateway.workers()
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)
        clients = [connect(path, 20) for _ in range(10)]
        gateway.signal(signal.SIGTERM)
        wait_until(lambda: not os.path.exists(path))
        for pid in workers:
            os.kill(pid, signal.SIGCONT)
        for client in clients:
            talk(client)
            client.close()
        assert gateway.process.wait(60) == 0
