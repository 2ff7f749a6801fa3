"""A model of the world outside: members of a cluster, and two nameservers with a zone."""

from __future__ import annotations

import enum
import random
from dataclasses import dataclass, field

from supervisor.core.discovery.inquiry import Heard, Lost, Try
from supervisor.core.discovery.replies import Record, Reply, read_meaning
from tests.simulation.plan import DOMAIN, Kind

RTT_S = 0.001
TTLS_S = (0.0, 1.0, 5.0, 20.0)
MOST_MEMBERS = 8
AFAR = "10.9."
"""How addresses begin that members have in a network of their own."""
CLUSTER, OTHER_CLUSTER = 0xC1, 0xC2


class Mode(enum.Enum):
    """How an address answers connections and probes."""

    WELL = enum.auto()
    REFUSING = enum.auto()
    SILENT = enum.auto()
    SICK = enum.auto()
    """It takes connections, and fails every probe that asks for more."""


@dataclass(slots=True)
class Member:
    """One member of the cluster, and what DNS says of it."""

    number: int
    addresses: tuple[str, ...]
    listed: bool = True
    priority: int = 0
    weight: int = 1
    certified: bool = True
    enrolled: bool = True
    """Whether the cluster has it on its member list."""
    other_cluster: bool = False
    cut_off: frozenset[int] | None = None
    """The members that it remembers, which knows no leader; None of one that knows a leader."""
    afar: bool = False

    @property
    def host(self) -> str:
        return f"m{self.number}.{DOMAIN}"

    @property
    def name(self) -> str:
        return f"{self.host}:2379"


@dataclass(slots=True)
class Nameserver:
    """One nameserver: what is wrong with it, and which members its zone lacks."""

    disorder: Kind | None = None
    lacks: set[int] = field(default_factory=set)


