"""A restart, or a crash, after which the configuration names other listen addresses."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.handover.record import RECORD_NAME
from tests.backends import Backend, echo
from tests.clients import echoes
from tests.dns import NameServer
from tests.integration.handover.test_record import Managed
from tests.support import free_port

pytestmark = pytest.mark.timeout(300)

BOTH = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])


class Movable:
    """A gateway whose listen addresses are changed; ``A`` and ``B`` stand for two ports."""

    def __init__(self, folder: Path, listen: str, *flags: str) -> None:
        self.a, self.b = free_port(), free_port()
        self._managed = Managed(folder, *flags)
        self.manager = self._managed.manager
        self.listen(listen)

    def listen(self, text: str) -> None:
        """From the next start on."""
        wanted = text.replace("A", str(self.a)).replace("B", str(self.b))
        self.manager.argv = [
            f"--listen-addr={wanted}" if each.startswith("--listen-addr=") else each
            for each in self.manager.argv
        ]

    def serves(self, *ports: int) -> bool:
        return all(echoes(("127.0.0.1", port), 10) for port in ports)


@contextlib.contextmanager
def moved(folder: Path, before: str) -> Iterator[Movable]:
    with Backend(echo) as backend:
        gateway = Movable(folder, before, "--workers=2", f"--endpoints={backend.address}")
        try:
            gateway.manager.start()
            yield gateway
        finally:
            gateway.manager.stop()


@contextlib.contextmanager
def clients_of(port: int) -> Iterator[list[bool]]:
    """One client after the other, all the time: whether each was served."""
    served: list[bool] = []
    over = threading.Event()

    def go() -> None:
        while not over.is_set():
            served.append(echoes(("127.0.0.1", port), 10))

    thread = threading.Thread(target=go, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        over.set()
        thread.join(60)


@BOTH
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("127.0.0.1:A", "127.0.0.1:A,127.0.0.1:B"),
        ("127.0.0.1:B,127.0.0.1:A", "127.0.0.1:A"),
        ("127.0.0.1:B,127.0.0.1:A", "127.0.0.1:A,127.0.0.1:B"),
    ],
)
def test_an_address_that_stays_loses_no_client(
    tmp_path: Path, before: str, after: str, number: signal.Signals
) -> None:
    """Its sockets stay, whatever number they had, and the start after that finds them again."""
    with moved(tmp_path, before) as gateway:
        ports = [gateway.a, gateway.b] if "B" in after else [gateway.a]
        with clients_of(gateway.a) as served:
            gateway.manager.end_main(number)
            gateway.listen(after)
            gateway.manager.start()
            assert gateway.serves(*ports)
            gateway.manager.end_main(number)
            gateway.manager.start()
            assert gateway.serves(*ports)
        assert len(served) > 2
        assert all(served)


@BOTH
@pytest.mark.parametrize(
    ("before", "after"),
    [(":A", "127.0.0.1:A"), ("127.0.0.1:A", ":A"), ("[::]:A", ":A"), (":A", "0.0.0.0:A,[::]:A")],
)
def test_all_interfaces_and_some_of_them(
    tmp_path: Path, before: str, after: str, number: signal.Signals
) -> None:
    """The old workers hold the one, and the new ones get the other beside it."""
    with moved(tmp_path, before) as gateway:
        gateway.manager.end_main(number)
        gateway.listen(after)
        gateway.manager.start()
        assert gateway.serves(gateway.a)


def test_an_address_that_another_program_has(tmp_path: Path) -> None:
    """The old workers go on, and the log says which; once it is free, the new ones come."""
    with moved(tmp_path, "127.0.0.1:A") as gateway, Backend(echo, port=gateway.b) as other:
        gateway.manager.end_main(signal.SIGTERM)
        gateway.listen("127.0.0.1:A,127.0.0.1:B")
        gateway.manager.launch()
        expected = f"cannot listen on 127.0.0.1:{gateway.b}: Address already in use"
        gateway.manager.until(lambda: expected in gateway.manager.log.read_text(), 60)
        assert gateway.serves(gateway.a)
        other.stop()
        gateway.manager.until(lambda: gateway.manager.ready, 60)
        assert gateway.serves(gateway.a, gateway.b)


def test_a_crash_before_the_new_workers_are_ready(tmp_path: Path) -> None:
    """The third master replaces the first one's workers, as the second would have."""
    with moved(tmp_path, "127.0.0.1:A") as gateway, clients_of(gateway.a) as served:
        manager = gateway.manager
        manager.end_main(signal.SIGTERM)
        gateway.listen("127.0.0.1:A,127.0.0.1:B")
        manager.heard.clear()
        manager.launch()
        begun = f"FDSTORE=1\nFDNAME={RECORD_NAME}"
        manager.until(lambda: begun in manager.heard, 60)
        manager.end_main(signal.SIGKILL)
        assert not manager.ready, "it was too fast to be killed"
        manager.start()
        assert gateway.serves(gateway.a, gateway.b)
    assert all(served)


def test_a_name_that_does_not_exist_ends_nothing_after_a_crash(tmp_path: Path) -> None:
    """A start that nobody asked for waits, and a reload gives it the name that was meant."""
    file = tmp_path / "gateway.toml"
    file.write_text("")
    with Backend(echo) as backend, NameServer() as dns:
        flags = ("--workers=1", f"--endpoints={backend.address}", f"--nameserver={dns.address}")
        managed = Managed(tmp_path, *flags, f"--config-file={file}")
        manager, port = managed.manager, managed.address[1]
        try:
            manager.start()
            manager.end_main(signal.SIGKILL)
            manager.argv = [each for each in manager.argv if not each.startswith("--listen-addr=")]
            file.write_text(f'listen-addr = "absent.example.test:{port}"')
            main = manager.launch()
            manager.until(lambda: "absent.example.test" in manager.log.read_text())
            assert echoes(managed.address, 10)
            file.write_text(f'listen-addr = "127.0.0.1:{port}"')
            main.send_signal(signal.SIGHUP)
            manager.until(lambda: manager.ready)
            assert echoes(managed.address, 10)
        finally:
            manager.stop()
