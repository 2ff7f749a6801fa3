"""What members of an etcd cluster say of themselves, joined to one report."""

from __future__ import annotations

from dataclasses import replace

import pytest

from supervisor.core.discovery.cluster_report import (
    ClusterReport,
    MemberAnswer,
    MemberStatus,
    make_report,
    read_quota,
    read_status,
)
from supervisor.core.discovery.member_list import ClusterMember, MemberList

DAY_S = 86400.0
NOW = 1_800_000_000.0

LIST = MemberList(
    0xC,
    (
        ClusterMember(id=1, name="m0", client_urls=("http://10.0.0.0:2379",)),
        ClusterMember(id=2, name="m1", client_urls=("http://10.0.0.1:2379/",)),
        ClusterMember(id=3, name="m2", client_urls=("http://10.0.0.2:2379",), learner=True),
        ClusterMember(id=4, peer_urls=("http://10.0.0.3:2380",)),
    ),
)

STATUS = {
    "header": {"cluster_id": "12", "member_id": "1", "revision": "1", "raft_term": "2"},
    "version": "3.4.23",
    "dbSize": "20480",
    "leader": "2",
    "raftIndex": "4",
    "raftTerm": "2",
    "dbSizeInUse": "16384",
    "errors": ["memberID:1 alarm:NOSPACE ", "memberID:1 alarm:NOSPACE ", "etcdserver: no leader"],
}


def answer(number: int, **more: object) -> MemberAnswer:
    status = MemberStatus(member_id=number, cluster_id=0xC, leader_id=2, learner=number == 3)
    given = MemberAnswer(
        endpoint=f"10.0.0.{number - 1}:2379",
        address=f"10.0.0.{number - 1}",
        status=status,
        listed=LIST,
    )
    return replace(given, **more)  # type: ignore[arg-type]


def roles(report: ClusterReport) -> dict[str, str]:
    return {row.name: row.role for row in report.rows}


def test_a_status_is_read() -> None:
    """Numbers come as texts; alarms are told from other errors."""
    assert read_status(STATUS) == MemberStatus(
        member_id=1,
        cluster_id=12,
        version="3.4.23",
        leader_id=2,
        raft_term=2,
        db_bytes=20480,
        db_in_use_bytes=16384,
        alarms=((1, "NOSPACE"),),
        errors=("etcdserver: no leader",),
    )


def test_a_status_may_lack_everything() -> None:
    """What is missing, or of another type, is as good as zero."""
    assert read_status({}) == MemberStatus()
    odd = {"header": 5, "errors": 5, "version": 5, "leader": "x", "raftTerm": None}
    assert read_status(odd) == MemberStatus()
    assert read_status({"errors": [5]}) == MemberStatus()


@pytest.mark.parametrize(
    ("page", "quota"),
    [
        ("# HELP x\netcd_server_quota_backend_bytes 2.147483648e+09\n", 2147483648),
        ("etcd_server_quota_backend_bytes x\n", 0),
        ("etcd_server_quota_backend_bytes +Inf\n", 0),
        ("other 1\n", 0),
    ],
)
def test_the_quota_is_read_from_the_metrics(page: str, quota: int) -> None:
    """Until etcd 3.6 only the metrics have the quota."""
    assert read_quota(page) == quota


def test_members_that_agree() -> None:
    """Leader, follower, learner and a member that was not started are told apart."""
    report = make_report([answer(1, round_trip_s=0.1), answer(2), answer(3)], NOW)
    assert [row.round_trip_s for row in report.rows] == [0.1, 0.0, 0.0, 0.0]
    assert [row.status is not None for row in report.rows] == [True, True, True, False]
    assert roles(report) == {
        "m0": "follower",
        "m1": "leader",
        "m2": "learner",
        "http://10.0.0.3:2380": "unstarted",
    }
    assert report.same_cluster
    assert report.same_list
    assert report.cluster_ids == (0xC,)
    assert report.problems == ("http://10.0.0.3:2380: is not started",)


def test_a_member_that_is_asked_twice_is_one_row() -> None:
    """Two endpoints may lead to one member."""
    report = make_report([answer(1), answer(1, endpoint="localhost:2379")], NOW)
    assert report.rows[0].endpoints == ("10.0.0.0:2379", "localhost:2379")


def test_a_member_that_cannot_be_asked() -> None:
    """It is in the row of the member whose client URL it is, and others may name it the leader."""
    dead = MemberAnswer(endpoint="10.0.0.1:2379", address="10.0.0.1", error="connection refused")
    report = make_report([answer(1), dead], NOW)
    row = report.rows[1]
    assert (row.name, row.role, row.error) == ("m1", "leader", "connection refused")
    assert row.endpoints == ("10.0.0.1:2379",)
    assert "m1: connection refused" in report.problems
    assert report.rows[2].role == "learner"


