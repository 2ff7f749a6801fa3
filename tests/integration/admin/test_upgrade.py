"""The admin address through an upgrade, and through a moment without descriptors."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import signal
import socket
import threading
from pathlib import Path
from typing import Self

import pytest

from supervisor.admin import lifecycle
from supervisor.admin.lifecycle import AdminLifecycle
from supervisor.cli.admin_client import fetch_status
from tests import clients
from tests.admin_double import Pretender
from tests.backends import Backend, echo
from tests.clients import talk
from tests.gateway import Gateway, running
from tests.logbook import Logbook
from tests.support import eventually, free_port, no_descriptors_left, wait_until

POLL_S = 0.05
TIMEOUT_S = 30.0


class Poller:
    """Asks for /livez twenty times a second in a thread; keeps what went wrong."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.answers = 0
        self.failures: list[str] = []

    def _run(self) -> None:
        while not self._over.wait(POLL_S):
            try:
                self._ask()
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
            else:
                self.answers += 1

    def _ask(self) -> None:
        with contextlib.closing(http.client.HTTPConnection("localhost", timeout=TIMEOUT_S)) as it:
            it.sock = connect(self._address)
            it.request("GET", "/livez")
            answer = it.getresponse()
            if answer.status != 200 or answer.read() != b"ok\n":
                raise http.client.HTTPException(f"answered {answer.status}")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(60)


def connect(address: str) -> socket.socket:
    if address.startswith("unix:"):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(TIMEOUT_S)
        sock.connect(address.removeprefix("unix:"))
        return sock
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), TIMEOUT_S)


@pytest.mark.parametrize("turns", range(6))
def test_whoever_was_accepted_a_moment_before_a_pause_is_answered(turns: int) -> None:
    """In whichever turn of the loop the pause begins, and whoever was not accepted waits."""

    async def scenario() -> None:
        address = f"127.0.0.1:{free_port()}"
        admin = AdminLifecycle(Pretender().view, Logbook())
        admin.bind([address])
        await admin.open()
        with contextlib.ExitStack() as opened:
            asking = [opened.enter_context(connect(address)) for _ in range(6)]
            for each in asking:
                each.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
            for _ in range(turns):
                await asyncio.sleep(0)
            await admin.pause()
            await admin.resume()
            answers = [await asyncio.to_thread(each.recv, 15) for each in asking]
            assert answers == [b"HTTP/1.1 200 OK"] * len(asking)
        await admin.close()

    asyncio.run(scenario())


@pytest.mark.slow
def test_nobody_who_polls_sees_an_upgrade(tmp_path: Path) -> None:
    """Three upgrades; every question at a TCP and a unix address is answered."""
    addresses = (f"127.0.0.1:{free_port()}", f"unix:{tmp_path / 'admin.sock'}")
    with (
        Backend(echo) as backend,
        running(f"--admin-addr={','.join(addresses)}", endpoints=[backend.address]) as gateway,
    ):
        gateway.wait_line("admin address is open")
        with Poller(addresses[0]) as tcp, Poller(addresses[1]) as unix:
            for count in (2, 3, 4):
                before = tcp.answers, unix.answers
                gateway.signal(signal.SIGUSR2)
                gateway.wait_line("ready to proxy client requests", count=count)
                wait_until(lambda before=before: tcp.answers > before[0] + 5)  # type: ignore[misc]
                wait_until(lambda before=before: unix.answers > before[1] + 5)  # type: ignore[misc]
        assert (tcp.failures, unix.failures) == ([], [])
        assert gateway.stop() == 0
        assert not (tmp_path / "admin.sock").exists()


def test_a_client_that_connected_before_the_upgrade_is_answered(tmp_path: Path) -> None:
    """It waits in the kernel's queue while the image changes, and sends its request afterwards."""
    address = f"unix:{tmp_path / 'admin.sock'}"
    with (
        Backend(echo) as backend,
        running(f"--admin-addr={address}", endpoints=[backend.address]) as gateway,
    ):
        gateway.wait_line("admin address is open")
        gateway.signal(signal.SIGUSR2)
        gateway.wait_line("upgrading")
        with connect(address) as client:
            client.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert client.recv(1000).startswith(b"HTTP/1.1 200")


def test_somebody_answers_while_the_next_image_starts(tmp_path: Path) -> None:
    """However long that takes; afterwards nothing is left of whoever answered."""
    admin = f"unix:{tmp_path / 'admin.sock'}"
    with (
        Backend(echo) as backend,
        running(f"--admin-addr={admin}", endpoints=[backend.address]) as gateway,
    ):
        gateway.wait_line("admin address is open")
        gateway.signal(signal.SIGUSR2)
        gateway.wait_line("upgrading")
        gateway.signal(signal.SIGSTOP)
        try:
            assert fetch_status([admin])["pid"] == gateway.pid
        finally:
            gateway.signal(signal.SIGCONT)
        gateway.wait_line("admin address is open", count=2)
        wait_until(lambda: titles(gateway) == {"master", "worker"}, what="the process is gone")
        assert fetch_status([admin])["state"] == "ready"


def titles(gateway: Gateway) -> set[str]:
    """The first word of the titles of the master and its children, exited ones as empty."""
    lines = [Path(f"/proc/{pid}/cmdline") for pid in (gateway.pid, *gateway.workers())]
    texts = [line.read_bytes().decode() for line in lines if line.exists()]
    return {text.removeprefix("etcd-gateway: ").partition(" ")[0] for text in texts}


