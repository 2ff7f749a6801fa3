"""A real etcd cluster of three members for tests: on loopback, or each on a host of its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from tests.support import free_port, wait_until
from tests.wires import prefix

_PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
ETCD = shutil.which("etcd", path=_PATH)
ETCDCTL = shutil.which("etcdctl", path=_PATH)

needs_etcd = pytest.mark.skipif(
    not (ETCD and ETCDCTL), reason="etcd and etcdctl are not to be had here"
)


class Cluster:
    """Three members; owns their processes and data. ``tls``: (ca, certificate, key) for clients.

    ``client_files``: (certificate, key) of etcdctl; members then demand client certificates.
    ``homes``: each member's network namespace and its address there (see ``tests.wires``);
    ``json_log``: members write their log as JSON. ``near``: the namespace that ``etcdctl`` runs in.
    """

    def __init__(
        self,
        *,
        tls: tuple[str, str, str] | None = None,
        client_files: tuple[str, str] | None = None,
        client_ports: list[int] | None = None,
        homes: list[tuple[str, str]] | None = None,
        near: str = "",
        json_log: bool = False,
    ) -> None:
        self._json_log = json_log
        self._homes = homes or [("", "127.0.0.1")] * 3
        self._near = near
        self._directory = tempfile.TemporaryDirectory(prefix="etcd-")
        self.tls = tls
        self._client_files = client_files
        self.client_ports = client_ports or [free_port() for _ in range(3)]
        self._peer_ports = [free_port() for _ in range(3)]
        self.members: list[subprocess.Popen[bytes] | None] = [None, None, None]
        for index in range(3):
            self.start(index)
        self.wait_healthy()

    @property
    def endpoints(self) -> list[str]:
        places = zip(self._homes, self.client_ports, strict=True)
        return [f"{address}:{port}" for (_, address), port in places]

    def start(self, index: int) -> None:
        """Start a member, or start it again with its data."""
        assert ETCD is not None
        scheme = "https" if self.tls else "http"
        client = f"{scheme}://{self.endpoints[index]}"
        places = zip(self._homes, self._peer_ports, strict=True)
        peers = [f"http://{address}:{port}" for (_, address), port in places]
        argv = [
            *prefix(self._homes[index][0]),
            ETCD,
            f"--name=m{index}",
            f"--data-dir={self._directory.name}/m{index}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peers[index]}",
            f"--initial-advertise-peer-urls={peers[index]}",
            "--initial-cluster=" + ",".join(f"m{i}={url}" for i, url in enumerate(peers)),
            "--heartbeat-interval=100",
            "--election-timeout=500",
        ]
        if self._json_log:  # etcd 3.4 does not by itself
            argv += ["--logger=zap", "--log-outputs=stderr"]
        if self.tls:
            authority, certificate, key = self.tls
            argv += [f"--cert-file={certificate}", f"--key-file={key}"]
            if self._client_files:  # not without: naming a CA means to demand them, too
                argv += [f"--trusted-ca-file={authority}", "--client-cert-auth"]
        with open(f"{self._directory.name}/m{index}.log", "ab") as log:
            self.members[index] = subprocess.Popen(
                argv, stdout=log, stderr=log, env={**os.environ, "ETCD_UNSUPPORTED_ARCH": "arm64"}
            )

    def kill(self, index: int) -> None:
        """SIGKILL one member."""
        member = self.members[index]
        assert member is not None
        member.send_signal(signal.SIGKILL)
        member.wait()
        self.members[index] = None

    def log(self, index: int) -> str:
        return Path(f"{self._directory.name}/m{index}.log").read_text(errors="replace")

    def wait_healthy(self, deadline_s: float = 30.0) -> None:
        """Until every member that runs answers a linearizable read."""
        for index, name in enumerate(self.endpoints):
            if self.members[index] is not None:
                wait_until(
                    lambda name=name: self.ctl(name, "get", "x").returncode == 0,  # type: ignore[misc]
                    deadline_s,
                    f"etcd member {index} healthy",
                )

    def ctl(
        self, endpoint: str, *arguments: str, timeout_s: float = 5.0
    ) -> subprocess.CompletedProcess[str]:
        """``etcdctl`` through one endpoint."""
        return subprocess.run(
            [*self.ctl_command(endpoint, timeout_s), *arguments],
            capture_output=True,
            text=True,
            env={**os.environ, "ETCDCTL_API": "3"},
            timeout=timeout_s + 20,
        )

    def ctl_command(self, endpoint: str, timeout_s: float = 5.0) -> list[str]:
        assert ETCDCTL is not None
        argv = [
            *prefix(self._near),
            ETCDCTL,
            f"--endpoints={endpoint}",
            f"--command-timeout={timeout_s}s",
            "--dial-timeout=2s",
        ]
        if self.tls:
            argv.append(f"--cacert={self.tls[0]}")
        if self._client_files:
            argv += [f"--cert={self._client_files[0]}", f"--key={self._client_files[1]}"]
        return argv

    def close(self) -> None:
        for index, member in enumerate(self.members):
            if member is not None:
                self.kill(index)
        self._directory.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.close()
