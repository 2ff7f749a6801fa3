"""What the members of an etcd cluster say of themselves, joined to one report for ``check``.

Everything but the quota comes from ``/v3/maintenance/status`` and the member list, which each
member answers by itself, also with authentication on: asking for alarms alone would be a proposal
to the whole cluster.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import field
from typing import Any

from gateway.core.records import dataclass
from supervisor.core.discovery.member_list import ClusterMember, MemberList, plain
from supervisor.core.json_object import read_number

QUOTA_METRIC = "etcd_server_quota_backend_bytes"

SOON_S = 14 * 86400.0
"""A certificate that ends within this is worth a line."""

_ALARM = re.compile(r"memberID:(\d+)\s+alarm:(\w+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberStatus:
    """What one member says of itself; sizes in bytes, 0 where it does not say.

    ``alarms``: of all members that it knows of, by number. ``leader_id``: 0 if it knows none.
    """

    member_id: int = 0
    cluster_id: int = 0
    version: str = ""
    leader_id: int = 0
    raft_term: int = 0
    db_bytes: int = 0
    db_in_use_bytes: int = 0
    quota_bytes: int = 0
    learner: bool = False
    alarms: tuple[tuple[int, str], ...] = ()
    errors: tuple[str, ...] = ()
    """Other than alarms."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberAnswer:
    """What asking at one address gave.

    ``round_trip_s``: how long connecting took. ``certificate_end``: seconds since the epoch, None
    without TLS. ``error``: why something is missing. ``status`` and ``listed`` are None if unknown.
    """

    endpoint: str
    address: str
    round_trip_s: float = 0.0
    certificate_end: float | None = None
    status: MemberStatus | None = None
    listed: MemberList | None = None
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberRow:
    """One member in the report. ``answer`` is None if nothing asked it, ``endpoints`` then empty.

    ``role`` is leader, follower, learner, unstarted, or "" if nobody knows.
    """

    name: str = ""
    member_id: int = 0
    role: str = ""
    alarms: tuple[str, ...] = ()
    endpoints: tuple[str, ...] = ()
    answer: MemberAnswer | None = None
    error: str = ""

    @property
    def status(self) -> MemberStatus | None:
        return self.answer.status if self.answer else None

    @property
    def certificate_end(self) -> float | None:
        """In seconds since the epoch; None if it showed no certificate."""
        return self.answer.certificate_end if self.answer else None

    @property
    def round_trip_s(self) -> float:
        """How long connecting took; 0 if it could not be reached."""
        return self.answer.round_trip_s if self.answer else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterReport:
    """The members, those of the lists first; whether all agree; and what is wrong, a line each."""

    rows: tuple[MemberRow, ...] = ()
    cluster_ids: tuple[int, ...] = ()
    same_cluster: bool = True
    same_list: bool = True
    problems: tuple[str, ...] = field(default=())


def read_status(document: Mapping[str, Any]) -> MemberStatus:
    """The answer of ``/v3/maintenance/status``; what is missing or no number is 0."""
    header = document.get("header")
    header = header if isinstance(header, Mapping) else {}
    errors = document.get("errors")
    texts = [plain(each) for each in errors if each] if isinstance(errors, list) else []
    alarms = [(int(number), kind) for text in texts for number, kind in _ALARM.findall(text)]
    return MemberStatus(
        member_id=read_number(header.get("member_id")),
        cluster_id=read_number(header.get("cluster_id")),
        version=plain(document.get("version")),
        leader_id=read_number(document.get("leader")),
        raft_term=read_number(document.get("raftTerm")),
        db_bytes=read_number(document.get("dbSize")),
        db_in_use_bytes=read_number(document.get("dbSizeInUse")),
        quota_bytes=read_number(document.get("dbSizeQuota")),
        learner=document.get("isLearner") is True,
        alarms=tuple(dict.fromkeys(alarms)),
        errors=tuple(text for text in texts if text and not _ALARM.search(text)),
    )


def read_quota(metrics: str) -> int:
    """The quota of the database in a page of metrics, in bytes; 0 if it is not there."""
    found = re.search(rf"^{QUOTA_METRIC} (\S+)$", metrics, re.MULTILINE)
    try:
        return int(float(found[1])) if found else 0
    except (ValueError, OverflowError):
        return 0


