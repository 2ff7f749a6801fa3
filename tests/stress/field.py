"""The field: two namespaces with a delay between them, a gateway and an endpoint in one."""

from __future__ import annotations

import contextlib
import functools
import http.client
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

from tests.stress.manager import Manager
from tests.support import wait_until

_numbers = itertools.count()
HOST, PORT, ENDPOINT_PORT = "10.99.0.2", 23790, 2379
GATEWAY = Path(sys.executable).with_name("etcd-gateway")


@dataclass
class Field:
    """Everything of one run; ``accepted`` are client ports that a killed worker had accepted."""

    folder: Path
    near: str
    far: str
    processes: list[subprocess.Popen[str]] = field(default_factory=list)
    accepted: set[int] = field(default_factory=set)
    gateway: subprocess.Popen[str] | None = None
    admin: Path = Path()

    def __post_init__(self) -> None:
        self.admin = self.folder / "admin"

    def run(self, netns: str, *argv: str, **options: Any) -> subprocess.Popen[str]:
        command = ["ip", "netns", "exec", netns, *argv]
        process = subprocess.Popen(command, text=True, **options)
        self.processes.append(process)
        return process

    def start_gateway(
        self, *flags: str, command: str = str(GATEWAY), config: Path | None = None
    ) -> None:
        """``config`` names the endpoints and the admin address instead of flags."""
        settings = [f"--endpoints=127.0.0.1:{ENDPOINT_PORT}", f"--admin-addr=unix:{self.admin}"]
        if config is not None:
            settings = [f"--config-file={config}"]
        log = (self.folder / "gateway.log").open("a")
        with log:
            self.gateway = self.run(
                self.far,
                command,
                "start",
                f"--listen-addr={HOST}:{PORT}",
                *settings,
                "--workers=4",
                *flags,
                stderr=log,
            )
        wait_until(self.is_ready, 20, "the gateway is ready")

    def managed(self, *flags: str, command: str = str(GATEWAY)) -> Manager:
        """A service manager with a gateway under it, in the gateway's namespace."""
        argv = [
            *("ip", "netns", "exec", self.far, command, "start"),
            f"--endpoints=127.0.0.1:{ENDPOINT_PORT}",
            f"--listen-addr={HOST}:{PORT}",
            f"--admin-addr=unix:{self.admin}",
            "--workers=4",
            *flags,
        ]
        return Manager(self.folder, argv, self.folder / "gateway.log")

    def status(self) -> dict[str, Any]:
        connection = http.client.HTTPConnection("gateway", timeout=5)
        connection.sock = socket.socket(socket.AF_UNIX)
        with contextlib.closing(connection):
            connection.sock.settimeout(60)
            connection.sock.connect(str(self.admin))
            connection.request("GET", "/status")
            document: dict[str, Any] = json.loads(connection.getresponse().read())
            return document

    def is_ready(self) -> bool:
        try:
            return bool(self.status()["state"] == "ready")
        except OSError:
            return False

    def workers(self) -> list[dict[str, Any]]:
        return [each for each in self.status()["workers"] if each["state"] == "ready"]

    def signal(self, number: signal.Signals) -> None:
        assert self.gateway is not None
        os.kill(self.gateway.pid, number)

    def kill_worker(self, pid: int) -> None:
        """kill -9, after noting which clients it had accepted: that loss nobody can prevent."""
        os.kill(pid, signal.SIGSTOP)
        wait_until(lambda: _state(pid) == "T")
        self.accepted |= _clients_of(pid)
        os.kill(pid, signal.SIGKILL)

    def client(
        self, rate: float, seconds: float, netns: str | None = None
    ) -> subprocess.Popen[str]:
        """From the other end of the wire, or from another namespace."""
        return self.run(
            netns or self.near,
            sys.executable,
            "-m",
            "tests.stress.client",
            HOST,
            str(PORT),
            str(rate),
            str(seconds),
            stdout=subprocess.PIPE,
        )

    def outcome(self, client: subprocess.Popen[str]) -> dict[str, Any]:
        """What the client counted; losses that a killed worker had accepted are apart."""
        figures: dict[str, Any] = json.loads(client.communicate(timeout=400)[0])
        ours = [each for each in figures.pop("lost") if each[1] not in self.accepted]
        figures["lost"] = ours
        print(figures)
        return figures

    def has_workers(self, count: int) -> bool:
        return len(self.workers()) == count

    def is_replaced(self, before: set[int]) -> bool:
        """Whether all workers are others than these, and ready."""
        try:
            status = self.status()
        except OSError:
            return False
        ready = {each["pid"] for each in status["workers"] if each["state"] == "ready"}
        return bool(status["state"] == "ready" and len(ready) == 4 and not ready & before)

    @contextlib.contextmanager
    def long_sessions(self, count: int) -> Iterator[list[BinaryIO]]:
        """Sessions that are to live through whatever happens, greeted already."""
        with contextlib.ExitStack() as stack:
            streams = []
            for sock in _connect_in(self.near, (HOST, PORT), count):
                stack.enter_context(sock)
                stream = stack.enter_context(sock.makefile("rwb", buffering=0))
                assert stream.read(1) == b"!"
                streams.append(cast("BinaryIO", stream))
            yield streams


