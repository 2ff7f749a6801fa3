"""Probes of kind etcd: real members, well and ill, of each release that is installed."""

from __future__ import annotations

import base64
import json
import signal
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from supervisor.cli.admin_client import fetch_status
from tests.etcd import RELEASES, TRIED, Cluster, needs_etcd
from tests.etcd_answers import PROBE_PATIENCE, insist, insist_get, unexplained
from tests.gateway import Gateway, fetch_metrics, running
from tests.support import PATIENCE, free_port, wait_until
from tests.tls import Authority

pytestmark = [needs_etcd, pytest.mark.timeout(300)]


@pytest.fixture(scope="module", params=TRIED)
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    quota = ["--quota-backend-bytes=3000000"]
    with Cluster(programs=RELEASES[request.param], flags=quota, metrics="http") as cluster:
        yield cluster


class Shown:
    """A gateway with an admin address, and what that says."""

    def __init__(self, gateway: Gateway, admin: str) -> None:
        self.gateway, self.admin = gateway, admin

    def endpoint(self, name: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = [
            each for each in fetch_status([self.admin])["endpoints"] if each["endpoint"] == name
        ]
        return found[0]

    def wait(self, name: str, is_so: Callable[[dict[str, Any]], bool], what: str) -> None:
        try:
            wait_until(lambda: is_so(self.endpoint(name)), 60, what)
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.endpoint(name)}") from None

    def wait_error(self, name: str, error: str) -> None:
        """Until the endpoint is inactive for this reason."""
        self.wait(name, lambda e: e["state"] == "inactive" and error in e["last_error"], error)

    def wait_active(self, name: str) -> None:
        self.wait(name, lambda e: e["state"] == "active" and passed(self.admin, name) > 0, "active")

    @property
    def ready(self) -> bool:
        try:
            with urllib.request.urlopen(
                f"http://{self.admin}/readyz", timeout=20 * PATIENCE
            ) as answer:
                return bool(answer.status == 200)
        except urllib.error.HTTPError:
            return False

    def wait_ready(self) -> None:
        wait_until(lambda: self.ready, 60, "ready")


@contextmanager
def shown(*flags: str, endpoints: list[str]) -> Iterator[Shown]:
    admin = f"127.0.0.1:{free_port()}"
    with running(
        f"--admin-addr={admin}",
        "--health-check=etcd",
        "--health-interval=100ms",
        "--retry-delay=300ms",
        PROBE_PATIENCE,
        *flags,
        endpoints=endpoints,
    ) as gateway:
        yield Shown(gateway, admin)


def passed(admin: str, endpoint: str) -> int:
    """How many probes of the endpoint passed."""
    name = f'etcd_gateway_probes_total{{endpoint="{endpoint}",result="passed"}}'
    lines = fetch_metrics(admin).splitlines()
    return int(float(next(x for x in lines if x.startswith(name)).split()[-1]))


def version_of(cluster: Cluster) -> str:
    said = insist(cluster, cluster.endpoints[0], "endpoint", "status", "--write-out=json")
    return str(json.loads(said)[0]["Status"]["version"])


def test_healthy_members_are_active_and_log_nothing(cluster: Cluster) -> None:
    """The version is known; after many probes no member has a line about them."""
    before = cluster.rejections()
    version = version_of(cluster)
    with shown(endpoints=cluster.founders) as it:
        for name in cluster.founders:
            it.wait(name, lambda e: e["etcd_version"] == version, "its version is known")
            wait_until(lambda name=name: passed(it.admin, name) >= 20, 60)  # type: ignore[misc]
            it.wait(name, lambda e: e["degraded"] is None, "not degraded")
        it.wait_ready()
        assert unexplained(it.gateway) == []
    assert cluster.rejections() == before
    assert "fail exclude alarms" not in cluster.log(0)


def test_a_stopped_member_is_inactive(cluster: Cluster) -> None:
    """Its kernel goes on accepting connections; nothing answers."""
    with shown("--health-timeout=4s", endpoints=cluster.founders) as it:
        name, member = cluster.endpoints[1], cluster.members[1]
        assert member is not None
        it.wait_active(name)
        member.send_signal(signal.SIGSTOP)
        try:
            it.wait_error(name, "timeout: no answer within 4 s")
        finally:
            member.send_signal(signal.SIGCONT)
        it.wait_active(name)


def test_a_member_without_a_leader_is_inactive(cluster: Cluster) -> None:
    """Two of three are killed: the third says so, and the gateway is not ready; then it is."""
    with shown(endpoints=cluster.founders) as it:
        it.wait_active(cluster.endpoints[2])
        cluster.kill(0)
        cluster.kill(1)
        it.wait_error(cluster.endpoints[2], "RAFT NO LEADER")
        wait_until(lambda: not it.ready, 60, "not ready")
        cluster.start(0)
        cluster.start(1)
        for name in cluster.founders:
            it.wait_active(name)
        it.wait_ready()
    cluster.wait_healthy()