def test_the_status_document_goes_on(tmp_path: Path) -> None:
    """Host, configuration with sources, and an uptime that continues through an upgrade."""
    admin = f"unix:{tmp_path / 'admin.sock'}"
    (tmp_path / "g.toml").write_text('balance = "least-sessions"\ndrain-timeout = "1h"\n')
    with (
        Backend(echo) as backend,
        running(
            f"--admin-addr={admin}",
            f"--config-file={tmp_path / 'g.toml'}",
            endpoints=[backend.address],
            env={"GATEWAY_DIAL_TIMEOUT": "3s"},
        ) as gateway,
        clients.connect(gateway.address) as session,
    ):
        talk(session)
        gateway.wait_line("admin address is open")
        before = fetch_status([admin])
        assert before["host"] == socket.gethostname()
        assert before["drain_deadline_s"] is None
        values = before["configuration"]
        assert values["balance"] == {"value": "least-sessions", "source": "file"}
        assert values["dial-timeout"] == {"value": "3s", "source": "variable"}
        assert values["workers"] == {"value": "2", "source": "flag"}
        assert values["dial-hedge"] == {"value": "250ms", "source": "default"}
        gateway.signal(signal.SIGUSR2)
        gateway.wait_line("admin address is open", count=2)
        gateway.wait_line("ready to proxy client requests", count=2)
        after = fetch_status([admin])
        assert after["started_at"] == before["started_at"]
        assert after["uptime_s"] > before["uptime_s"]
        gateway.signal(signal.SIGTERM)
        gateway.wait_line("draining")
        assert 3500 < fetch_status([admin])["drain_deadline_s"] <= 3600


def test_a_reload_changes_the_names_of_the_admin_address(tmp_path: Path) -> None:
    """A name that is given from now on is answered, and was not before."""
    port = free_port()
    config = tmp_path / "g.toml"
    config.write_text(f'admin-addr = "127.0.0.1:{port}"\n')

    def ask() -> int:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
            connection.request("GET", "/livez", headers={"Host": "gw1.example.com:9379"})
            return connection.getresponse().status

    with (
        Backend(echo) as backend,
        running(f"--config-file={config}", endpoints=[backend.address]) as gateway,
    ):
        gateway.wait_line("admin address is open")
        assert ask() == 421
        with config.open("a") as file:
            file.write('admin-host = ["GW1.example.com"]\n')
        gateway.signal(signal.SIGHUP)
        gateway.wait_line("reload complete")
        assert ask() == 200


def test_opening_is_tried_again_when_there_were_no_descriptors(tmp_path: Path) -> None:
    """A moment without descriptors does not cost the admin address for good."""

    async def scenario() -> None:
        log = Logbook()
        admin = AdminLifecycle(Pretender().view, log)
        admin.bind([f"unix:{tmp_path / 'a.sock'}", f"unix:{tmp_path / 'b.sock'}"])
        with no_descriptors_left():
            opening = asyncio.create_task(admin.open())
            await eventually(lambda: log.lines)
        await asyncio.wait_for(opening, 60)
        assert [line["msg"] for line in log.lines] == [
            lifecycle.CANNOT_OPEN,
            "admin address is open",
        ]
        for name in ("a.sock", "b.sock"):
            reader, writer = await asyncio.open_unix_connection(str(tmp_path / name))
            writer.write(b"GET /livez HTTP/1.0\r\n\r\n")
            assert (await reader.read()).endswith(b"ok\n")
            writer.close()
            await writer.wait_closed()
        await admin.close()

    asyncio.run(scenario())


def test_an_upgraded_gateway_waits_for_an_address_that_somebody_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It keeps what it inherited, closes what is not wanted, and takes the rest when it is free."""
    monkeypatch.setattr(lifecycle, "REBIND_S", 0.02)

    async def scenario() -> None:
        log = Logbook()
        kept, unwanted = f"unix:{tmp_path / 'kept'}", f"unix:{tmp_path / 'unwanted'}"
        before = AdminLifecycle(Pretender().view, log)
        before.bind([unwanted, kept])
        inherited = {name: os.dup(fd) for name, fd in before.named_descriptors().items()}
        files = [(tmp_path / name).stat() for name in ("unwanted", "kept")]
        assert list(inherited) == [
            f"admin.{n}.{file.st_dev}.{file.st_ino}" for n, file in enumerate(files)
        ]
        with socket.create_server(("127.0.0.1", 0)) as other:
            taken = f"127.0.0.1:{other.getsockname()[1]}"
            after = AdminLifecycle(Pretender().view, log)
            after.bind([kept, taken], inherited)
            assert list(after.named_descriptors()) == [
                f"admin.0.{files[1].st_dev}.{files[1].st_ino}"
            ]
            assert not (tmp_path / "unwanted").exists()
            opening = asyncio.create_task(after.open())
            await eventually(lambda: "admin address is open" in log.messages)
        await asyncio.wait_for(opening, 60)
        assert log.said("admin address is open") == [{"admin": [kept]}, {"admin": [taken]}]
        assert log.lines_of("admin address is not available, trying again")
        await after.close()
        await before.close()

    asyncio.run(scenario())


def test_an_upgrade_without_an_admin_address_leaves_nobody_who_answers(tmp_path: Path) -> None:
    """Not the process that answers meanwhile, neither alive nor as a zombie."""
    config, admin = tmp_path / "gateway.toml", tmp_path / "admin"
    config.write_text(f'admin-addr = "unix:{admin}"\n')
    with running(f"--config-file={config}", workers=1) as gateway:
        gateway.wait_line("admin address is open")
        [old] = gateway.workers()
        config.write_text("")
        gateway.signal(signal.SIGUSR2)
        gateway.wait_line("ready to proxy client requests", count=2)
        wait_until(lambda: len(gateway.workers()) == 1 and gateway.workers() != [old])
        assert not admin.exists()
