"""The report on an etcd cluster as ``check`` prints it, and as its JSON document has it."""

from __future__ import annotations

import datetime
from typing import Any

from supervisor.cli.figures import size
from supervisor.cli.tables import Cell, Part, line, make_table
from supervisor.core.discovery.cluster_report import ClusterReport, MemberRow

HEAD = ("MEMBER", "ENDPOINT", "VERSION", "ROLE", "TERM", "DB", "QUOTA", "CERTIFICATE", "RTT")


def render(report: ClusterReport) -> list[Part]:
    """A table of the members, whether they agree, and what is wrong."""
    rows = [_cells(row) for row in report.rows]
    clusters = ", ".join(f"{each:x}" for each in report.cluster_ids) or "unknown"
    agree = "agree on cluster and members" if _agree(report) else "do not agree"
    return [
        "",
        make_table(HEAD, rows, left=HEAD[:4], last="ALARMS", names=2),
        line(f"etcd cluster {clusters}: the members that answered {agree}"),
        *(line(f"problem: {text}", style="yellow") for text in report.problems),
    ]


def describe(report: ClusterReport | None) -> dict[str, Any] | None:
    """The same as values that JSON can carry; None if no endpoint is etcd."""
    if report is None:
        return None
    return {
        "cluster_ids": [f"{each:x}" for each in report.cluster_ids],
        "same_cluster_id": report.same_cluster,
        "same_member_list": report.same_list,
        "members": [_document(row) for row in report.rows],
        "problems": list(report.problems),
    }


def _agree(report: ClusterReport) -> bool:
    return report.same_cluster and report.same_list


def _cells(row: MemberRow) -> list[Cell]:
    status, end = row.status, row.certificate_end
    return [
        row.name,
        ", ".join(row.endpoints),
        status.version if status else "",
        row.role,
        str(status.raft_term) if status else "",
        size(status.db_bytes) if status else "",
        size(status.quota_bytes) if status and status.quota_bytes else "",
        f"{datetime.datetime.fromtimestamp(end, datetime.UTC):%Y-%m-%d}" if end else "",
        f"{row.round_trip_s * 1000:.1f} ms" if row.round_trip_s else "",
        line(", ".join(row.alarms), style="red"),
    ]


def _document(row: MemberRow) -> dict[str, Any]:
    status, end = row.status, row.certificate_end
    return {
        "name": row.name or None,
        "id": f"{row.member_id:x}" if row.member_id else None,
        "endpoints": list(row.endpoints),
        "address": (row.answer.address or None) if row.answer else None,
        "version": (status.version or None) if status else None,
        "role": row.role or None,
        "learner": row.role == "learner",
        "raft_term": status.raft_term if status else None,
        "cluster_id": f"{status.cluster_id:x}" if status else None,
        "leader_id": f"{status.leader_id:x}" if status and status.leader_id else None,
        "db_size_bytes": status.db_bytes if status else None,
        "db_in_use_bytes": status.db_in_use_bytes if status else None,
        "db_quota_bytes": (status.quota_bytes or None) if status else None,
        "alarms": list(row.alarms),
        "certificate_not_after": f"{_instant(end)}" if end else None,
        "round_trip_s": round(row.round_trip_s, 6) if row.round_trip_s else None,
        "error": row.error or None,
    }


def _instant(end: float) -> str:
    return f"{datetime.datetime.fromtimestamp(end, datetime.UTC):%Y-%m-%dT%H:%M:%SZ}"
