"""A real client's life behind the gateway, while its cluster is killed, cut off and replaced.

Members live in network namespaces of their own, demand client certificates and have users.
In ``make test`` about a minute with one release of etcd; in ``make stress`` longer, with all.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import signal
import ssl
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from supervisor.cli.admin_client import fetch_status
from tests.etcd import RELEASES, TRIED, Cluster, needs_etcd
from tests.etcd_clients import (
    Client,
    JsonClient,
    RefusedError,
    Transactor,
    Watcher,
    Writer,
    encoded,
    read_events,
    watch_question,
)
from tests.etcd_history import Event, History, find_faults
from tests.gateway import Gateway
from tests.long_tests import only_long
from tests.support import wait_until
from tests.tls import Authority
from tests.wires import cut_off, hosts, inside, prefix

ROUNDS = 5
SNAPSHOT_MB = 200

GATEWAY = "10.78.0.1"
HOMES = [f"10.78.0.{n}" for n in range(11, 17)]
PORT = 23790

pytestmark = [
    needs_etcd,
    only_long,
    pytest.mark.timeout(1500),
    pytest.mark.own_cpu,
]


@dataclass(slots=True)
class Scene:
    """A cluster with spare hosts, a gateway in front of it, and its clients."""

    cluster: Cluster
    gateway: Gateway
    admin: str
    namespaces: list[str]
    near: str
    context: ssl.SSLContext
    history: History = field(default_factory=History)
    clients: list[Client] = field(default_factory=list)

    @property
    def through(self) -> str:
        return f"{GATEWAY}:{PORT}"

    def client(self, address: tuple[str, int] = (GATEWAY, PORT)) -> JsonClient:
        return JsonClient(address, self.context, ("root", "secret"))

    def ctl(self, *words: str, timeout_s: float = 60) -> str:
        """etcdctl through the gateway, which must succeed in the end; what it printed.

        A member may be without a leader for a while, and the gateway then closes its sessions.
        """
        printed = said = ""

        def has_succeeded() -> bool:
            nonlocal printed, said
            done = self.cluster.ctl(self.through, *words, timeout_s=timeout_s)
            printed, said = done.stdout, done.stderr
            assert "connection refused" not in said
            return done.returncode == 0

        try:
            wait_until(has_succeeded, 120, " ".join(words))
        except AssertionError as error:
            raise AssertionError(f"{error}: {said}") from None
        return printed

    def start_clients(self) -> None:
        makers: list[tuple[str, type[Client]]] = [
            ("writer0", Writer),
            ("writer1", Writer),
            ("transactor0", Transactor),
            ("transactor1", Transactor),
            ("watcher0", Watcher),
            ("watcher1", Watcher),
        ]
        for name, kind in makers:
            self.clients.append(kind(name, self.near, self.client(), self.history))
            self.clients[-1].start()

    def end(self, kind: type[Client]) -> None:
        for client in self.clients:
            if isinstance(client, kind):
                client.end()
                client.join(90)
                assert not client.is_alive(), client.name
                assert not client.failure, (client.name, client.failure, client.errors[-3:])

    def work_goes_on(self) -> None:
        before = len(self.history.acknowledged)
        wait_until(lambda: len(self.history.acknowledged) > before + 20, 60, "writes go on")


@contextlib.contextmanager
def prepared(tmp_path: Path, release: str) -> Iterator[Scene]:
    authority = Authority(tmp_path)
    files = authority.client_files()
    context = ssl.create_default_context(cafile=authority.file)
    context.load_cert_chain(*files)
    admin = f"unix:{tmp_path}/admin.sock"
    with hosts(GATEWAY, *HOMES) as (near, *homes), contextlib.ExitStack() as stack:
        cluster = stack.enter_context(
            Cluster(
                tls=authority.server_files(GATEWAY, *HOMES),
                client_files=files,
                homes=list(zip(homes[:3], HOMES[:3], strict=True)),
                near=near,
                flags=("--heartbeat-interval=200", "--election-timeout=2000", "--bcrypt-cost=4"),
                programs=RELEASES[release],
            )
        )
        cluster.require_users()
        gateway = stack.enter_context(
            Gateway(
                "--member-sync=1s",
                "--removal-grace=3s",
                "--health-check=etcd",
                "--health-interval=500ms",
                "--on-inactive=close",
                f"--trusted-ca-file={authority.file}",
                f"--health-cert-file={files[0]}",
                f"--health-key-file={files[1]}",
                f"--admin-addr={admin}",
                endpoints=[f"https://{name}" for name in cluster.endpoints],
                listen=f"{GATEWAY}:{PORT}",
                workers=2,
                prefix=prefix(near),
            )
        )
        gateway.wait_ready()
        yield Scene(cluster, gateway, admin, homes, near, context)


@contextlib.contextmanager
def separated(scene: Scene, index: int) -> Iterator[None]:
    """One member has no way to the others and they none to it; the gateway reaches them all."""
    running = [n for n, member in enumerate(scene.cluster.members) if member is not None]
    ways = [
        (scene.namespaces[home], HOMES[other])
        for home in running
        for other in running
        if home != other and index in (home, other)
    ]
    with cut_off(ways):
        yield


def disturb(scene: Scene) -> None:
    """A member and a worker are killed, and another member is cut off from its cluster."""
    running = [n for n, member in enumerate(scene.cluster.members) if member is not None]
    victim, other = random.sample(running, 2)
    scene.cluster.kill(victim)
    scene.work_goes_on()
    os.kill(random.choice(scene.gateway.workers()), signal.SIGKILL)
    scene.work_goes_on()
    scene.cluster.start(victim)
    scene.cluster.wait_healthy(60)
    with separated(scene, other):
        scene.work_goes_on()
    scene.cluster.wait_healthy(60)


def replace_all(scene: Scene) -> None:
    """Every member gives way to one on another host; the gateway is told of nothing."""
    for index in range(3):
        new = scene.cluster.add(home=(scene.namespaces[3 + index], HOMES[3 + index]))
        scene.cluster.wait_healthy(60)
        scene.cluster.remove(index)
        scene.work_goes_on()
        assert new == 3 + index
    first = set(scene.cluster.endpoints[:3])
    wait_until(lambda: not first & names(scene), 60, "the first members are gone")
    assert names(scene) == set(scene.cluster.endpoints[3:])


def names(scene: Scene) -> set[str]:
    return {each["endpoint"] for each in fetch_status([scene.admin])["endpoints"]}


class Locker(threading.Thread):
    """Takes a lock again and again with etcdctl, and notes in a file when it has it."""

    def __init__(self, scene: Scene, name: str, file: Path) -> None:
        super().__init__(name=name, daemon=True)
        script = file.with_name(f"lock-{name}")  # etcdctl would take sh's -c for its own
        script.write_text(f"echo begin {name} >> {file}; sleep 0.05; echo end {name} >> {file}\n")
        ctl = scene.cluster.ctl_command(scene.through, 60)
        self._argv = [*ctl, "lock", "--ttl=60", "mutex", "sh", str(script)]
        self._over = threading.Event()
        self.taken = 0
        self.said = ""

    def run(self) -> None:
        while not self._over.is_set():
            with contextlib.suppress(subprocess.TimeoutExpired):
                done = subprocess.run(self._argv, capture_output=True, text=True, timeout=90)
                self.taken += done.returncode == 0
                self.said = done.stderr

    def end(self) -> None:
        self._over.set()
        self.join(120)


def start_ctl(scene: Scene, *words: str) -> subprocess.Popen[str]:
    """etcdctl through the gateway, left running."""
    return subprocess.Popen(
        [*scene.cluster.ctl_command(scene.through, 60), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@contextlib.contextmanager
def kept_lease(scene: Scene) -> Iterator[None]:
    """A key lives by its lease, which etcdctl keeps alive; without that it is gone."""
    granted = scene.ctl("lease", "grant", "60").split()[1]
    scene.ctl("put", "leased", "x", f"--lease={granted}")
    keeper = start_ctl(scene, "lease", "keep-alive", granted)
    try:
        yield
        assert scene.ctl("get", "leased", "--print-value-only").strip() == "x"
        assert keeper.poll() is None
    finally:
        keeper.kill()
        keeper.communicate()
    scene.ctl("lease", "revoke", granted)
    assert not scene.ctl("get", "leased", "--print-value-only")


@contextlib.contextmanager
def elected(scene: Scene) -> Iterator[None]:
    """One candidate leads through everything; when it resigns, the next one does."""
    candidates = [start_ctl(scene, "elect", "life-election", "first")]
    try:
        wait_until(lambda: leader(scene) == "first", 30, "the first candidate leads")
        yield
        assert leader(scene) == "first"
        candidates.append(start_ctl(scene, "elect", "life-election", "second"))
        wait_until(lambda: "second" in election(scene), 30, "the second candidate waits")
        assert leader(scene) == "first"
        candidates[0].send_signal(signal.SIGINT)
        wait_until(lambda: leader(scene) == "second", 60, "the second candidate leads")
    finally:
        for process in candidates:
            process.kill()
            process.communicate()


def election(scene: Scene) -> list[str]:
    """The candidates, the one that leads first: it has the oldest key."""
    words = ["--prefix", "--sort-by=CREATE", "--print-value-only"]
    return scene.ctl("get", "life-election", *words).split()


def leader(scene: Scene) -> str:
    return next(iter(election(scene)), "")


def tell_truth(scene: Scene, revision: int) -> list[Event]:
    """What happened, told by one member itself."""
    name = scene.cluster.running[0]
    host, _, port = name.rpartition(":")

    def ask() -> list[Event]:
        client, events = scene.client((host, int(port))), list[Event]()
        with contextlib.closing(client):
            for message in client.stream("/v3/watch", watch_question("life/", 1)):
                events += read_events(message)
                if events and events[-1].revision >= revision:
                    break
        return events

    return inside(scene.near, ask)


def has_put(client: JsonClient, question: dict[str, str]) -> bool:
    """Whether a put succeeded; a slow disk may take longer than one attempt."""
    try:
        client.ask("/v3/kv/put", question)
    except (OSError, http.client.HTTPException, RefusedError):
        return False
    return True


def save_snapshot(scene: Scene, file: Path) -> None:
    """A database of some size comes through the gateway whole."""

    def fill() -> None:
        with contextlib.closing(scene.client()) as client:
            for n in range(SNAPSHOT_MB):
                value = encoded(random.randbytes(500_000).hex())
                question = {"key": encoded(f"big/{n}"), "value": value}
                wait_until(partial(has_put, client, question), 120, "a megabyte is put")

    inside(scene.near, fill)
    scene.ctl("snapshot", "save", str(file), timeout_s=300)
    assert file.stat().st_size > SNAPSHOT_MB * 1_000_000
    scene.ctl("snapshot", "status", str(file))


def check_locks(file: Path) -> None:
    """Whoever has the lock gives it back before another one has it."""
    lines = file.read_text().split("\n")[:-1]
    pairs = list(zip(lines[::2], lines[1::2], strict=False))
    assert pairs
    for begin, end in pairs:
        assert begin.replace("begin", "end") == end, (begin, end)


@pytest.mark.parametrize("release", TRIED)
def test_nothing_that_was_acknowledged_is_lost(release: str, tmp_path: Path) -> None:
    """Members are killed, cut off and replaced until none of the first is left, and workers are
    killed: every acknowledged write is there, no read is stale, no watch missed an event, locks
    exclude, a lease and a leader live through it, and a snapshot comes whole."""
    file = tmp_path / "locks"
    with prepared(tmp_path, release) as scene:
        lockers = [Locker(scene, name, file) for name in ("a", "b")]
        scene.start_clients()
        with kept_lease(scene), elected(scene):
            for locker in lockers:
                locker.start()
            for _ in range(ROUNDS):
                disturb(scene)
            replace_all(scene)
            for _ in range(ROUNDS - 1):
                disturb(scene)
            for locker in lockers:
                locker.end()
        scene.end(Writer)
        scene.end(Transactor)
        last = max(event.revision for event in scene.history.acknowledged)
        wait_until(
            lambda: all(
                seen and seen[-1].revision >= last for seen in scene.history.watches.values()
            ),
            60,
            "watches are up to date",
        )
        scene.end(Watcher)
        newest = max(seen[-1].revision for seen in scene.history.watches.values())
        truth = tell_truth(scene, newest)
        for seen in scene.history.watches.values():
            truth_seen = [event for event in truth if event.revision <= seen[-1].revision]
            assert len(seen) == len(truth_seen)
        faults = list(find_faults(scene.history, truth))
        assert not faults, (faults[:5], scene.gateway.text()[-3000:])
        assert all(locker.taken for locker in lockers), [locker.said for locker in lockers]
        check_locks(file)
        assert scene.through in scene.ctl("endpoint", "status")
        listed = scene.ctl("member", "list")
        assert all(f"m{n}" in listed for n in (3, 4, 5))
        save_snapshot(scene, tmp_path / "snapshot.db")
        print(
            f"etcd {release}: {len(scene.history.acknowledged)} writes acknowledged,"
            f" {len(scene.history.reads)} reads, {len(truth)} events in each of"
            f" {len(scene.history.watches)} watches, {sum(each.taken for each in lockers)} locks,"
            f" {sum(len(client.errors) for client in scene.clients)} requests tried again"
        )
