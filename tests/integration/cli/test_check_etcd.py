"""``check`` against real etcd: what it says of each member, and what it leaves alone."""

from __future__ import annotations

import datetime
import json
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from supervisor.cli import etcd_members
from supervisor.cli.main import main
from tests.etcd import RELEASES, TRIED, Cluster, needs_etcd
from tests.etcd_answers import insist
from tests.gateway import run_command
from tests.servers import Script, answer, greet, serving, silent
from tests.support import free_port, wait_until
from tests.tls import Authority
from tests.tls import Server as TlsServer

TCP = "--health-check=tcp"

pytestmark = [pytest.mark.timeout(300)]

by_release = pytest.mark.parametrize("release", TRIED)


def checked(*flags: str, code: int = 0) -> dict[str, Any]:
    done = run_command("check", f"--listen-addr=127.0.0.1:{free_port()}", "--json", *flags)
    assert done.returncode == code, (done.stdout, done.stderr)
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def settled(*flags: str, voters: Sequence[str]) -> dict[str, Any]:
    """What ``check`` says when these members have one leader among them, and agree on it.

    They may elect another one at any time, if the machine is busy.
    """
    document: dict[str, Any] = {}

    def is_settled() -> bool:
        nonlocal document
        document = checked(*flags)
        members = by_name(document)
        if not members.keys() >= set(voters):
            return False
        roles = sorted(str(members[name]["role"]) for name in voters)
        errors = [members[name]["error"] for name in voters]
        return roles == ["follower"] * (len(voters) - 1) + ["leader"] and not any(errors)

    try:
        wait_until(is_settled, 60, "a leader and its followers")
    except AssertionError as error:
        raise AssertionError(f"{error}: {document}") from None
    return document


def is_full(cluster: Cluster) -> bool:
    """Whether one more value is refused for want of space."""
    done = cluster.ctl(cluster.endpoints[0], "put", "x", "y" * 100_000)
    return "space exceeded" in done.stderr


def by_name(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The members that check was told of; none if no endpoint answered in time."""
    etcd = document["etcd"] or {"members": []}
    return {each["name"]: each for each in etcd["members"]}


def tells(member: str, error: str, flag: str) -> bool:
    return error in (by_name(checked(flag)).get(member, {}).get("error") or "")


@needs_etcd
@by_release
def test_members_leader_learner_alarm_and_certificate(release: str, tmp_path: Path) -> None:
    """One endpoint is enough to see every member: roles, the alarm, the certificate's end."""
    authority = Authority(tmp_path)
    ends_at = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=3)
    with Cluster(
        tls=authority.server_files("127.0.0.1", "localhost", not_after=ends_at),
        flags=["--quota-backend-bytes=1000000"],
        programs=RELEASES[release],
    ) as cluster:
        cluster.add(learner=True)
        wait_until(lambda: is_full(cluster), 120, "the quota is reached")
        assert "NOSPACE" in insist(cluster, cluster.endpoints[0], "alarm", "list")
        before = cluster.rejections()
        flags = [
            f"--endpoints=https://{cluster.endpoints[0]}",
            f"--trusted-ca-file={authority.file}",
        ]
        document = settled(*flags, voters=("m0", "m1", "m2"))
        members = by_name(document)
        assert sorted(members) == ["m0", "m1", "m2", "m3"]
        assert members["m3"]["role"] == "learner"
        assert any("NOSPACE" in each["alarms"] for each in members.values())
        for each in members.values():
            assert each["version"].startswith(release)
            assert each["certificate_not_after"][:10] == f"{ends_at:%Y-%m-%d}"
            assert each["raft_term"] > 0
            assert each["db_size_bytes"] > 0
            assert each["db_quota_bytes"] == 1000000
            assert each["round_trip_s"] > 0
            assert each["error"] is None
        assert document["etcd"]["same_cluster_id"]
        assert document["etcd"]["same_member_list"]
        problems = "\n".join(document["etcd"]["problems"])
        assert "alarm NOSPACE" in problems
        assert "its certificate ends in" in problems
        printed = run_command("check", f"--listen-addr=127.0.0.1:{free_port()}", *flags).stdout
        for word in ("MEMBER", "learner", "leader", "NOSPACE", "976.6 KiB", f"{ends_at:%Y-%m-%d}"):
            assert word in printed, printed
        assert cluster.rejections() == before


@needs_etcd
def test_a_cluster_in_trouble(tmp_path: Path) -> None:
    """A dead member is in its row; without a quorum members say that they have no leader."""
    with Cluster() as cluster:
        cluster.kill(0)
        flag = "--endpoints=" + ",".join(cluster.endpoints)
        members = by_name(settled(flag, voters=("m1", "m2")))
        assert members["m0"]["error"] == "connection refused"
        cluster.kill(1)
        cluster.wait_leaderless(2)
        wait_until(lambda: tells("m2", "no leader", flag))
        cluster.kill(2)
        assert checked(flag, code=69)["etcd"] is None


