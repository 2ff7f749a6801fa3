"""The member list of an etcd cluster: what ``/v3/cluster/member/list`` says, and whom to dial.

etcd 3.4, 3.5 and 3.6 answer alike. Numbers of 64 bits come as texts; what is zero, false or empty
is left out. A member that never started has neither a name nor client URLs.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from gateway.core.address import HostPort, literal_ip, parse_tcp_endpoint
from gateway.core.records import dataclass
from gateway.core.unix_address import is_unix

MAX_TEXT = 300
"""Characters of a name, a URL or an error that are read; a host name has 253."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterMember:
    """One member as the list has it."""

    id: int
    name: str = ""
    peer_urls: tuple[str, ...] = ()
    client_urls: tuple[str, ...] = ()
    learner: bool = False

    @property
    def started(self) -> bool:
        return bool(self.client_urls)

    @property
    def label(self) -> str:
        """What people call it: its name, else its peer URL, else its number; no two are equal."""
        return self.name or next(iter(self.peer_urls), f"{self.id:x}")


@dataclass(frozen=True, slots=True)
class MemberList:
    """The cluster's number, and its members in the order of the answer."""

    cluster_id: int
    members: tuple[ClusterMember, ...]

    @property
    def voters(self) -> tuple[str, ...]:
        """The labels of the started voting members."""
        return tuple(each.label for each in self.members if each.started and not each.learner)


@dataclass(frozen=True, slots=True)
class MemberTarget:
    """One client URL of a member: where to dial, and whether its scheme was ``https``."""

    member: str
    address: HostPort
    tls: bool = False


def parse_list(document: object) -> MemberList:
    """The list in an answer; raises ValueError that says what is wrong with it."""
    if not isinstance(document, Mapping):
        raise ValueError("the answer is no JSON object")
    header, members = document.get("header"), document.get("members")
    if not isinstance(header, Mapping) or not isinstance(members, Sequence):
        raise ValueError("the answer is no member list of etcd")
    read = [_member(each) for each in members if isinstance(each, Mapping)]
    return MemberList(_number(header, "cluster_id"), _told_apart(read))


def targets_of(
    listed: MemberList, *, from_elsewhere: bool, learners: bool = False
) -> tuple[tuple[MemberTarget, ...], dict[str, str]]:
    """Where to dial the started voting members, in order, and what is left out and why.

    ``learners``: they count as well.

    ``from_elsewhere``: the answer came from another host, or from a network address of this one.
    The loopback addresses of a member are then none of ours. They are not needed either where the
    member has another address, and whoever answers next may not let them count.
    """
    targets: dict[HostPort, MemberTarget] = {}
    left_out: dict[str, str] = {}
    for member in listed.members:
        if not member.started:
            left_out[member.label] = "is not started"
            continue
        if member.learner and not learners:
            left_out[member.label] = "is a learner"
            continue
        used, unused = _read_urls(member, from_elsewhere=from_elsewhere)
        for each in used:
            first = targets.setdefault(each.address, each)
            if first.member != each.member:
                unused[f"{each.member} {each.address}"] = f"is an address of {first.member} too"
        left_out |= unused
    return tuple(sorted(targets.values(), key=_by_name)), left_out


def is_loopback(host: str) -> bool:
    """Whether a host, by name or literally, means the machine that says it, wherever that is.

    So does a UNIX socket.
    """
    if is_unix(host):
        return True
    literal = literal_ip(host)
    if literal is None:
        return host == "localhost" or host.endswith(".localhost")
    address = ipaddress.ip_address(literal)
    return address.is_loopback or address.is_unspecified


def _read_urls(
    member: ClusterMember, *, from_elsewhere: bool
) -> tuple[list[MemberTarget], dict[str, str]]:
    """The member's client URLs that can be dialed, and the others with the reason."""
    used: list[MemberTarget] = []
    left_out: dict[str, str] = {}
    for url in member.client_urls:
        try:
            used.append(MemberTarget(member.label, *_read(url)))
        except ValueError as error:
            left_out[f"{member.label} {url}"] = str(error)
    needed = [each for each in used if not is_loopback(each.address.host)]
    if not (from_elsewhere or needed):
        needed = _without_unspecified(used)
    why = "the list came from elsewhere" if from_elsewhere else "the member has another address"
    reason = f"is a loopback or unspecified address, and {why}"
    left_out |= {f"{member.label} {each.address}": reason for each in used if each not in needed}
    return needed, left_out


def _without_unspecified(targets: Sequence[MemberTarget]) -> list[MemberTarget]:
    """All addresses of this host, but for unspecified ones of a port that another one has, too.

    Who dials those reaches a loopback address: the same socket of the same member.
    """
    has_one = {each.address.port for each in targets if not _is_unspecified(each.address.host)}
    kept: list[MemberTarget] = []
    for each in targets:
        if not _is_unspecified(each.address.host):
            kept.append(each)
        elif each.address.port not in has_one:
            has_one.add(each.address.port)
            kept.append(each)
    return kept


def _is_unspecified(host: str) -> bool:
    literal = literal_ip(host)
    return literal is not None and ipaddress.ip_address(literal).is_unspecified


def _by_name(target: MemberTarget) -> tuple[str, str]:
    return target.member, str(target.address)


def _read(url: str) -> tuple[HostPort, bool]:
    scheme = url.partition("://")[0].lower()
    if scheme in ("unix", "unixs"):
        raise ValueError("is a UNIX socket of the member's host")
    return parse_tcp_endpoint(url)


def _member(document: Mapping[str, Any]) -> ClusterMember:
    return ClusterMember(
        id=_number(document, "ID"),
        name=plain(document.get("name")),
        peer_urls=_texts(document.get("peerURLs")),
        client_urls=_texts(document.get("clientURLs")),
        learner=document.get("isLearner") is True,
    )


def _told_apart(members: Sequence[ClusterMember]) -> tuple[ClusterMember, ...]:
    """The members with their number behind a name that several have: etcd lets them.

    Who never names its members has a cluster of members called ``default``.
    """
    times = Counter(each.name for each in members if each.name)
    return tuple(
        replace(each, name=f"{each.name} ({each.id:x})") if times[each.name] > 1 else each
        for each in members
    )


def _number(document: Mapping[str, Any], key: str) -> int:
    try:
        return int(document.get(key, 0))
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{key} is no number") from None


def plain(value: object) -> str:
    """A text of a member as a log and a terminal can bear it; "" for what is no text."""
    if not isinstance(value, str):
        return ""
    return "".join(char if char.isprintable() else "?" for char in value[:MAX_TEXT])


def _texts(values: object) -> tuple[str, ...]:
    if not isinstance(values, list):
        return ()
    return tuple(plain(each) for each in values if isinstance(each, str))
