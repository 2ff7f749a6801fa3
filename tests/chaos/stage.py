"""The stage: network, members, nameserver and two gateways under a service manager each."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

from supervisor.cli.admin_client import UnreachableError, fetch_status
from tests.chaos.network import MEMBERS, NEAR, Network, connected
from tests.dns import NameServer
from tests.etcd import Cluster
from tests.installation import Installation
from tests.stress.manager import Manager
from tests.support import wait_until
from tests.tls import Authority
from tests.wires import inside, prefix

DOMAIN = "chaos.test"
ECHO_PORT, LISTEN_ECHO, LISTEN_ETCD, DNS_PORT = 7000, 23790, 23791, 5353
WORKERS = 2
NAMES = [f"m{n}.{DOMAIN}" for n in range(3)]


class ManagedGateway:
    """A gateway under a service manager that keeps its descriptors, as the shipped unit has it."""

    def __init__(self, stage: Stage, name: str, port: int, *targets: str) -> None:
        self.folder = stage.folder / name
        self.folder.mkdir()
        self.log = self.folder / "log"
        self.config = self.folder / "gateway.toml"
        self.good = 'balance = "round-robin"\n'
        self.config.write_text(self.good)
        self.admin = f"unix:{self.folder}/admin"
        self.manager = Manager(
            self.folder,
            [
                *prefix(stage.network.namespaces[0]),
                str(stage.installation.script),
                "start",
                f"--listen-addr={NEAR}:{port}",
                f"--nameserver={NEAR}:{DNS_PORT}",
                f"--config-file={self.config}",
                f"--admin-addr={self.admin}",
                f"--workers={WORKERS}",
                "--handover",
                "--access-log",
                "--log-format=json",
                # Sessions may end by disturbances that are meant to end them, and by no others.
                "--drain-timeout=600s",
                "--removal-grace=0s",
                "--tcp-user-timeout=120s",
                # A machine that is busy with other tests is no dead endpoint.
                "--dial-timeout=10s",
                "--health-timeout=5s",
                *targets,
            ],
            self.log,
            patience_s=120.0,
        )
        self.manager.start()

    @property
    def pid(self) -> int:
        assert self.manager.main is not None
        return self.manager.main.pid

    def workers(self) -> list[int]:
        """Pids of those that are ready."""
        try:
            workers = fetch_status([self.admin])["workers"]
        except (UnreachableError, OSError):
            return []
        return [int(each["pid"]) for each in workers if each["state"] == "ready"]

    def is_whole(self) -> bool:
        return len(self.workers()) == WORKERS

    def said(self, *messages: str) -> int:
        return sum(line.get("msg") in messages for line in self.lines())

    def lines(self) -> Iterator[dict[str, Any]]:
        for line in self.log.read_text(errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                yield json.loads(line)


class Stage:
    """Everything that is disturbed; owns all of it until :meth:`close`."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self._stack = contextlib.ExitStack()
        with contextlib.ExitStack() as undo:
            undo.callback(self._stack.close)
            self._build(seed)
            undo.pop_all()

    def _build(self, seed: int) -> None:
        enter = self._stack.enter_context
        self.network: Network = enter(connected(seed))
        homes = list(zip(self.network.namespaces[1:], MEMBERS, strict=True))
        self.authority = Authority(self.folder)
        tls = self._issue_certificate()
        self.cluster = enter(Cluster(tls=tls, homes=homes, near=self.network.namespaces[0]))
        self.backends: list[subprocess.Popen[bytes] | None] = [None] * 3
        for index in range(3):
            self.start_backend(index)
        self._stack.callback(self._end_backends)
        self.dns = NameServer(NEAR, DNS_PORT)
        inside(self.network.namespaces[0], self.dns.start)
        self._stack.callback(self.dns.stop)
        self.tell_truth()
        self.installation = Installation(self.folder / "installed")
        echo = ",".join(f"{name}:{ECHO_PORT}" for name in NAMES)
        self.echo = self._start("echo", LISTEN_ECHO, f"--endpoints={echo}")
        self.etcd = self._start(
            "etcd", LISTEN_ETCD, f"--discovery-srv={DOMAIN}",
            f"--trusted-ca-file={self.authority.file}",
        )  # fmt: skip
        self.gateways = (self.echo, self.etcd)

    def _start(self, name: str, port: int, *targets: str) -> ManagedGateway:
        gateway = ManagedGateway(self, name, port, *targets)
        self._stack.callback(gateway.manager.stop)
        return gateway

    def _issue_certificate(self) -> tuple[str, str, str]:
        leaf = self.authority.ca.issue_cert(DOMAIN, *NAMES, *MEMBERS, NEAR)
        certificate, key = self.folder / "server.pem", self.folder / "server.key"
        leaf.private_key_pem.write_to_path(str(key))
        for part in leaf.cert_chain_pems:
            part.write_to_path(str(certificate), append=True)
        return self.authority.file, str(certificate), str(key)

    def tell_truth(self) -> None:
        """The nameserver says what is so."""
        self.dns.faults.clear()
        for name, address in zip(NAMES, MEMBERS, strict=True):
            self.dns.set(name, "A", address, ttl=5)
        members = zip(NAMES, self.cluster.client_ports, strict=True)
        records = [f"0 0 {port} {name}." for name, port in members]
        self.dns.set(f"_etcd-client-ssl._tcp.{DOMAIN}", "SRV", *records, ttl=5)

    def start_backend(self, index: int) -> None:
        home = prefix(self.network.namespaces[index + 1])
        argv = [sys.executable, "-m", "tests.chaos.backend", MEMBERS[index], str(ECHO_PORT)]
        self.backends[index] = subprocess.Popen([*home, *argv])
        wait_until(lambda: self._is_listening(index), 60, "the backend listens")

    def kill_backend(self, index: int) -> None:
        backend, self.backends[index] = self.backends[index], None
        assert backend is not None
        backend.kill()
        backend.wait()

    def _is_listening(self, index: int) -> bool:
        def ask() -> bool:
            with socket.socket() as sock:
                return sock.connect_ex((MEMBERS[index], ECHO_PORT)) == 0

        return inside(self.network.namespaces[index + 1], ask)

    def _end_backends(self) -> None:
        for index, backend in enumerate(self.backends):
            if backend is not None:
                self.kill_backend(index)

    def serve(self) -> None:
        """What the service managers have to do; called again and again."""
        for gateway in self.gateways:
            gateway.manager.serve()

    def until(self, predicate: Callable[[], object], deadline_s: float, what: str) -> None:
        def check() -> object:
            self.serve()
            return predicate()

        wait_until(check, deadline_s, what)

    def pause(self, seconds: float) -> None:
        """Let it go on for so long: the rhythm of the disturbances."""
        end = time.monotonic() + seconds
        self.until(lambda: time.monotonic() >= end, seconds + 30, "time goes by")

    def present(self) -> dict[str, str]:
        """All keys of the writers, as a linearizable read of each member in turn has them."""
        found: dict[str, str] = {}
        for endpoint in self.cluster.endpoints:
            got = self.cluster.ctl(endpoint, "get", "--prefix", "w", timeout_s=30)
            assert got.returncode == 0, got.stderr
            lines = got.stdout.splitlines()
            found = dict(zip(lines[::2], lines[1::2], strict=True))
        return found

    def close(self) -> None:
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def stop_for(pid: int, pause: Callable[[], None]) -> None:
    """SIGSTOP a process while ``pause()`` goes on; no error if it is gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
        try:
            pause()
        finally:
            os.kill(pid, signal.SIGCONT)