class Network:
    """Members by number, the mode of each address, and the nameservers."""

    def __init__(
        self,
        draw: random.Random,
        *,
        members: int,
        several: bool,
        literal: bool,
        secured: bool,
        synced: bool,
    ) -> None:
        self._draw = draw
        self.literal = literal
        self.synced = synced
        self.scheme = "https" if secured else "http"
        count = 2 if several else 1
        self.members = [
            Member(i, tuple(f"10.0.{i}.{n + 1}" for n in range(count))) for i in range(members)
        ]
        self.modes: dict[str, Mode] = {
            address: Mode.WELL for member in self.members for address in member.addresses
        }
        self.moved_at: dict[str, float] = {}
        """When the mode of an address changed last."""
        self.servers = [Nameserver(), Nameserver()]
        self.ttl_s = draw.choice(TTLS_S)
        self.modes["192.0.2.200"] = Mode.WELL
        for number in range(MOST_MEMBERS):
            self.modes[f"{AFAR}{number}.1"] = Mode.REFUSING

    def set_mode(self, which: int, mode: Mode, now: float) -> None:
        addresses = [address for member in self.members for address in member.addresses]
        address = addresses[which % len(addresses)]
        if mode not in (Mode.WELL, Mode.SICK) or address not in self._ended():
            self.modes[address] = mode
            self.moved_at[address] = now

    def _ended(self) -> set[str]:
        """Where nothing listens any more: the cluster removed the member, and its etcd ended."""
        return {a for m in self.members if self.synced and not m.enrolled for a in m.addresses}

    def join(self, which: int) -> None:
        """A member that left comes back; without one a new one comes."""
        gone = [member for member in self.members if not member.listed]
        if gone:
            gone[which % len(gone)].listed = True
        elif len(self.members) < MOST_MEMBERS:
            self._add()

    def _add(self) -> Member:
        number = len(self.members)
        member = Member(number, tuple(a.replace("10.0.0.", f"10.0.{number}.")
                                      for a in self.members[0].addresses))  # fmt: skip
        self.members.append(member)
        for address in member.addresses:
            self.modes[address] = Mode.WELL
        return member

    def leave(self, which: int) -> None:
        """A member leaves DNS, but never the last one: that is what the disorders are for."""
        listed = [member for member in self.members if member.listed]
        if len(listed) > 1:
            gone = listed[which % len(listed)]
            gone.listed = False
            gone.listed = not self._has_seed()

    def _has_seed(self) -> bool:
        """Whether DNS names a member, as ``docs/known-issues.md`` demands for a start."""
        return any(member.listed and member.enrolled for member in self.members)

    def mend(self, now: float) -> None:
        """Everything outside works, in DNS and among the members."""
        for server in self.servers:
            server.disorder = None
            server.lacks.clear()
        ended = self._ended()
        for address, mode in self.modes.items():
            if mode is not Mode.WELL and not address.startswith(AFAR) and address not in ended:
                self.modes[address] = Mode.WELL
                self.moved_at[address] = now
        for member in self.members:
            member.certified = True
            member.other_cluster = member.afar = False
            member.cut_off = None

    # -- the cluster --------------------------------------------------------------------------

    def _move(self, member: Member, mode: Mode, now: float) -> None:
        for address in member.addresses:
            self.modes[address] = mode
            self.moved_at[address] = now

    def enrol(self, which: int, now: float) -> None:
        """The cluster gains a member, which DNS does not name if it is new."""
        gone = [member for member in self.members if not member.enrolled]
        if gone:
            member = gone[which % len(gone)]
            member.enrolled = True
            if self.synced:
                self._move(member, Mode.WELL, now)
        elif len(self.members) < MOST_MEMBERS:
            self._add().listed = False

    def expel(self, which: int, now: float) -> None:
        """The cluster loses a member, but never the last one that DNS names."""
        enrolled = [member for member in self.members if member.enrolled]
        gone = enrolled[which % len(enrolled)]
        gone.enrolled = False
        gone.enrolled = not self._has_seed()
        if not gone.enrolled and self.synced:
            self._move(gone, Mode.REFUSING, now)  # its etcd has ended

    def cut_off(self, which: int) -> None:
        """A member remembers the list of now, and some time later that is an old one."""
        now = frozenset(member.number for member in self.members if member.enrolled)
        self.members[which % len(self.members)].cut_off = now

    def tell_list(self, address: str) -> tuple[dict[str, object], bool] | None:
        """What the member there says of its cluster, and whether it knows no leader."""
        for member in self.members:
            if address in member.addresses and (member.enrolled or member.cut_off):
                return self._document(member), member.cut_off is not None
        return None

    def _document(self, teller: Member) -> dict[str, object]:
        known = teller.cut_off
        return {
            "header": {"cluster_id": str(OTHER_CLUSTER if teller.other_cluster else CLUSTER)},
            "members": [
                {
                    "ID": str(each.number + 1),
                    "name": f"m{each.number}",
                    "clientURLs": [f"{self.scheme}://{url}" for url in self.urls(each)],
                }
                for each in self.members
                if (each.enrolled if known is None else each.number in known)
            ],
        }

    def urls(self, member: Member) -> list[str]:
        """Where the cluster says that the member serves clients, without the scheme."""
        if member.afar:
            return [f"{AFAR}{member.number}.1:2379"]
        return [f"{a}:2379" for a in member.addresses] if self.literal else [member.name]

    # -- DNS ----------------------------------------------------------------------------------

    def reply(self, name: str, kind: str, attempt: Try, now: float) -> tuple[Heard | Lost, float]:
        """What comes of one query, and when."""
        server = self.servers[attempt.server]
        wait_s = self._draw.random() * 0.02
        match server.disorder:
            case Kind.DEAF_DNS:
                at = now + attempt.timeout_s
                return Lost("timeout", at), at
            case Kind.LATE_DNS:
                wait_s = self._draw.random() * 1.5 * attempt.timeout_s
        at = now + wait_s
        if wait_s >= attempt.timeout_s:
            at = now + attempt.timeout_s
            return Lost("timeout", at), at
        reply = self._reply(server, name, kind, edns=attempt.edns)
        return Heard(read_meaning(reply, name, kind, edns=attempt.edns), at), at

    def _reply(self, server: Nameserver, name: str, kind: str, *, edns: bool) -> Reply:
        match server.disorder:
            case Kind.LAME:
                return Reply(referral=self._draw.random() < 0.5)
            case Kind.BROKEN_DNS:
                return Reply(rcode="FORMERR" if edns else "SERVFAIL")
            case Kind.DENYING:
                return Reply(rcode="NXDOMAIN", authoritative=True, soa_ttl_s=self.ttl_s)
            case Kind.EMPTY:
                return Reply(authoritative=True, soa_ttl_s=self.ttl_s)
            case Kind.HALF if kind == "AAAA":
                return Reply(rcode="SERVFAIL")
        records = tuple(
            Record(name, kind, self.ttl_s, data) for data in self._data(server, name, kind)
        )
        if records:
            return Reply(authoritative=True, answer=records)
        rcode = "NXDOMAIN" if kind == "SRV" else "NOERROR"
        return Reply(rcode=rcode, authoritative=True, soa_ttl_s=self.ttl_s)

    def _data(self, server: Nameserver, name: str, kind: str) -> list[str]:
        listed = [
            member for member in self.members if member.listed and member.number not in server.lacks
        ]
        if kind == "SRV":
            if "-ssl" in name:
                return []
            return [f"{m.priority} {m.weight} 2379 {m.host}" for m in listed]
        if kind == "A":
            return [a for m in self.members if m.host == name for a in m.addresses]
        return []
