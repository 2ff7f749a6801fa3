"""A real etcd cluster that demands client certificates, probed with and without one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.etcd import Cluster, needs_etcd
from tests.etcd_answers import PROBE_PATIENCE, insist_put, unexplained
from tests.gateway import run_command, running
from tests.support import wait_until
from tests.tls import Authority

pytestmark = [needs_etcd, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def files(authority: Authority) -> tuple[str, str]:
    return authority.client_files()


@pytest.fixture(scope="module")
def cluster(authority: Authority, files: tuple[str, str]) -> Iterator[Cluster]:
    tls = authority.server_files("127.0.0.1", "localhost")
    with Cluster(tls=tls, client_files=files) as cluster:
        yield cluster


@pytest.mark.parametrize("kind", ["tls", "https"])
def test_probes_with_a_certificate_leave_no_trace(
    cluster: Cluster, authority: Authority, files: tuple[str, str], kind: str
) -> None:
    """Members are active, etcd logs no rejected connection, clients are served; so with check."""
    before = cluster.rejections()
    endpoints = [f"https://{name}" for name in cluster.endpoints]
    flags = [
        f"--health-check={kind}",
        f"--trusted-ca-file={authority.file}",
        f"--health-cert-file={files[0]}",
        f"--health-key-file={files[1]}",
    ]
    with running(PROBE_PATIENCE, "--health-interval=100ms", *flags, endpoints=endpoints) as gateway:
        for n in range(6):
            insist_put(cluster, gateway.listen, "key", f"value {n}")
        assert unexplained(gateway) == []
        done = run_command("check", f"--endpoints={','.join(endpoints)}", *flags)
        assert done.returncode == 0, done.stdout + done.stderr
    assert cluster.rejections() == before


def test_https_probes_without_a_certificate_say_so(cluster: Cluster, authority: Authority) -> None:
    """The member refuses to answer: inactive, with the reason; clients are served all the same.

    Nor does it tell its member list, and the reason is the same.
    """
    with running(
        "--health-check=https",
        "--member-sync=200ms",
        f"--trusted-ca-file={authority.file}",
        endpoints=[f"https://{cluster.endpoints[0]}"],
    ) as gateway:
        line = gateway.wait_line("deactivated endpoint")
        assert "--health-cert-file" in line["error"]
        failed = "member sync failed, endpoints stay as they were"
        wanted = "wants a client certificate: --health-cert-file"
        wait_until(lambda: any(wanted in each["error"] for each in gateway.lines(failed)))
        insist_put(cluster, gateway.listen, "key", "value")


def test_tls_probes_without_a_certificate(cluster: Cluster, authority: Authority) -> None:
    """The member has shown that it lives: active."""
    with running(
        PROBE_PATIENCE,
        "--health-interval=100ms",
        f"--trusted-ca-file={authority.file}",
        endpoints=[f"https://{cluster.endpoints[0]}"],
    ) as gateway:
        for n in range(6):
            insist_put(cluster, gateway.listen, "key", f"value {n}")
        assert unexplained(gateway) == []
