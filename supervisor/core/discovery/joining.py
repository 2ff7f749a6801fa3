"""Endpoints from two sources: the targets that operators named, and an adopted member list.

The list decides which endpoints there are. Targets that are not on it stay known, so that they can
be asked, and used again if nothing else is left.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from gateway.core.address import literal_ip
from supervisor.core.discovery.adoption import AdoptedList
from supervisor.core.discovery.endpoints import Discovered, Findings, Problem, find_addresses
from supervisor.core.discovery.member_list import is_loopback
from supervisor.core.discovery.questions import Lookup, Question
from supervisor.core.discovery.targets import host_question


def member_questions(adopted: AdoptedList | None) -> tuple[Question, ...]:
    """The hosts of the list that are names."""
    addresses = [each.address for each in adopted.targets] if adopted else []
    names = (each for each in addresses if literal_ip(each.host) is None)
    return tuple(dict.fromkeys(map(host_question, names)))


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
    joined = [
        dataclasses.replace(seed, tls=seed.tls or seed.name in tls) for seed in seeds.endpoints
    ]
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
    return Findings(tuple(joined), (*seeds.problems, *problems))


def choose(known: Sequence[Discovered], adopted: AdoptedList | None) -> tuple[Discovered, ...]:
    """Those of the known endpoints that are used.

    A seed whose addresses are all a member's, by one or by several of its client URLs, is that
    member: it is used under the name that the operators gave it, and the URLs with one of these
    addresses are not. Seeds that are no members are used as long as the list is not confirmed, or
    nothing of it can be used.
    """
    if adopted is None or not adopted.confirmed:
        return tuple(known)
    by_member: dict[str, set[str]] = {}
    for target in adopted.targets:
        by_member.setdefault(target.member, set()).add(str(target.address))
    used = {str(target.address) for target in adopted.targets}
    doubles: set[str] = set()
    for names in by_member.values():
        urls = [each for each in known if each.listed and each.name in names]
        for seed in (each for each in known if not each.listed):
            shared = [each for each in urls if _is_shared(seed, each)]
            held = {address for each in shared for address in each.addresses}
            if seed.name in names or set(seed.addresses) <= held:
                used.add(seed.name)
                doubles |= {each.name for each in shared}
    chosen = tuple(each for each in known if each.name in used - doubles)
    return chosen or tuple(known)


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