def make_report(answers: Iterable[MemberAnswer], now: float) -> ClusterReport:
    """Join the answers; ``now`` is in seconds since the epoch, as certificates are."""
    given = tuple(answers)
    listed = {member.id: member for each in given if each.listed for member in each.listed.members}
    by_id: dict[int, list[MemberAnswer]] = {number: [] for number in listed}
    lost: list[MemberAnswer] = []
    for each in given:
        if each.status is None:
            lost.append(each)
        else:
            by_id.setdefault(each.status.member_id, []).append(each)
    alarms = {pair for each in given if each.status for pair in each.status.alarms}
    leaders = {each.status.leader_id for each in given if each.status and each.status.leader_id}
    rows = []
    for number, answered in by_id.items():
        member = listed.get(number)
        own = answered or _lost_at(listed[number], lost)
        lost = [each for each in lost if each not in own]
        rows.append(_row(number, member, own, alarms, leaders))
    rows.sort(key=lambda row: (row.role == "unstarted", row.name))
    rows += [MemberRow(endpoints=(e.endpoint,), answer=e, error=e.error) for e in lost]
    told = [part.cluster_id for each in given for part in (each.listed, each.status) if part]
    clusters = tuple(dict.fromkeys(number for number in told if number))
    lists = {frozenset(each.listed.members) for each in given if each.listed}
    problems = [
        *_disagreements(given, clusters, lists),
        *(text for row in rows for text in _complaints(row, now)),
        *_ownerless(alarms, set(by_id), listed=bool(listed)),
    ]
    return ClusterReport(
        rows=tuple(rows),
        cluster_ids=clusters,
        same_cluster=len(clusters) <= 1,
        same_list=len(lists) <= 1,
        problems=tuple(problems),
    )


def _row(
    number: int,
    member: ClusterMember | None,
    answers: list[MemberAnswer],
    alarms: set[tuple[int, str]],
    leaders: set[int],
) -> MemberRow:
    answer = answers[0] if answers else None
    return MemberRow(
        name=member.label if member else f"{number:x}",
        member_id=number,
        role=_role(number, member, answer, leaders),
        alarms=tuple(sorted(kind for whose, kind in alarms if whose == number)),
        endpoints=tuple(dict.fromkeys(each.endpoint for each in answers)),
        answer=answer,
        error="; ".join(_errors(answer)) if answer else "",
    )


def _role(
    number: int, member: ClusterMember | None, answer: MemberAnswer | None, leaders: set[int]
) -> str:
    if member is not None and not member.started:
        return "unstarted"
    status = answer.status if answer else None
    if (member is not None and member.learner) or (status is not None and status.learner):
        return "learner"
    if status is not None:
        return "leader" if status.leader_id == number else "follower"
    return "leader" if number in leaders else ""


def _errors(answer: MemberAnswer) -> list[str]:
    of_status = answer.status.errors if answer.status else ()
    return [*([answer.error] if answer.error else []), *of_status]


def _names(member: ClusterMember, endpoint: str) -> bool:
    """Whether the endpoint is one of the member's client URLs."""
    return any(url.partition("://")[2].rstrip("/") == endpoint for url in member.client_urls)


def _lost_at(member: ClusterMember, lost: list[MemberAnswer]) -> list[MemberAnswer]:
    """The failures at a member's client URLs, and at endpoints that are the same places."""
    places = {_place(each) for each in lost if _names(member, each.endpoint)}
    return [each for each in lost if _names(member, each.endpoint) or _place(each) in places]


def _place(answer: MemberAnswer) -> tuple[str, str]:
    """Where it was asked; an answer without an address is at a place of its own."""
    port = answer.endpoint.rpartition(":")[2]
    return (answer.address, port) if answer.address else (answer.endpoint, "")


def _disagreements(
    answers: tuple[MemberAnswer, ...],
    clusters: tuple[int, ...],
    lists: set[frozenset[ClusterMember]],
) -> list[str]:
    lines = []
    if len(clusters) > 1:
        lines.append(
            "members of different clusters: "
            + "; ".join(
                f"{each.endpoint} {each.status.cluster_id:x}" for each in answers if each.status
            )
        )
    elif len(lists) > 1:
        told = [
            f"{each.endpoint} names {', '.join(member.label for member in each.listed.members)}"
            for each in answers
            if each.listed
        ]
        lines.append(f"members tell different lists: {'; '.join(told)}")
    return lines


def _ownerless(alarms: set[tuple[int, str]], members: set[int], *, listed: bool) -> list[str]:
    """Alarms that no row has: that of a member outlives the member, and holds for the cluster."""
    rest = sorted((whose, kind) for whose, kind in alarms if whose not in members)
    gone = ", which is no member any more" if listed else ""
    return [f"{whose:x}{gone}: alarm {kind}" for whose, kind in rest]


def _complaints(row: MemberRow, now: float) -> list[str]:
    who = row.name or next(iter(row.endpoints), f"{row.member_id:x}")
    lines = [f"{who}: alarm {kind}" for kind in row.alarms]
    if row.error:
        lines.append(f"{who}: {row.error}")
    elif row.role == "unstarted":
        lines.append(f"{who}: is not started")
    end = row.certificate_end
    if end is not None and end - now < SOON_S:
        days = (end - now) / 86400
        lines.append(
            f"{who}: its certificate ended {-days:.1f} days ago"
            if days < 0
            else f"{who}: its certificate ends in {days:.1f} days"
        )
    return lines