def _connect_in(netns: str, address: tuple[str, int], count: int) -> list[socket.socket]:
    """Sockets made inside the namespace by a helper that handles them to us."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        script = (
            "import socket,sys\n"
            "s=[socket.create_connection((sys.argv[1],int(sys.argv[2])),5)"
            " for _ in range(int(sys.argv[3]))]\n"
            "up=socket.socket(fileno=int(sys.argv[4]))\n"
            "socket.send_fds(up,[b'x'],[each.fileno() for each in s])\n"
        )
        command = ["ip", "netns", "exec", netns, sys.executable, "-c", script]
        numbers = [address[0], str(address[1]), str(count), str(theirs.fileno())]
        subprocess.run([*command, *numbers], check=True, pass_fds=[theirs.fileno()], timeout=20)
        _, fds, _, _ = socket.recv_fds(ours, 1, count)
    sockets = [socket.socket(fileno=fd) for fd in fds]
    for sock in sockets:
        sock.settimeout(60)
    return sockets


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def _clients_of(pid: int) -> set[int]:
    """Remote ports of the connections to the listen address that the process holds."""
    inodes = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            link = os.readlink(f"/proc/{pid}/fd/{name}")
            if link.startswith("socket:["):
                inodes.add(link[8:-1])
    ports = set()
    for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        local, remote, inode = fields[1], fields[2], fields[9]
        if inode in inodes and int(local.split(":")[1], 16) == PORT:
            ports.add(int(remote.split(":")[1], 16))
    return ports


def _ip(*argv: str) -> None:
    subprocess.run(["ip", *argv], check=True, capture_output=True)


def _has_address(netns: str) -> bool:
    """Whether a socket may be bound to HOST there; the kernel needs a moment."""
    show = ["ip", "-n", netns, "route", "get", HOST]
    return "local" in subprocess.run(show, capture_output=True, text=True).stdout


@functools.cache
def why_no_field() -> str:
    """Why no field can be prepared here; empty if one can. Tries, for root is not always root."""
    netns = f"probe{os.getpid()}"
    try:
        _ip("netns", "add", netns)
    except (OSError, subprocess.CalledProcessError):
        return "needs ip(8), and the right to make network namespaces"
    try:
        _ip("-n", netns, "tuntap", "add", "wire0", "mode", "tun")
    except subprocess.CalledProcessError:
        return "needs /dev/net/tun"
    finally:
        _ip("netns", "del", netns)
    return ""


@contextlib.contextmanager
def prepared(folder: Path, delay_s: float) -> Iterator[Field]:
    """Namespaces, wire and endpoint; everything is gone afterwards."""
    # Never a name twice: the kernel takes its time to give a namespace and its devices back.
    number = next(_numbers)
    near, far = f"near{os.getpid()}-{number}", f"far{os.getpid()}-{number}"
    ground = Field(folder, near, far)
    try:
        for netns in (near, far):
            _ip("netns", "add", netns)
            _ip("-n", netns, "link", "set", "lo", "up")
        wire = subprocess.Popen(
            [sys.executable, "-m", "tests.stress.delay", near, far, str(delay_s)],
            stdout=subprocess.PIPE,
            text=True,
        )
        ground.processes.append(wire)
        assert wire.stdout is not None
        assert wire.stdout.readline() == "up\n"
        for netns, address in ((near, "10.99.0.1/30"), (far, f"{HOST}/30")):
            _ip("-n", netns, "addr", "add", address, "dev", "wire0")
            _ip("-n", netns, "link", "set", "wire0", "up", "txqueuelen", "10000")
        wait_until(lambda: _has_address(far), 5, "the address is there")
        endpoint = ground.run(
            far,
            sys.executable,
            "-m",
            "tests.stress.backend",
            str(ENDPOINT_PORT),
            stdout=subprocess.PIPE,
        )
        assert endpoint.stdout is not None
        assert endpoint.stdout.readline() == "listening\n"
        yield ground
    finally:
        for process in reversed(ground.processes):
            if process.poll() is None:
                process.terminate()
                process.send_signal(signal.SIGINT)  # no gateway waits for sessions that are left
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
            if process.stdout is not None:
                process.stdout.close()
        for netns in (near, far):
            subprocess.run(["ip", "netns", "del", netns], capture_output=True)


def pace(seconds: float, every_s: float) -> Iterator[int]:
    """Count up, once each ``every_s``, for so long: the rhythm of the disturbances."""
    end = time.monotonic() + seconds
    number = 0
    while time.monotonic() < end:
        yield number
        number += 1
        time.sleep(every_s)


def answer_still(sessions: Iterable[BinaryIO]) -> bool:
    """Whether each of them carries bytes to the endpoint and back."""
    for session in sessions:
        session.write(b"still here\n")
        if session.readline() != b"still here\n":
            return False
    return True
