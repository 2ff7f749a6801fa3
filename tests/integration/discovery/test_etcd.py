"""A real TLS etcd cluster, found by SRV, with etcdctl through the gateway."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.cli.admin_client import fetch_status
from tests.dns import NameServer
from tests.etcd import Cluster, needs_etcd
from tests.etcd_answers import PROBE_PATIENCE, insist_get, insist_put
from tests.gateway import run_command, running
from tests.support import free_port, wait_until
from tests.tls import Authority

pytestmark = [needs_etcd, pytest.mark.timeout(300)]

SSL = "_etcd-client-ssl._tcp.example.test"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    authority = Authority(tmp_path_factory.mktemp("tls"))
    tls = authority.server_files("example.test", "127.0.0.1", "localhost")
    with Cluster(tls=tls) as cluster:
        yield cluster


@pytest.fixture
def ns(cluster: Cluster) -> Iterator[NameServer]:
    with NameServer() as server:
        server.set("infra.example.test", "A", "127.0.0.1")
        records = (f"0 0 {port} infra.example.test." for port in cluster.client_ports)
        server.set(SSL, "SRV", *records)
        yield server


def test_a_tls_cluster_is_found_verified_and_used(cluster: Cluster, ns: NameServer) -> None:
    """Members are verified for the discovery domain and used; the client's TLS is untouched, and
    neither the TLS check nor the probes leave a trace in etcd's log."""
    assert cluster.tls is not None
    before = cluster.rejections()
    with running(
        PROBE_PATIENCE,
        "--discovery-srv=example.test",
        f"--trusted-ca-file={cluster.tls[0]}",
        f"--nameserver={ns.address}",
    ) as gateway:
        (line,) = gateway.lines("using validated discovered SRV endpoints")
        assert len(line["endpoints"]) == 3
        for n in range(6):
            insist_put(cluster, gateway.listen, "key", f"value {n}")
            assert insist_get(cluster, gateway.listen, "key") == f"value {n}"
        gateway.signal(signal.SIGHUP)
        gateway.wait_line("reload complete")
    assert cluster.rejections() == before


def test_members_beside_the_records_pass_the_same_check(cluster: Cluster, ns: NameServer) -> None:
    """With --member-sync one record finds all members; those are verified for the discovery
    domain too, and neither question nor check leaves a trace in etcd's log."""
    assert cluster.tls is not None
    before = cluster.rejections()
    ns.set(SSL, "SRV", f"0 0 {cluster.client_ports[0]} infra.example.test.")
    admin = f"127.0.0.1:{free_port()}"
    with running(
        PROBE_PATIENCE,
        "--discovery-srv=example.test",
        "--member-sync=200ms",
        f"--admin-addr={admin}",
        f"--trusted-ca-file={cluster.tls[0]}",
        f"--nameserver={ns.address}",
    ) as gateway:
        wait_until(lambda: len(fetch_status([admin])["endpoints"]) == 3, 60, "three endpoints")
        sources = {each["endpoint"]: each["source"] for each in fetch_status([admin])["endpoints"]}
        assert sorted(sources.values()) == ["members", "members", "srv"]
        assert sources[f"infra.example.test:{cluster.client_ports[0]}"] == "srv"
        assert gateway.lines("endpoints changed")[0]["source"] == "members"
        insist_put(cluster, gateway.listen, "key", "value")
    assert cluster.rejections() == before


def test_the_wrong_authority_lets_none_pass(
    cluster: Cluster, ns: NameServer, tmp_path: Path
) -> None:
    """With another CA all members are refused: exit code 69, and no fallback."""
    done = run_command(
        "start",
        "--discovery-srv=example.test",
        f"--trusted-ca-file={Authority(tmp_path).file}",
        f"--nameserver={ns.address}",
        f"--listen-addr=127.0.0.1:{free_port()}",
    )
    assert done.returncode == 69, done.stderr
    assert "certificate" in done.stderr


def test_check_shows_the_cluster(cluster: Cluster, ns: NameServer) -> None:
    """check finds, verifies and dials all three members, and leaves no trace in their logs."""
    assert cluster.tls is not None
    before = cluster.rejections()
    done = run_command(
        "check",
        f"--listen-addr=127.0.0.1:{free_port()}",
        "--discovery-srv=example.test",
        f"--trusted-ca-file={cluster.tls[0]}",
        f"--nameserver={ns.address}",
    )
    assert done.returncode == 0, done.stderr
    assert "3 of 3 endpoints can be used" in done.stdout
    assert cluster.rejections() == before