def test_an_endpoint_of_nobody() -> None:
    """What could not be asked and is on no list has a row of its own."""
    dead = MemberAnswer(endpoint="10.9.9.9:1", address="10.9.9.9", error="timeout")
    report = make_report([answer(1), dead], NOW)
    assert report.rows[-1].endpoints == ("10.9.9.9:1",)
    assert "10.9.9.9:1: timeout" in report.problems


def test_a_member_that_refuses_its_list() -> None:
    """What a member says of itself is a row without a list, too; nobody knows others' roles."""
    alone = answer(1, listed=None, error="HTTP status 401")
    report = make_report([alone], NOW)
    (row,) = report.rows
    assert (row.name, row.role, row.error) == ("1", "follower", "HTTP status 401")
    only_list = MemberAnswer(endpoint="10.0.0.0:2379", address="10.0.0.0", listed=LIST, error="x")
    told = make_report([only_list], NOW)
    assert told.rows[0].role == ""
    assert told.rows[0].error == "x"


def test_alarms_belong_to_members() -> None:
    """Every member tells of every alarm; each is shown at the member that raised it."""
    alarmed = MemberStatus(member_id=1, cluster_id=0xC, alarms=((2, "NOSPACE"), (2, "CORRUPT")))
    report = make_report([answer(1, status=alarmed), answer(2)], NOW)
    assert [row.alarms for row in report.rows[:2]] == [(), ("CORRUPT", "NOSPACE")]
    assert report.problems[:2] == ("m1: alarm CORRUPT", "m1: alarm NOSPACE")


def test_a_member_that_is_down_is_one_row() -> None:
    """Its client URL leads to the endpoint of another name, which was asked in vain as well."""
    down = [
        answer(2, status=None, listed=None, error="connection refused", endpoint=endpoint)
        for endpoint in ("infra1.test:2379", "10.0.0.1:2379")
    ]
    nowhere = answer(3, status=None, listed=None, error="no address", address="")
    report = make_report([answer(1), *down, nowhere], NOW)
    assert [(row.name, row.endpoints) for row in report.rows[:3]] == [
        ("m0", ("10.0.0.0:2379",)),
        ("m1", ("infra1.test:2379", "10.0.0.1:2379")),
        ("m2", ("10.0.0.2:2379",)),
    ]
    assert report.problems[:2] == ("m1: connection refused", "m2: no address")
    assert len(report.rows) == 4


def test_an_alarm_outlives_its_member() -> None:
    """The cluster refuses writes until it is disarmed, whoever raised it."""
    alarmed = MemberStatus(member_id=1, cluster_id=0xC, alarms=((0xAB, "NOSPACE"),))
    problems = make_report([answer(1, status=alarmed), answer(2), answer(3)], NOW).problems
    assert "ab, which is no member any more: alarm NOSPACE" in problems
    unlisted = answer(1, status=alarmed, listed=None)
    assert make_report([unlisted], NOW).problems == ("ab: alarm NOSPACE",)


def test_members_of_different_clusters() -> None:
    """Two clusters are said with who belongs to which."""
    other = MemberStatus(member_id=9, cluster_id=0xD)
    report = make_report([answer(1), answer(9, status=other, listed=None)], NOW)
    assert not report.same_cluster
    assert report.cluster_ids == (0xC, 0xD)
    assert report.problems[0] == ("members of different clusters: 10.0.0.0:2379 c; 10.0.0.8:2379 d")


def test_different_lists() -> None:
    """Members that name others than the others do are said, with what they name."""
    shorter = MemberList(0xC, LIST.members[:2])
    report = make_report([answer(1), answer(2, listed=shorter), answer(3, listed=None)], NOW)
    assert not report.same_list
    assert "10.0.0.1:2379 names m0, m1" in report.problems[0]


def test_certificates_that_end_soon() -> None:
    """Two weeks before its end, and after it, a certificate is a problem."""
    ends = [NOW + 3 * DAY_S, NOW - DAY_S, NOW + 15 * DAY_S]
    report = make_report([answer(n, certificate_end=end) for n, end in enumerate(ends, 1)], NOW)
    assert report.problems[:2] == (
        "m0: its certificate ends in 3.0 days",
        "m1: its certificate ended 1.0 days ago",
    )
    assert len(report.problems) == 3


def test_errors_of_a_member_are_joined() -> None:
    """What it says is wrong with it comes after what was wrong with asking."""
    status = MemberStatus(member_id=1, errors=("etcdserver: no leader",))
    report = make_report([answer(1, status=status, error="timeout")], NOW)
    assert report.rows[0].error == "timeout; etcdserver: no leader"
