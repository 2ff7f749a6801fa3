"""What the README and docs/coming-from.md say of other proxies, tried with the programs themselves.

Each peer runs as the benchmark configures it, with one setting more where a test says so. One that
is not installed is skipped; ``make bench`` installs them all.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.backends import Backend, greet
from tests.benchmarks.processes import Process
from tests.benchmarks.subjects import PEERS, Order, Subject
from tests.clients import Address, asked, black_hole, connect, read_exactly, read_line
from tests.dns import NameServer
from tests.long_tests import only_long
from tests.proxies import haproxy, needs_haproxy, needs_nginx_stream, nginx
from tests.support import free_port, wait_until

BY_NAME = {subject.name: subject for subject in PEERS}
HAPROXY, NGINX, ENVOY, ETCD = "HAProxy", "nginx stream", "Envoy", "etcd gateway"
MANY = 200

pytestmark = [
    only_long,
    pytest.mark.timeout(300),
]


def find(name: str) -> Subject:
    subject = BY_NAME[name]
    if subject.program is None:
        pytest.skip(f"{name} is not installed")
    return subject


@contextlib.contextmanager
def serving(name: str, endpoints: list[str], folder: Path) -> Iterator[tuple[Process, Address]]:
    """The peer as the benchmark runs it."""
    every = frozenset(os.sched_getaffinity(0))
    process, port = find(name).serve(endpoints, folder, cpus=every)
    try:
        yield process, ("127.0.0.1", port)
    finally:
        process.stop()


def answer_to_the_end(address: Address) -> bytes:
    """What arrives from an echo that answers when the client has ended its own direction."""
    with connect(address) as client:
        client.sendall(b"question")
        client.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):
            return read_exactly(client, 100)
    return b""


async def answer_late(
    backend: Backend, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Read to the end of the stream, and answer then."""
    backend.received += len(await reader.read())
    writer.write(b"answer")
    await writer.drain()


@pytest.mark.parametrize(
    ("name", "forwards"), [(HAPROXY, True), (NGINX, False), (ENVOY, True), (ETCD, False)]
)
def test_half_closed_streams(name: str, forwards: bool, tmp_path: Path) -> None:
    """HAProxy and Envoy forward a client's end of stream alone; nginx and etcd end the session."""
    with Backend(answer_late) as backend, serving(name, [backend.address], tmp_path) as (_, peer):
        assert answer_to_the_end(peer) == (b"answer" if forwards else b"")


@needs_nginx_stream
def test_half_closed_streams_of_nginx_if_switched_on() -> None:
    """``proxy_half_close on`` forwards them."""
    port = free_port()
    with Backend(answer_late) as backend:
        server = f"listen 127.0.0.1:{port}; proxy_pass {backend.address}; proxy_half_close on;"
        with nginx(port, f"stream {{ server {{ {server} }} }}", stream=True):
            assert answer_to_the_end(("127.0.0.1", port)) == b"answer"


def served(address: Address, clients: int = 4) -> list[str]:
    """What each of some clients, one after the other, is greeted with: "" if it is closed."""
    said = []
    for _ in range(clients):
        try:
            said.append(asked(address, 10))
        except ConnectionResetError:
            said.append("")
        except TimeoutError:
            said.append("nothing within 10 s")
    return said


@pytest.mark.parametrize(
    ("name", "bad"), [(HAPROXY, ""), (NGINX, None), (ENVOY, ""), (ETCD, "nothing within 10 s")]
)
def test_a_member_that_does_not_answer(name: str, bad: str | None, tmp_path: Path) -> None:
    """nginx dials the next one after its timeout; HAProxy and Envoy give the client up unless told
    otherwise, and etcd gateway lets it wait."""
    with Backend(greet, name="alive") as backend, black_hole() as (host, port):
        endpoints = [f"{host}:{port}", backend.address]
        with serving(name, endpoints, tmp_path) as (_, peer):
            said = set(served(peer))
    assert said == ({"alive"} if bad is None else {"alive", bad})