def alarm(cluster: Cluster, action: str, kind: str) -> None:
    """Raise an alarm, or take it back, through the JSON gateway of a member."""
    name = cluster.endpoints[0]
    document = json.loads(post(name, "/v3/maintenance/status", {}))
    question = {"action": action, "memberID": document["header"]["member_id"], "alarm": kind}
    post(name, "/v3/maintenance/alarm", question)


def post(endpoint: str, path: str, question: dict[str, str]) -> bytes:
    """What the member answers in the end, though it may elect a leader first."""
    answer = b""

    def has_answered() -> bool:
        nonlocal answer
        try:
            answer = post_once(endpoint, path, question)
        except urllib.error.HTTPError:
            return False
        return True

    wait_until(has_answered, 60, path)
    return answer


def post_once(endpoint: str, path: str, question: dict[str, str]) -> bytes:
    data = json.dumps(question).encode()
    with urllib.request.urlopen(f"http://{endpoint}{path}", data, timeout=20 * PATIENCE) as answer:
        return bytes(answer.read())


def fill(cluster: Cluster) -> None:
    """Write until the quota is reached."""
    value = base64.b64encode(b"x" * 100_000).decode()
    for number in range(1000):
        question = {"key": base64.b64encode(b"k%d" % number).decode(), "value": value}
        try:
            post_once(cluster.endpoints[0], "/v3/kv/put", question)
        except urllib.error.HTTPError as error:
            if b"space exceeded" in error.read():
                return
    raise AssertionError("1000 values are not too many")


def compact(cluster: Cluster, revision: str) -> None:
    """Whether it was so by an attempt before, which etcd said had failed, does not matter."""

    def is_so() -> bool:
        done = cluster.ctl(cluster.endpoints[0], "compact", revision)
        return done.returncode == 0 or "has been compacted" in done.stderr

    wait_until(is_so, 60, "compacted")


def test_a_member_without_space_is_degraded_and_used(cluster: Cluster) -> None:
    """Reads go on, the gateway is ready, the log says it once; when the alarm is gone, that too."""
    fill(cluster)
    with shown(endpoints=cluster.founders) as it:
        for name in cluster.founders:
            it.wait(name, lambda e: e["degraded"] == "NOSPACE", "degraded")
            it.wait(name, lambda e: e["state"] == "active", "active")
            it.wait(name, lambda e: e["last_error"] == "NOSPACE", "with the reason")
        it.wait_ready()
        assert insist_get(cluster, it.gateway.listen, "k0")
        wait_until(
            lambda: "space exceeded" in cluster.ctl(it.gateway.listen, "put", "k0", "v").stderr,
            60,
            "a write is refused for want of space",
        )
        if not it.gateway.lines("deactivated endpoint"):  # by an election: then it is told again
            assert len(it.gateway.lines("endpoint degraded")) == 3
        assert unexplained(it.gateway) == []
        insist(cluster, cluster.endpoints[0], "del", "--prefix", "k")
        revision = json.loads(post(cluster.endpoints[0], "/v3/kv/range", {"key": "azA="}))["header"]
        compact(cluster, revision["revision"])
        for name in cluster.founders:
            insist(cluster, name, "defrag")
        insist(cluster, cluster.endpoints[0], "alarm", "disarm")
        for name in cluster.founders:
            it.wait(name, lambda e: e["degraded"] is None, "no longer degraded")
        if not it.gateway.lines("deactivated endpoint"):
            assert len(it.gateway.lines("endpoint no longer degraded")) == 3


def test_the_health_path_may_exclude_an_alarm(cluster: Cluster) -> None:
    """The query goes to etcd as it is; without it the alarm is a failure of http probes."""
    alarm(cluster, "ACTIVATE", "NOSPACE")
    name = cluster.endpoints[0]
    try:
        with (
            shown(
                "--health-check=http",
                "--health-path=/health?exclude=NOSPACE",
                endpoints=cluster.founders,
            ) as excluding,
            # Else the last two of three, which may include the first, would be kept active.
            shown(
                "--health-check=http", "--health-min-active=0%", endpoints=cluster.founders
            ) as strict,
            shown(f"--health-port={cluster.metrics_ports[0]}", endpoints=[name]) as elsewhere,
        ):
            strict.wait_error(name, "HTTP status 503")
            wait_until(lambda: passed(excluding.admin, name) >= 10, 60, "ten probes")
            excluding.wait_active(name)
            elsewhere.wait(name, lambda e: e["degraded"] == "NOSPACE", "degraded")
            elsewhere.wait_active(name)
    finally:
        alarm(cluster, "DEACTIVATE", "NOSPACE")


