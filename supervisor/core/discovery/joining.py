"""Endpoints from two sources: the targets that operators named, and an adopted member list.

The list decides which endpoints there are. Targets that are not on it stay known, so that they can
be asked, and used again if nothing else is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from gateway.core.address import literal_ip
from gateway.core.records import dataclass
from supervisor.core.discovery.adoption import AdoptedList
from supervisor.core.discovery.endpoints import Discovered, Findings, Problem, find_addresses
from supervisor.core.discovery.member_list import is_loopback
from supervisor.core.discovery.questions import Answer, Lookup, Question
from supervisor.core.discovery.resolution import Resolution
from supervisor.core.discovery.targets import host_question


def member_questions(adopted: AdoptedList | None) -> tuple[Question, ...]:
    """The hosts of the list that are names."""
    addresses = [each.address for each in adopted.targets] if adopted else []
    names = (each for each in addresses if literal_ip(each.host) is None)
    return tuple(dict.fromkeys(map(host_question, names)))


def with_addresses(adopted: AdoptedList, lookup: Lookup) -> AdoptedList:
    """The list with what DNS last said of its names: whose URL a seed stands for depends on it."""
    outcomes = {each.name: lookup(each) for each in member_questions(adopted)}
    answers = {host: each for host, each in outcomes.items() if isinstance(each, Answer)}
    return replace(adopted, addresses={host: each.addresses for host, each in answers.items()})


def join(seeds: Findings, adopted: AdoptedList | None, lookup: Lookup, *, srv: bool) -> Findings:
    """The seeds, followed by the endpoints that only the list names.

    A seed that the list names too stays the operators'; it speaks TLS if either says so.
    ``srv``: the seeds were found by SRV. What the list adds is then judged as they are, by the
    discovery domain, and has their best priority and its usual weight.
    """
    if adopted is None:
        return seeds
    tls = {str(each.address) for each in adopted.targets if each.tls}
    named = {seed.name for seed in seeds.endpoints}
    priority, weight = _place_beside(seeds.endpoints)
    joined = [replace(seed, tls=seed.tls or seed.name in tls) for seed in seeds.endpoints]
    problems: list[Problem] = []
    for target in adopted.targets:
        name = str(target.address)
        if name in named:
            continue
        addresses, problem = find_addresses(host_question(target.address), lookup)
        if adopted.from_elsewhere:
            addresses = tuple(each for each in addresses if not is_loopback(each))
        if problem is not None:
            problems.append(problem)
        if addresses:
            joined.append(
                Discovered(
                    name=name,
                    host=target.address.host,
                    port=target.address.port,
                    addresses=addresses,
                    priority=priority,
                    weight=weight,
                    tls=target.tls,
                    srv=srv,
                    listed=True,
                )
            )
    return replace(seeds, endpoints=tuple(joined), problems=(*seeds.problems, *problems))


def follow(result: Resolution, adopted: AdoptedList | None) -> Resolution:
    """The result with those endpoints alone that the member list wants, if there is one.

    Nothing is said of a client URL that a seed stands for: what is said of the seed is enough.
    """
    used = choose(result.endpoints, adopted, result.found)
    seeds = (*result.endpoints, *result.found)
    doubles = find_doubles(seeds, adopted, result.found).urls
    return replace(
        result,
        endpoints=used,
        known=tuple(each for each in result.endpoints if each.name not in doubles),
        refused={name: why for name, why in result.refused.items() if name not in doubles},
        waiting={name: why for name, why in result.waiting.items() if name not in doubles},
    )


def without_doubles(result: Resolution, adopted: AdoptedList | None) -> Resolution:
    """What the TLS check is to look at: what it finds of a seed holds for its client URLs, too."""
    doubles = find_doubles(result.found, adopted, result.found).urls
    left = tuple(each for each in result.endpoints if each.name not in doubles)
    return replace(result, endpoints=left)


@dataclass(frozen=True, slots=True)
class Doubles:
    """``urls``: the client URLs that others stand for, by name. ``seeds``: the seeds that do."""

    urls: frozenset[str] = frozenset()
    seeds: frozenset[str] = frozenset()


def choose(
    known: Sequence[Discovered], adopted: AdoptedList | None, found: Sequence[Discovered]
) -> tuple[Discovered, ...]:
    """Those of the known endpoints that are used.

    ``found``: see :func:`find_doubles`. Seeds that are no members are used as long as the list is
    not confirmed, or nothing of it can be used; members of another cluster only if nothing else is
    left.
    """
    if adopted is None:
        return tuple(known)
    doubles = find_doubles(known, adopted, found)
    single = tuple(each for each in known if each.name not in doubles.urls)
    listed = {str(target.address) for target in adopted.targets} | doubles.seeds
    members = tuple(each for each in single if each.name in listed)
    if adopted.confirmed and members:
        return members
    outsiders = adopted.outsiders - listed
    return tuple(each for each in single if each.name not in outsiders) or single


def find_doubles(
    seeds: Sequence[Discovered], adopted: AdoptedList | None, found: Sequence[Discovered]
) -> Doubles:
    """Which client URLs are not used beside the seeds that stand for them, or beside each other.

    A seed whose addresses are all a member's, by one or by several of its client URLs, is that
    member: it is used under the name that the operators gave it, and the URLs with one of these
    addresses are not. Nor is a client URL that leads only to where others of the member do;
    addresses come before names, which change.
    ``found``: all endpoints that the targets and the list name. Whose URL they are does not depend
    on whether the TLS check has reached them.
    """
    by_member: dict[str, set[str]] = {}
    for target in adopted.targets if adopted else ():
        by_member.setdefault(target.member, set()).add(str(target.address))
    doubles: set[str] = set()
    standing: set[str] = set()
    for names in by_member.values():
        urls = [each for each in found if each.listed and each.name in names]
        for seed in (each for each in seeds if not each.listed):
            shared = [each for each in urls if _is_shared(seed, each)]
            if seed.name in names or _is_within(seed, shared):
                standing.add(seed.name)
                doubles |= {each.name for each in shared}
        own = [each for each in urls if each.name not in doubles]
        kept: list[Discovered] = []
        for each in sorted(own, key=lambda url: literal_ip(url.host) is None):
            if _is_within(each, [other for other in kept if _is_shared(each, other)]):
                doubles.add(each.name)
            else:
                kept.append(each)
    return Doubles(frozenset(doubles), frozenset(standing))


@dataclass(frozen=True, slots=True)
class Seeds:
    """``names``: whom the targets name. ``members``: those of them that are on the list."""

    names: frozenset[str]
    members: frozenset[str]


def find_seeds(result: Resolution, adopted: AdoptedList | None) -> Seeds:
    """The seeds, whether DNS has an address for them or not, and whatever the TLS check says."""
    found = [each for each in result.found if not each.listed]
    names = frozenset((*(each.name for each in found), *result.absent))
    listed = {str(each.address) for each in adopted.targets} if adopted else set()
    standing = find_doubles(found, adopted, result.found).seeds
    return Seeds(names, (names & listed) | standing)


def endpoint_for(url: str, result: Resolution) -> str:
    """The endpoint under which a client URL is used; "" if it is not used."""
    names = [each.name for each in result.endpoints]
    same = [each for each in result.found if each.name == url]
    places = [each.name for each in result.endpoints if same and _is_shared(each, same[0])]
    return url if url in names else next(iter(places), "")


def _is_within(endpoint: Discovered, others: Sequence[Discovered]) -> bool:
    """Whether each of its addresses is one of the others, which have its port."""
    return set(endpoint.addresses) <= {address for each in others for address in each.addresses}


def _is_shared(seed: Discovered, url: Discovered) -> bool:
    """Whether a client URL leads to one of the addresses of a seed."""
    return seed.port == url.port and not set(seed.addresses).isdisjoint(url.addresses)


def _place_beside(seeds: Sequence[Discovered]) -> tuple[int, int]:
    """Priority and weight of an endpoint that no SRV record describes."""
    if not seeds:
        return 0, 0
    priority = min(each.priority for each in seeds)
    weights = [each.weight for each in seeds if each.priority == priority]
    return priority, round(sum(weights) / len(weights))