@needs_haproxy
@pytest.mark.parametrize("option", ["option redispatch", "option redispatch 1"])
def test_a_member_that_does_not_answer_haproxy_if_told_to(option: str) -> None:
    """With ``option redispatch`` every client is served: at the last retry, or at the first."""
    port = free_port()
    with Backend(greet, name="alive") as backend, black_hole() as hole:
        with haproxy(
            port,
            f"""
listen gateway
  mode tcp
  bind 127.0.0.1:{port}
  timeout connect 500ms
  {option}
  server s0 {hole[0]}:{hole[1]}
  server s1 {backend.address}
""",
        ):
            assert set(served(("127.0.0.1", port))) == {"alive"}


class Visitors(threading.Thread):
    """Connect one after the other until told to end, and count those that were not served."""

    def __init__(self, address: Address) -> None:
        super().__init__(daemon=True)
        self._address = address
        self._over = threading.Event()
        self.served = 0
        self.lost: list[str] = []

    def run(self) -> None:
        while not self._over.is_set():
            try:
                said = asked(self._address, 10)
            except OSError as error:
                said = str(error)
            if said == "alive":
                self.served += 1
            else:
                self.lost.append(said)

    def wait_for_more(self) -> None:
        before = self.served
        wait_until(lambda: self.served + len(self.lost) > before + MANY, 60)

    def end(self) -> None:
        self._over.set()
        self.join(60)


def configured(name: str, endpoints: list[str], folder: Path) -> tuple[list[str], Address]:
    """How the peer is started as an operator would: HAProxy with a master, Envoy with its epoch."""
    subject = find(name)
    assert subject.program is not None
    port = free_port()
    argv = list(subject.compose(subject.program, Order(port, tuple(endpoints), folder)))
    argv[0] = shutil.copy(os.path.realpath(argv[0]), str(folder / "program"))
    if name == HAPROXY:
        argv[1:2] = ["-W", "-db"]
    if name == NGINX:  # one that stays in the foreground takes no new program
        config = folder / "nginx-stream.conf"
        config.write_text(config.read_text().replace("daemon off;", "daemon on;"))
    if name == ENVOY:
        argv = [each for each in argv if each not in ("--disable-hot-restart", "error")]
        argv.remove("--log-level")
        argv += ["--base-id", str(port), "--drain-time-s", "1", "--parent-shutdown-time-s", "600"]
    return argv, ("127.0.0.1", port)


def children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def executes(pid: int, path: str) -> bool:
    """Whether the process runs the file that is at ``path`` now."""
    with contextlib.suppress(OSError):
        return os.readlink(f"/proc/{pid}/exe") == path
    return False


class Upgraded:
    """A peer whose program is a file of the test's own; ends all its processes with the scope."""

    def __init__(self, name: str, endpoint: str, folder: Path) -> None:
        self._name = name
        self.argv, self.address = configured(name, [endpoint], folder)
        self._log = folder / "log"
        self._pid_file = folder / "nginx-stream.pid"
        self._started: list[subprocess.Popen[bytes]] = []
        self._start()
        wait_until(lambda: connectable(self.address), 20, "it serves")
        self.pid = int(self._pid_file.read_text()) if name == NGINX else self._started[0].pid

    def _start(self, *flags: str) -> None:
        with self._log.open("a") as log:
            self._started.append(subprocess.Popen([*self.argv, *flags], stdout=log, stderr=log))

    def replace(self) -> int:
        """Put another file in the place of the program's, and have it executed; the new pid."""
        shutil.copy(self.argv[0], f"{self.argv[0]}.new")
        os.replace(f"{self.argv[0]}.new", self.argv[0])
        assert not executes(self.pid, self.argv[0])
        if self._name == ENVOY:
            self._start("--restart-epoch", "1")
            wait_until(
                lambda: (
                    "main dispatch loop"
                    in self._log.read_text().partition("initializing epoch 1 ")[2]
                )
            )
            return self._started[1].pid
        old = set(children(self.pid))
        os.kill(self.pid, signal.SIGUSR2)
        if self._name == HAPROXY:
            wait_until(lambda: executes(self.pid, self.argv[0]), 20, "the new program")
            wait_until(lambda: set(children(self.pid)) - old, 20, "a new worker")
            return self.pid
        wait_until(lambda: self._new_pid() not in (0, self.pid), 20, "a new master")
        new = self._new_pid()
        wait_until(lambda: executes(new, self.argv[0]) and children(new), 20, "a new worker")
        os.kill(self.pid, signal.SIGQUIT)
        return new

    def _new_pid(self) -> int:
        with contextlib.suppress(OSError, ValueError):
            return int(self._pid_file.read_text())
        return 0

    def end(self, new: int) -> None:
        for pid in {new, self.pid} if self._name == NGINX else ():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        for process in reversed(self._started):
            process.terminate()
            process.wait(60)