@needs_etcd
def test_tls_that_nobody_told_of(tmp_path: Path) -> None:
    """Members that speak TLS are asked by TLS, though the endpoint has no https:// in front, and
    have no rejected connection in their logs afterwards."""
    authority = Authority(tmp_path)
    with Cluster(tls=authority.server_files("127.0.0.1", "localhost")) as cluster:
        flags = [
            f"--endpoints={','.join(cluster.endpoints)}",
            f"--trusted-ca-file={authority.file}",
        ]
        before = cluster.rejections()
        members = by_name(checked(*flags))
        assert cluster.rejections() == before
        for each in members.values():
            (name,) = each["endpoints"]
            assert each["role"] in ("leader", "follower")
            assert each["error"] == f"speaks TLS, expected https://{name} to say so"
        wrong = checked(f"--endpoints=https://{cluster.endpoints[0]}")
        assert wrong["etcd"] is None
        assert wrong["usable"] == 1


def test_a_certificate_that_probes_would_not_accept_is_said(tmp_path: Path) -> None:
    """An https:// endpoint that can be dialed is inactive all the same, so check says why."""
    with TlsServer(Authority(tmp_path).context("127.0.0.1")) as server:
        name = f"127.0.0.1:{server.port}"
        document = checked(f"--endpoints=https://{name}")
        (problem,) = document["problems"]
        assert problem.startswith(f"{name}: TLS: certificate: ")
        assert (document["etcd"], document["usable"]) == (None, 1)
        for flags in ([f"--endpoints={name}"], [f"--endpoints=https://{name}", TCP]):
            assert checked(*flags)["problems"] == []


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (["--health-check=http"], "HTTP status 404 (health check: http)"),
        (["--health-check=http", "--health-path=/good"], ""),
        (["--health-check=tls"], "TLS: "),
        (["--health-check=https"], "TLS: "),
        (["--health-check=etcd"], "health check: etcd"),
        (["--health-check=off"], ""),
        (["--health-check=tcp"], ""),
    ],
)
def test_a_health_check_that_fails_is_said(flags: Sequence[str], problem: str) -> None:
    """Without it the endpoint is inactive as soon as the gateway runs, and check has no word of it.

    The exit code is that of the dial.
    """

    def script(conn: socket.socket) -> None:
        good = conn.recv(1000).startswith(b"GET /good ")
        status = b"200 OK" if good else b"404 Not Found"
        conn.sendall(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n")

    with serving(script) as server:
        name = f"127.0.0.1:{server.port}"
        problems = checked(f"--endpoints={name}", *flags)["problems"]
        assert [each.startswith(f"{name}: ") for each in problems] == [True] * bool(problem)
        assert all(problem in each for each in problems)


@needs_etcd
def test_what_start_would_follow(tmp_path: Path) -> None:
    """With --member-sync the endpoints are the members, and --explain says who told of them."""
    with Cluster() as cluster:
        flags = [f"--endpoints={cluster.endpoints[0]}", "--member-sync=30s", "--explain"]
        document = checked(*flags)
        sources = {each["endpoint"]: each["source"] for each in document["endpoints"]}
        assert set(sources) == set(cluster.endpoints)
        assert sorted(sources.values()) == ["endpoints", "members", "members"]
        tree = document["explanation"][-1]
        assert tree["asked"] == cluster.endpoints[0]
        assert {each["endpoint"] for each in tree["children"]} == set(cluster.endpoints)
        printed = run_command("check", f"--listen-addr=127.0.0.1:{free_port()}", *flags).stdout
        assert f"told by {cluster.endpoints[0]}" in printed


def test_a_list_that_start_would_not_follow_is_said() -> None:
    """With --member-sync and nobody to tell the members, check says so without --explain."""
    with serving(answer("404 Not Found")) as server:
        name = f"127.0.0.1:{server.port}"
        # A thread of a busy test may answer late.
        flags = [f"--endpoints={name}", "--member-sync=30s", "--health-timeout=60s"]
        problem = f"member list not adopted: {name}: HTTP status 404"
        assert checked(*flags)["problems"] == [problem]
        printed = run_command("check", f"--listen-addr=127.0.0.1:{free_port()}", *flags)
    assert f"problem: {problem}\n" in printed.stdout
    assert printed.returncode == 0


@pytest.mark.parametrize("script", [greet, silent, answer("404 Not Found"), answer("200 OK", b"5")])
def test_other_servers_are_as_before(script: Script) -> None:
    """What is not etcd has no table, and its exit code is that of the dial."""
    with serving(script) as server:
        document = checked(f"--endpoints=127.0.0.1:{server.port}", "--health-timeout=500ms")
        assert document["etcd"] is None
        assert document["usable"] == 1
        printed = run_command(
            "check",
            f"--listen-addr=127.0.0.1:{free_port()}",
            f"--endpoints=127.0.0.1:{server.port}",
        ).stdout
    assert "etcd" not in printed


def test_a_server_that_speaks_first_gets_no_http(monkeypatch: pytest.MonkeyPatch) -> None:
    """A database or a mail server is told nothing that it might mind."""
    monkeypatch.setattr(etcd_members, "GREETING_S", 60.0)  # a thread of a busy test greets late
    heard: list[bytes] = []

    def script(conn: socket.socket) -> None:
        conn.sendall(b"220 mail.example.com\r\n")
        heard.append(conn.recv(1000))

    with serving(script) as server:
        endpoint = f"--endpoints=127.0.0.1:{server.port}"
        assert main(["check", f"--listen-addr=127.0.0.1:{free_port()}", "--json", endpoint]) == 0
        wait_until(lambda: heard)
    assert set(heard) == {b""}
