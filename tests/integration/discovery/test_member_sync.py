"""Endpoints that follow the members of real etcd clusters."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from supervisor.cli.admin_client import fetch_status
from tests.etcd import RELEASES, TRIED, Cluster, needs_etcd
from tests.etcd_answers import PROBE_PATIENCE, insist_get, insist_put, unexplained
from tests.gateway import Gateway, running
from tests.support import free_port, wait_until
from tests.tls import Authority

pytestmark = [needs_etcd, pytest.mark.timeout(300), pytest.mark.slow]

by_release = pytest.mark.parametrize("release", TRIED)


class Writer(threading.Thread):
    """Puts numbers through the gateway, one after the other; ``failure`` says why it ended.

    What etcd answers that it cannot is tried again: a member that is being removed does until it
    ends, and others do while they elect a leader. A connection may fail only with its member.
    """

    def __init__(self, cluster: Cluster, gateway: Gateway) -> None:
        super().__init__(name="writer", daemon=True)
        self._cluster = cluster
        self._gateway = gateway
        self._over = threading.Event()
        self.written = 0
        self.failure = ""

    def run(self) -> None:
        while not self._over.is_set():
            try:
                insist_put(self._cluster, self._gateway.listen, "number", str(self.written + 1))
            except AssertionError as error:
                self.failure = str(error)
                return
            self.written += 1

    def wait_for_more(self) -> None:
        before = self.written
        wait_until(lambda: self.failure or self.written > before + 2, 60, "writes go on")

    def end(self) -> None:
        self._over.set()
        self.join(300)


@contextlib.contextmanager
def writing(cluster: Cluster, gateway: Gateway) -> Iterator[Writer]:
    writer = Writer(cluster, gateway)
    writer.start()
    try:
        yield writer
    finally:
        writer.end()


def sources(admin: str) -> dict[str, str]:
    """The endpoints in use, each with where it is from."""
    return {
        each["endpoint"]: each["source"]
        for each in fetch_status([admin])["endpoints"]
        if each["state"] != "removed"
    }


def wait_endpoints(admin: str, *names: str, deadline_s: float = 60) -> None:
    wait_until(lambda: set(sources(admin)) == set(names), deadline_s, f"endpoints {names}")


def replace(cluster: Cluster, index: int) -> int:
    """A new member, under a new name and port, for one that is removed."""
    new = cluster.add()
    cluster.wait_healthy()
    cluster.remove(index)
    return new


@by_release
def test_all_members_are_replaced_under_a_writer(release: str) -> None:
    """No connection fails but with its member, and what etcd refuses succeeds when it is tried
    again; at the end endpoints are the new members, none of the first among them."""
    admin = f"127.0.0.1:{free_port()}"
    flags = ("--member-sync=1s", "--removal-grace=1s", f"--admin-addr={admin}")
    with (
        Cluster(programs=RELEASES[release]) as cluster,
        running(*flags, endpoints=cluster.endpoints) as gateway,
        writing(cluster, gateway) as writer,
    ):
        for index in range(3):
            replace(cluster, index)
            present = [each for n, each in enumerate(cluster.endpoints) if n > index]
            wait_endpoints(admin, *present)
        first, new = cluster.endpoints[:3], cluster.endpoints[3:]
        writer.wait_for_more()
        wait_until(
            lambda: {each["endpoint"] for each in fetch_status([admin])["endpoints"]} == set(new),
            60,
            "the grace of the first members is over",
        )
        assert set(sources(admin).values()) == {"members"}
        writer.end()
        assert not writer.failure, (writer.failure, gateway.text()[-4000:])
        assert int(insist_get(cluster, gateway.listen, "number")) == writer.written
        removed = {name for line in gateway.lines("endpoints changed") for name in line["removed"]}
        assert removed == set(first)
        assert {line["source"] for line in gateway.lines("endpoints changed")} == {"members"}


def test_the_list_outlives_its_seeds(tmp_path: Path) -> None:
    """After an upgrade the new master follows the list, though the seeds are gone; and learners
    and members that were not started are none of its endpoints."""
    admin = f"127.0.0.1:{free_port()}"
    flags = ("--member-sync=200ms", "--removal-grace=100ms", f"--admin-addr={admin}")
    with Cluster() as cluster, running(*flags, endpoints=cluster.endpoints[:1]) as gateway:
        wait_endpoints(admin, *cluster.endpoints)
        assert sorted(sources(admin).values()) == ["flag", "members", "members"]
        replace(cluster, 0)
        present = cluster.endpoints[1:]
        wait_endpoints(admin, *present)
        gateway.signal(signal.SIGUSR2)
        gateway.wait_line("ready to proxy client requests", 30, count=2)
        assert set(sources(admin)) == set(present)
        insist_put(cluster, gateway.listen, "a", "b")
        cluster.add(learner=True)
        wait_until(lambda: left_out(admin).get("m4") == "is a learner", 60, "the learner")
        assert set(sources(admin)) == set(present)
        failed = gateway.lines("member sync failed, endpoints stay as they were")
        assert all("timeout" in line["error"] for line in failed)  # of a busy host


def left_out(admin: str) -> dict[str, str]:
    found: dict[str, str] = fetch_status([admin])["discovery"]["member_sync"]["left_out"]
    return found


def test_the_cluster_of_most_seeds_is_followed_whoever_was_away() -> None:
    """Two seeds of three are down at the start: the third one's cluster is followed until they are
    back. Then theirs is, and no restart of it changes that."""
    admin = f"127.0.0.1:{free_port()}"
    flags = ("--member-sync=200ms", "--removal-grace=100ms", f"--admin-addr={admin}")
    with Cluster() as most, Cluster() as other:
        for index in range(3):
            most.kill(index)
        with running(*flags, endpoints=[*most.endpoints[:2], other.endpoints[0]]) as gateway:
            wait_endpoints(admin, *other.endpoints)
            gateway.wait_line("member list not settled, another cluster may be adopted")
            for index in range(3):
                most.start(index)
            most.wait_healthy()
            wait_endpoints(admin, *most.endpoints)
            said = gateway.wait_line("another cluster adopted, as more seeds are members of it")
            before = asked_and_failed(admin)
            for index in range(3):
                most.kill(index)
            wait_until(lambda: asked_and_failed(admin) > before + 2, 60, "asked again and again")
            for index in range(3):
                most.start(index)
            most.wait_healthy()
            wait_endpoints(admin, *most.endpoints)
            synced = fetch_status([admin])["discovery"]["member_sync"]
            assert synced["cluster_id"] == said["cluster_id"]


def asked_and_failed(admin: str) -> int:
    synced: dict[str, Any] = fetch_status([admin])["discovery"]["member_sync"]
    return int(synced["results"].get("failure", 0))


def test_a_reload_asks_at_once(tmp_path: Path) -> None:
    """HUP asks for the list whatever the interval, and without it nobody is asked for an hour."""
    admin = f"127.0.0.1:{free_port()}"
    with (
        Cluster() as cluster,
        running("--member-sync=1h", f"--admin-addr={admin}", endpoints=cluster.endpoints) as g,
    ):
        g.wait_line("member list adopted")
        new = cluster.add()
        cluster.wait_healthy()
        assert cluster.endpoints[new] not in sources(admin)
        g.signal(signal.SIGHUP)
        wait_endpoints(admin, *cluster.endpoints)


@by_release
def test_client_certificates_and_authentication(release: str, tmp_path: Path) -> None:
    """The list is told to a client certificate without a password, and asking for it leaves no
    rejected connection in any member's log."""
    authority = Authority(tmp_path)
    files = authority.client_files()
    admin = f"127.0.0.1:{free_port()}"
    with Cluster(
        tls=authority.server_files("127.0.0.1", "localhost"),
        client_files=files,
        programs=RELEASES[release],
    ) as cluster:
        cluster.require_users()
        before = cluster.rejections()
        with running(
            PROBE_PATIENCE,
            "--member-sync=200ms",
            f"--admin-addr={admin}",
            f"--trusted-ca-file={authority.file}",
            f"--health-cert-file={files[0]}",
            f"--health-key-file={files[1]}",
            endpoints=[f"https://{cluster.endpoints[0]}"],
        ) as gateway:
            wait_endpoints(admin, *cluster.endpoints)
            asked = gateway.wait_line("member list adopted")
            assert sorted(asked["endpoints"]) == sorted(cluster.endpoints)
            wait_until(lambda: successes(admin) > 5, 60, "asked again and again")
            assert not unexplained(gateway)
        assert cluster.rejections() == before


def successes(admin: str) -> int:
    synced: dict[str, Any] = fetch_status([admin])["discovery"]["member_sync"]
    return int(synced["results"]["success"])