def test_a_corrupt_cluster_is_inactive(cluster: Cluster) -> None:
    """Such a cluster answers neither reads nor writes, on no member."""
    alarm(cluster, "ACTIVATE", "CORRUPT")
    try:
        with shown(endpoints=cluster.founders) as it:
            for name in cluster.founders:
                it.wait_error(name, "CORRUPT")
            alarm(cluster, "DEACTIVATE", "CORRUPT")
            for name in cluster.founders:
                it.wait_active(name)
    finally:
        alarm(cluster, "DEACTIVATE", "CORRUPT")


def test_a_learner_is_inactive_until_it_is_promoted(cluster: Cluster) -> None:
    """It takes part in nothing, and refuses reads."""
    index = cluster.add(learner=True)
    name = cluster.endpoints[index]
    try:
        with shown(endpoints=[*cluster.founders, name]) as it:
            it.wait_error(name, "the member is a learner")
            member = cluster.member_ids(cluster.endpoints[0])[f"m{index}"]
            wait_until(
                lambda: is_promoted(cluster, member),
                60,
                "promoted",
            )
            it.wait_active(name)
    finally:
        cluster.remove(index)


def is_promoted(cluster: Cluster, member: str) -> bool:
    """Whether it is a voter now; it must have caught up with the leader for that."""
    done = cluster.ctl(cluster.endpoints[0], "member", "promote", member)
    return done.returncode == 0 or "can only promote a learner member" in done.stderr


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def files(authority: Authority) -> tuple[str, str]:
    return authority.client_files()


@pytest.fixture(scope="module", params=TRIED)
def mutual(
    request: pytest.FixtureRequest, authority: Authority, files: tuple[str, str]
) -> Iterator[Cluster]:
    """Members that demand client certificates, and have another port for their health."""
    with Cluster(
        tls=authority.server_files("127.0.0.1", "localhost"),
        client_files=files,
        programs=RELEASES[request.param],
        metrics="http",
    ) as cluster:
        yield cluster


@pytest.mark.parametrize("scheme", ["https://", ""])
def test_with_a_client_certificate_no_member_complains(
    mutual: Cluster, authority: Authority, files: tuple[str, str], scheme: str
) -> None:
    """Whether the members are known to speak TLS, or that has to be found out."""
    before = mutual.rejections()
    with shown(
        f"--trusted-ca-file={authority.file}",
        f"--health-cert-file={files[0]}",
        f"--health-key-file={files[1]}",
        endpoints=[scheme + name for name in mutual.endpoints],
    ) as it:
        for name in mutual.endpoints:
            wait_until(lambda name=name: passed(it.admin, name) >= 10, 60)  # type: ignore[misc]
            assert it.endpoint(name)["certificate_not_after"] is not None
            assert it.endpoint(name)["etcd_version"] is not None
        assert unexplained(it.gateway) == []
    assert mutual.rejections() == before


def test_without_a_client_certificate_it_says_so(mutual: Cluster, authority: Authority) -> None:
    """The reason names the flag."""
    name = mutual.endpoints[0]
    with shown(f"--trusted-ca-file={authority.file}", endpoints=[f"https://{name}"]) as it:
        it.wait_error(name, "--health-cert-file")


def test_the_health_port_needs_no_client_certificate(mutual: Cluster, authority: Authority) -> None:
    """Plain HTTP beside a TLS port: found out, remembered, and no member logs a connection."""
    before = mutual.rejections()
    name = mutual.endpoints[0]
    with shown(
        f"--health-port={mutual.metrics_ports[0]}",
        f"--trusted-ca-file={authority.file}",
        endpoints=[f"https://{name}"],
    ) as it:
        wait_until(lambda: passed(it.admin, name) >= 10, 60, "ten probes")
        it.wait(name, lambda e: e["etcd_version"] is not None, "its version is known")
        assert unexplained(it.gateway) == []
    assert mutual.rejections() == before


def test_the_health_port_tells_of_a_lost_leader(mutual: Cluster) -> None:
    """With the reason, though 3.4 gives none."""
    name = mutual.endpoints[0]
    with shown(f"--health-port={mutual.metrics_ports[0]}", endpoints=[f"https://{name}"]) as it:
        it.wait_active(name)
        mutual.kill(1)
        mutual.kill(2)
        it.wait_error(name, "RAFT NO LEADER")
        mutual.start(1)
        mutual.start(2)
        it.wait_active(name)
    mutual.wait_healthy()


def test_the_health_port_may_speak_tls(authority: Authority) -> None:
    """That is found out, too, and its certificate is verified as any."""
    tls = authority.server_files("127.0.0.1", "localhost", called="metrics")
    with Cluster(tls=tls, metrics="https") as cluster:
        name = cluster.endpoints[0]
        with shown(
            f"--health-port={cluster.metrics_ports[0]}",
            f"--trusted-ca-file={authority.file}",
            endpoints=[name],
        ) as it:
            wait_until(lambda: passed(it.admin, name) >= 10, 60, "ten probes")
            assert it.endpoint(name)["certificate_not_after"] is not None
            assert unexplained(it.gateway) == []
        assert cluster.rejections() == [[], [], []]
