"""Endpoints: what becomes of targets and answers, and why a record becomes no endpoint.

``targets`` says what there is to ask, ``questions`` what an answer is, and ``answers`` remembers
the outcomes and decides for how long.
"""

from __future__ import annotations

import enum
import ipaddress
import re
from collections.abc import Iterable
from dataclasses import field, replace

from gateway.core.address import HostPort, literal_ip
from gateway.core.records import dataclass
from gateway.core.unix_address import UnixAddress
from supervisor.core.config import Config
from supervisor.core.discovery.questions import (
    Answer,
    Failure,
    Lookup,
    Negative,
    Outcome,
    Question,
    QuestionKind,
    SrvRecord,
)
from supervisor.core.discovery.targets import Owner, host_question, static_targets


class Source(enum.StrEnum):
    """Where an endpoint is from; ``source`` in status, log and metrics."""

    FLAG = "flag"
    SRV = "srv"
    MEMBERS = "members"


@dataclass(frozen=True, slots=True)
class Discovered:
    """One endpoint as resolution found it.

    ``name`` is the endpoint's identity, ``host:port``. ``addresses`` are literal IPs in the order
    to try them. Of a UNIX socket all three are ``unix:/path``, and ``port`` is 0.
    ``tls``: found under an ``-ssl`` name, or given with ``https://``.
    ``srv``: found by SRV (False: from the static list). ``listed``: known from the cluster's member
    list alone; ``srv`` then says of which kind the targets are that led to the list.
    ``owners``: the SRV names that name it; which of them do is no change of the endpoint.
    """

    name: str
    host: str
    port: int
    addresses: tuple[str, ...]
    priority: int = 0
    weight: int = 0
    tls: bool = False
    srv: bool = False
    listed: bool = False
    owners: tuple[str, ...] = field(default=(), compare=False)

    @property
    def source(self) -> Source:
        if self.listed:
            return Source.MEMBERS
        return Source.SRV if self.srv else Source.FLAG


@dataclass(frozen=True, slots=True)
class EndpointsChange:
    """What a resolution changed, as endpoint names."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed)


def compare(before: Iterable[Discovered], after: Iterable[Discovered]) -> EndpointsChange:
    """The endpoints that were added, removed, or changed in anything but the name."""
    old = {each.name: each for each in before}
    new = {each.name: each for each in after}
    return EndpointsChange(
        added=tuple(name for name in new if name not in old),
        removed=tuple(name for name in old if name not in new),
        changed=tuple(name for name in new if name in old and new[name] != old[name]),
    )


@dataclass(frozen=True, slots=True)
class Problem:
    """Why something cannot be used, naming the record; ``definite``: asking again is pointless."""

    error: str
    definite: bool


@dataclass(frozen=True, slots=True)
class Findings:
    """The endpoints that were found, and what was not.

    ``absent``: names of endpoints that DNS gives no address for.
    """

    endpoints: tuple[Discovered, ...] = ()
    problems: tuple[Problem, ...] = ()
    absent: tuple[str, ...] = ()

    @property
    def definite(self) -> bool:
        """Whether asking again is pointless: every problem is a definite one."""
        return all(problem.definite for problem in self.problems)


def find_static(config: Config, lookup: Lookup) -> Findings:
    """The endpoints of ``--endpoints``, in the order given; a repeated one counts once."""
    gathering = _Gathering()
    for target in static_targets(config):
        address = target.address
        if isinstance(address, UnixAddress):
            name = str(address)
            gathering.add(Discovered(name, host=name, port=0, addresses=(name,)))
            continue
        addresses = gathering.addresses_of(host_question(address), lookup)
        if addresses:
            gathering.add(
                Discovered(str(address), address.host, address.port, addresses, tls=target.tls)
            )
        else:
            gathering.absent.append(str(address))
    return gathering.findings()


def find_addresses(
    question: Question, lookup: Lookup, found_under: str = ""
) -> tuple[tuple[str, ...], Problem | None]:
    """A host's addresses as far as they are known, and why there are none."""
    if address := literal_ip(question.name):
        return (address,), None
    outcome = lookup(question)
    if isinstance(outcome, Answer):
        return sort_addresses(outcome.addresses), None
    what = f"{question}" + (f" (SRV {found_under})" if found_under else "")
    error = outcome.error if outcome else "no answer yet"
    return (), Problem(f"{what}: {error}", isinstance(outcome, Negative))


def hosts_to_look_up(owners: Iterable[Owner], lookup: Lookup) -> tuple[Question, ...]:
    """The hosts to look up for the SRV records held."""
    hosts = {
        record.target: None
        for owner in owners
        for record in usable_records(owner, lookup(owner.question))[0]
        if literal_ip(record.target) is None
    }
    return tuple(Question(QuestionKind.HOST, host) for host in hosts)