@pytest.mark.parametrize("name", [HAPROXY, NGINX, ENVOY])
def test_an_upgrade_refuses_nobody_and_keeps_sessions(name: str, tmp_path: Path) -> None:
    """The program's file is replaced, and it is told so: HAProxy's master stays the same process,
    nginx and Envoy have a new one. Sessions go on in the old processes."""
    with Backend(greet, name="alive") as backend:
        peer = Upgraded(name, backend.address, tmp_path)
        visitors, new = Visitors(peer.address), peer.pid
        try:
            with connect(peer.address) as session:
                assert read_line(session) == "alive"
                visitors.start()
                visitors.wait_for_more()
                new = peer.replace()
                visitors.wait_for_more()
                session.sendall(b"on")
                assert read_exactly(session, 2) == b"on"
        finally:
            visitors.end()
            peer.end(new)
    assert visitors.lost == []
    assert (new == peer.pid) == (name == HAPROXY)


def connectable(address: Address) -> bool:
    with contextlib.suppress(OSError):
        return asked(address) == "alive"
    return False


@needs_nginx_stream
def test_a_reload_of_nginx_keeps_sessions(tmp_path: Path) -> None:
    """In the old worker; the new one serves what comes."""
    with Backend(greet, name="alive") as backend:
        with serving(NGINX, [backend.address], tmp_path) as (process, peer):
            wait_until(lambda: connectable(peer), 20)
            with connect(peer) as session:
                assert read_line(session) == "alive"
                old = set(children(process.pid))
                os.kill(process.pid, signal.SIGHUP)
                wait_until(lambda: set(children(process.pid)) - old, 20)
                assert asked(peer) == "alive"
                session.sendall(b"on")
                assert read_exactly(session, 2) == b"on"
                assert old & set(children(process.pid))


@needs_haproxy
def test_srv_records_are_followed_by_haproxy() -> None:
    """``server-template`` with ``resolvers`` follows the records."""
    port = free_port()
    service = "_etcd-client._tcp.example.test."
    with (
        NameServer() as dns,
        Backend(greet, name="one") as one,
        Backend(greet, name="two") as two,
    ):
        dns.set("a.example.test.", "A", "127.0.0.1", ttl=1)
        dns.set(service, "SRV", f"0 1 {one.port} a.example.test.", ttl=1)
        with haproxy(
            port,
            f"""
resolvers ours
  nameserver one {dns.address}
  accepted_payload_size 4096
  hold valid 1s
  timeout resolve 1s
listen gateway
  mode tcp
  bind 127.0.0.1:{port}
  option redispatch
  default-server init-addr none resolve-prefer ipv4 check inter 200ms
  server-template m 3 {service.rstrip(".")} resolvers ours
""",
        ):
            wait_until(lambda: greeting(port) == "one", 30)
            dns.set(service, "SRV", f"0 1 {two.port} a.example.test.", ttl=1)
            wait_until(lambda: greeting(port) == "two", 30)


def greeting(port: int) -> str:
    with contextlib.suppress(OSError):
        return asked(("127.0.0.1", port))
    return ""


@needs_haproxy
def test_probes_of_haproxy_are_not_seen() -> None:
    """A server that fifty checks have found alive has accepted none of them."""
    port, home = free_port(), free_port()
    with haproxy(
        port,
        f"""
listen gateway
  mode tcp
  bind 127.0.0.1:{port}
  default-server check inter 20ms fall 1 rise 50
  server s0 127.0.0.1:{home}
""",
    ):
        wait_until(lambda: greeting(port) == "", 30, "the server is down")
        with Backend(greet, name="alive", port=home) as backend:
            wait_until(lambda: greeting(port) == "alive", 30, "the server is up")
            assert backend.connections == 1
