"""Certificates of a real etcd cluster: when they end, and their files replaced at run time."""

from __future__ import annotations

import datetime
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from supervisor.cli.admin_client import fetch_status
from tests.dns import NameServer
from tests.etcd import Cluster, needs_etcd
from tests.etcd_answers import PROBE_PATIENCE, unexplained
from tests.gateway import fetch_metrics, running
from tests.support import free_port, wait_until
from tests.tls import Authority

pytestmark = [needs_etcd, pytest.mark.timeout(300), pytest.mark.slow]

SSL = "_etcd-client-ssl._tcp.example.test"
METRIC = "etcd_gateway_endpoint_certificate_not_after_timestamp_seconds"


class Site:
    """A cluster whose members read their certificate from files that are replaced."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.authority = self.add_authority("first")
        self.issue(self.authority, days=3)
        self.cluster = Cluster(
            tls=(self.authority.file, str(directory / "server.pem"), str(directory / "server.key"))
        )

    def add_authority(self, name: str) -> Authority:
        (self.directory / name).mkdir()
        return Authority(self.directory / name)

    def issue(self, authority: Authority, *, days: float) -> float:
        """A new certificate for all members, renamed into its place; when it ends."""
        end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
        names = ("example.test", "infra.example.test", "127.0.0.1", "localhost")
        leaf = authority.ca.issue_cert(*names, not_after=end)
        pems = {"server.key": leaf.private_key_pem, "server.pem": leaf.cert_chain_pems[0]}
        for name, pem in pems.items():
            pem.write_to_path(str(self.directory / "new"))
            (self.directory / "new").replace(self.directory / name)
        return float(int(end.timestamp()))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    with site.cluster:
        yield site


@pytest.fixture
def ns(site: Site) -> Iterator[NameServer]:
    with NameServer() as server:
        server.set("infra.example.test", "A", "127.0.0.1")
        yield server


def publish(ns: NameServer, site: Site, count: int) -> None:
    """As many members are in DNS."""
    ports = site.cluster.client_ports[:count]
    ns.set(SSL, "SRV", *(f"0 0 {port} infra.example.test." for port in ports), ttl=1)


def rows(admin: str) -> dict[str, dict[str, Any]]:
    return {each["endpoint"]: each for each in fetch_status([admin])["endpoints"]}


def ends(admin: str) -> set[float]:
    """What the metrics say of when certificates end."""
    lines = [line for line in fetch_metrics(admin).splitlines() if line.startswith(METRIC + "{")]
    return {float(line.rpartition(" ")[2]) for line in lines}


def test_a_certificate_that_ends_soon_is_told(site: Site, ns: NameServer) -> None:
    """In the status and the metrics; in the log once for each member, over an upgrade, too."""
    publish(ns, site, 3)
    end = site.issue(site.authority, days=3)
    admin = f"127.0.0.1:{free_port()}"
    with running(
        "--discovery-srv=example.test",
        f"--trusted-ca-file={site.authority.file}",
        f"--nameserver={ns.address}",
        f"--admin-addr={admin}",
        "--health-interval=100ms",
    ) as gateway:
        wait_until(lambda: ends(admin) == {end}, 60, "the metrics say when they end")
        assert len(rows(admin)) == 3
        for row in rows(admin).values():
            told = datetime.datetime.fromisoformat(row["certificate_not_after"]).timestamp()
            assert told == end
        lines = gateway.lines("certificate ends soon")
        assert {line["endpoint"] for line in lines} == rows(admin).keys()
        assert {line["days_left"] for line in lines} == {3.0}
        assert len(lines) == 3
        gateway.signal(signal.SIGUSR2)
        gateway.wait_line("ready to proxy client requests", count=2)
        wait_until(lambda: ends(admin) == {end}, 60, "the next image knows it")
        gateway.signal(signal.SIGHUP)
        gateway.wait_line("reload complete")
        assert len(gateway.lines("certificate ends soon")) == 3


@pytest.mark.parametrize("kind", ["auto", "etcd"])
def test_another_authority_is_trusted_without_a_reload(
    site: Site, ns: NameServer, kind: str
) -> None:
    """Links are swapped as Kubernetes does it: gate and probes trust the new one, and no more."""
    second = site.add_authority("second")
    data, link = site.directory / "..data", site.directory / "ca.pem"
    data.symlink_to("first")
    link.symlink_to("..data/ca.pem")
    publish(ns, site, 2)
    admin = f"127.0.0.1:{free_port()}"
    with running(
        "--discovery-srv=example.test",
        f"--trusted-ca-file={link}",
        f"--nameserver={ns.address}",
        f"--admin-addr={admin}",
        PROBE_PATIENCE,
        f"--health-check={kind}",
        "--health-interval=100ms",
        "--discovery-refresh=1s",
    ) as gateway:
        end = site.issue(second, days=60)
        publish(ns, site, 3)
        gateway.wait_line("endpoint left out")
        (refused,) = fetch_status([admin])["discovery"]["refused"].values()
        assert refused.startswith("certificate: ")
        half = site.directory / "half"
        half.mkdir()
        (half / "ca.pem").write_bytes(Path(second.file).read_bytes()[:300])
        swap(data, "half")
        line = gateway.wait_line("changed TLS files cannot be used, those before are kept")
        assert line["files"] == [str(link)]
        swap(data, "second")
        gateway.wait_line("TLS files changed")
        wait_until(lambda: len(rows(admin)) == 3, 60, "the third member is used")
        wait_until(lambda: ends(admin) == {end}, 60, "probes have seen the new certificates")
        wait_until(
            lambda: all(row["state"] == "active" for row in rows(admin).values()), 60, "all active"
        )
        assert unexplained(gateway) == []
        assert gateway.lines("reload complete") == []


def swap(data: Path, target: str) -> None:
    """Point the link to another directory, in one step."""
    new = data.with_name("..new")
    new.symlink_to(target)
    new.replace(data)