def find_srv(owners: Iterable[Owner], lookup: Lookup) -> Findings:
    """The endpoints of the SRV records held, ordered by priority and name.

    An endpoint named twice, under both names or by repeated records, counts once: with its lowest
    priority, and the highest weight it has there.
    """
    gathering = _Gathering()
    absent: list[Problem] = []
    for owner in owners:
        outcome = lookup(owner.question)
        records, problems = usable_records(owner, outcome)
        (absent if isinstance(outcome, Negative) else gathering.problems).extend(problems)
        for record in records:
            question = Question(QuestionKind.HOST, record.target)
            addresses = gathering.addresses_of(question, lookup, owner.name)
            if addresses:
                gathering.add(_from_record(record, addresses, owner))
            else:
                gathering.absent.append(_name_of(record))
    if not gathering.endpoints:  # else: one of the two names is usually absent, no problem
        gathering.problems.extend(absent)
    found = gathering.findings()
    ordered = sorted(found.endpoints, key=lambda each: (each.priority, each.host, each.port))
    return replace(found, endpoints=tuple(ordered))


def usable_records(owner: Owner, outcome: Outcome | None) -> tuple[list[SrvRecord], list[Problem]]:
    """The records that can become endpoints, and for each of the others why it cannot."""
    match outcome:
        case None:
            return [], [Problem(f"{owner.question}: no answer yet", definite=False)]
        case Failure(error):
            return [], [Problem(f"{owner.question}: {error}", definite=False)]
        case Negative(error):
            return [], [Problem(f"{owner.question}: {error}", definite=True)]
    records, problems = [], []
    for record in outcome.records:
        if reason := record_problem(record):
            text = f"{record.priority} {record.weight} {record.port} {record.target or '.'}"
            problems.append(Problem(f"{owner.question} record {text!r}: {reason}", definite=True))
        else:
            records.append(record)
    return records, problems


def sort_addresses(addresses: Iterable[str]) -> tuple[str, ...]:
    """Each address once, IPv4 first, by number: an order that servers rotate is no change."""
    parsed = {ipaddress.ip_address(literal_ip(address) or address) for address in addresses}
    return tuple(str(each) for each in sorted(parsed, key=lambda ip: (ip.version, int(ip))))


_HOST = r"(?!.{254})[a-z0-9_]([a-z0-9_-]{0,62})(\.[a-z0-9_][a-z0-9_-]{0,62})*\Z"


def record_problem(record: SrvRecord) -> str:
    """Why a record cannot become an endpoint; "" if it can."""
    if not record.target:
        return "the service is decidedly not available"
    if not record.port:
        return "port 0"
    if literal_ip(record.target) is None and not re.match(_HOST, record.target):
        return "the target is no host name"
    return ""


def _name_of(record: SrvRecord) -> str:
    return str(HostPort(literal_ip(record.target) or record.target, record.port))


def _from_record(record: SrvRecord, addresses: tuple[str, ...], owner: Owner) -> Discovered:
    return Discovered(
        name=_name_of(record),
        host=literal_ip(record.target) or record.target,
        port=record.port,
        addresses=addresses,
        priority=record.priority,
        weight=record.weight,
        tls=owner.tls,
        srv=True,
        owners=(owner.name,),
    )


@dataclass(slots=True)
class _Gathering:
    """Endpoints and problems under construction."""

    endpoints: dict[str, Discovered] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)

    def addresses_of(
        self, question: Question, lookup: Lookup, found_under: str = ""
    ) -> tuple[str, ...]:
        """A host's addresses; none, and a problem noted, if there are none."""
        addresses, problem = find_addresses(question, lookup, found_under)
        if problem is not None:
            self.problems.append(problem)
        return addresses

    def add(self, new: Discovered) -> None:
        old = self.endpoints.get(new.name)
        if old is None:
            self.endpoints[new.name] = new
            return
        best = min(old, new, key=lambda each: (each.priority, -each.weight))
        self.endpoints[new.name] = Discovered(
            name=new.name,
            host=new.host,
            port=new.port,
            addresses=new.addresses,
            priority=best.priority,
            weight=best.weight,
            tls=old.tls or new.tls,
            srv=new.srv,
            owners=(*old.owners, *new.owners),
        )

    def findings(self) -> Findings:
        return Findings(
            tuple(self.endpoints.values()),
            tuple(dict.fromkeys(self.problems)),
            tuple(dict.fromkeys(self.absent)),
        )
