"""The handover document: the handover state as JSON, and back.

Both images decode what the other wrote, and they may be of different releases: after a failed
upgrade the old one is executed again. So the rules are those of every long-lived format: the
document has a number of its format, what is not known is skipped, and what is missing or of another
type has a default. A test decodes documents that earlier releases wrote.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from gateway.core.address import literal_ip, parse_listen, parse_tcp_endpoint
from gateway.core.messages import MAX_SLOTS
from supervisor.core.admin.totals import Totals
from supervisor.core.admin.views import DiscoveryView, MemberSyncView, ReloadView
from supervisor.core.certificates import CertificateEnd
from supervisor.core.discovery.adoption import AdoptedList
from supervisor.core.discovery.endpoints import Discovered
from supervisor.core.discovery.member_list import MemberTarget
from supervisor.core.handover_state import HandoverState, Image
from supervisor.core.health.health_view import HealthView
from supervisor.core.json_values import MOST, facts_of, fits, kinds_of
from supervisor.core.roster_member import Removed, Since
from supervisor.core.workers.worker_id import WorkerId

FORMAT = 1
"""Raised when a key changes its meaning; keys that come or go need no new number."""

_LAST_INSTANT = 1e11
"""Seconds since the epoch: the year 5138."""

T = TypeVar("T")


def encode(state: HandoverState) -> dict[str, Any]:
    """The state as values that JSON can carry."""
    return {
        "format": FORMAT,
        "fds": state.descriptors,
        "image": None if state.image is None else facts_of(state.image),
        "command": list(state.command),
        "failure": state.failure,
        "facts": {
            "wanted": state.workers,
            "workers_given": state.workers_given,
            "forked_with": state.forked_with,
            "gens": [[slot, gen] for slot, gen in state.gens.items()],
            "leaving": [[who.slot, who.gen] for who in state.draining],
            "drains_until": [[who.slot, who.gen, at] for who, at in state.drains_until.items()],
            "own_gens": [[slot, gen] for slot, gen in state.own_gens.items()],
            "replacing": [[who.slot, who.gen] for who in state.replacing],
            "totals": state.totals.export(),
            "started_at": state.started_at,
            "started_boot_s": state.started_boot_s,
            "version": state.snapshot_version,
            "found": [facts_of(each) for each in state.found],
            "removed": [facts_of(each, "found") for each in state.removed],
            "since": facts_of(state.since),
            "health": {name: facts_of(view) for name, view in state.health.items()},
            "certificates": [facts_of(each) for each in state.certificates],
            "discovery": None
            if state.discovery is None
            else facts_of(state.discovery, "member_sync"),
            "member_list_of": state.member_list_of,
            "tls_check": state.tls_check,
            "searched": state.searched,
            "member_list": None if state.member_list is None else _list_facts(state.member_list),
            "reload": facts_of(state.reload),
            "restarts": dict(state.restarts),
            "events": [dict(event) for event in state.events],
            "listen_given": list(state.listen_given),
            "listen": list(state.listen),
            "listen_held": list(state.listen_held),
            "admin": list(state.admin),
            "handover": state.handover,
            "drain_timeout_s": state.drain_timeout_s,
        },
    }


def decode(document: object) -> HandoverState:
    """The reverse of :func:`encode`, for documents of every release. Never raises."""
    whole: Mapping[str, Any] = document if isinstance(document, dict) else {}
    facts: dict[str, Any] = _get(whole, "facts", {})
    health: dict[str, Any] = _get(facts, "health", {})
    events: list[Any] = _get(facts, "events", [])
    return HandoverState(
        descriptors=_numbers(_get(whole, "fds", {})),
        workers=_count(facts, "wanted"),
        workers_given=_count(facts, "workers_given"),
        forked_with=_get(facts, "forked_with", ""),
        gens={who.slot: who.gen for who in _worker_ids(_get(facts, "gens", []))},
        draining=tuple(_worker_ids(_get(facts, "leaving", []))),
        drains_until=_drains_until(_get(facts, "drains_until", [])),
        own_gens={who.slot: who.gen for who in _worker_ids(_get(facts, "own_gens", []))},
        replacing=tuple(_worker_ids(_get(facts, "replacing", []))),
        totals=_totals(facts.get("totals")),
        started_at=_instant(facts.get("started_at")),
        started_boot_s=_instant(facts.get("started_boot_s")),
        snapshot_version=_count(facts, "version"),
        found=tuple(_each(_get(facts, "found", []), _discovered)),
        removed=tuple(_each(_get(facts, "removed", []), _removed)),
        since=_since(_get(facts, "since", {})),
        health={
            name: view
            for name, each in health.items()
            if (view := _build(HealthView, each)) is not None
        },
        certificates=tuple(_each(_get(facts, "certificates", []), partial(_build, CertificateEnd))),
        discovery=_discovery(facts.get("discovery")),
        member_list_of=_get(facts, "member_list_of", ""),
        tls_check=_text(facts.get("tls_check")),
        searched=_names(_get(facts, "searched", {})),
        member_list=_member_list(facts.get("member_list")),
        reload=_reload(facts.get("reload")),
        restarts=_numbers(_get(facts, "restarts", {})),
        events=tuple(each for each in events if isinstance(each, dict)),
        listen_given=_texts(_get(facts, "listen_given", [])),
        listen=_addresses(_texts(_get(facts, "listen", []))),
        listen_held=_addresses(_texts(_get(facts, "listen_held", []))),
        admin=_texts(_get(facts, "admin", [])),
        image=_image(whole.get("image")),
        command=_texts(_get(whole, "command", [])),
        failure=_get(whole, "failure", ""),
        handover=_get(facts, "handover", False),
        drain_timeout_s=_get(facts, "drain_timeout_s", 0.0),
    )


def _get(document: Mapping[str, Any], key: str, default: T) -> T:
    """The value under ``key`` if it has the type of ``default``, else ``default``."""
    value = document.get(key)
    return value if isinstance(value, type(default)) else default


def _instant(value: object) -> float | None:
    """An instant, if it is one that a calendar has."""
    usable = isinstance(value, int | float) and fits(value, float) and abs(value) < _LAST_INSTANT
    return float(value) if usable else None  # type: ignore[arg-type]


def _numbers(document: Mapping[Any, Any]) -> dict[str, int]:
    return {name: number for name, number in document.items() if isinstance(number, int)}


def _names(document: Mapping[Any, Any]) -> dict[str, str]:
    return {name: other for name, other in document.items() if isinstance(other, str)}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _texts(values: Sequence[Any]) -> tuple[str, ...]:
    return tuple(each for each in values if isinstance(each, str))


def _count(document: Mapping[str, Any], key: str) -> int:
    """The number under ``key`` if it can be one of ours, else 0."""
    value = _get(document, key, 0)
    return value if 0 <= value <= MOST else 0


def _addresses(texts: tuple[str, ...]) -> tuple[str, ...]:
    """The listen addresses; none if one of them is no address."""
    try:
        for each in texts:
            parse_listen(each)
    except ValueError:
        return ()
    return texts


def _worker_ids(values: Sequence[Any]) -> list[WorkerId]:
    return [
        WorkerId(each[0], each[1])
        for each in values
        if isinstance(each, list)
        and len(each) == 2
        and all(isinstance(n, int) and 0 <= n <= MOST for n in each)
        and each[0] < MAX_SLOTS
    ]


def _drains_until(values: Sequence[Any]) -> dict[WorkerId, float]:
    return {
        who: at
        for each in values
        if isinstance(each, list) and (at := _instant(each[-1] if each else None)) is not None
        for who in _worker_ids([each[:-1]])
    }


def _each(values: Sequence[Any], read: Callable[[Any], T | None]) -> list[T]:
    return [each for value in values if (each := read(value)) is not None]


def _build(kind: type[T], document: object) -> T | None:
    """A value of a dataclass from what its keys can be; None if it needs one that is missing."""
    if not isinstance(document, Mapping):
        return None
    kinds = kinds_of(kind)  # type: ignore[arg-type]
    usable = {key: value for key, value in document.items() if key in kinds}
    try:
        return kind(**{key: value for key, value in usable.items() if fits(value, kinds[key])})
    except TypeError:
        return None


def _discovered(document: object) -> Discovered | None:
    found = _build(Discovered, document)
    if found is None or not found.addresses or not 0 <= found.port <= 65535:
        return None
    if found.port and not all(map(literal_ip, found.addresses)):
        return None
    return dataclasses.replace(found, addresses=tuple(found.addresses), owners=tuple(found.owners))


def _discovery(document: object) -> DiscoveryView | None:
    view = _build(DiscoveryView, document)
    if view is None:
        return None
    return dataclasses.replace(view, member_sync=_build(MemberSyncView, view.member_sync))


def _reload(document: object) -> ReloadView:
    view = _build(ReloadView, document) or ReloadView()
    return dataclasses.replace(view, needs_restart=tuple(view.needs_restart))


def _list_facts(adopted: AdoptedList) -> dict[str, Any]:
    return {
        "cluster_id": f"{adopted.cluster_id:x}",
        "from_elsewhere": adopted.from_elsewhere,
        "confirmed": adopted.confirmed,
        "outsiders": sorted(adopted.outsiders),
        "targets": [
            {"member": each.member, "url": str(each.address), "tls": each.tls}
            for each in adopted.targets
        ],
        "addresses": {host: list(each) for host, each in adopted.addresses.items()},
    }


def _member_list(document: object) -> AdoptedList | None:
    facts: Mapping[str, Any] = document if isinstance(document, Mapping) else {}
    targets = tuple(_each(_get(facts, "targets", []), _member_target))
    try:
        cluster_id = int(_get(facts, "cluster_id", ""), 16)
    except ValueError:
        return None
    if not targets:
        return None
    return AdoptedList(
        cluster_id=cluster_id,
        targets=targets,
        from_elsewhere=_get(facts, "from_elsewhere", False),
        confirmed=_get(facts, "confirmed", True),
        outsiders=frozenset(_texts(_get(facts, "outsiders", []))),
        addresses=_hosts(_get(facts, "addresses", {})),
    )


def _hosts(document: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    texts = {host: _texts(each) for host, each in document.items() if isinstance(each, list)}
    return {host: each for host, each in texts.items() if each and all(map(literal_ip, each))}


def _member_target(document: object) -> MemberTarget | None:
    facts: Mapping[str, Any] = document if isinstance(document, Mapping) else {}
    try:
        address = parse_tcp_endpoint(_get(facts, "url", ""))[0]
    except ValueError:
        return None
    return MemberTarget(_get(facts, "member", ""), address, _get(facts, "tls", False))


def _removed(document: object) -> Removed | None:
    removed = _build(Removed, document)
    found = None if removed is None else _discovered(removed.found)
    if removed is None or found is None:
        return None
    return dataclasses.replace(removed, found=found)


def _since(facts: Mapping[str, Any]) -> Since:
    return Since(
        draining=_instants(_get(facts, "draining", {})),
        returned=_instants(_get(facts, "returned", {})),
    )


def _instants(document: Mapping[str, Any]) -> dict[str, float]:
    found = {name: _instant(value) for name, value in document.items()}
    return {name: at for name, at in found.items() if at is not None}


def _totals(document: object) -> Totals:
    try:
        return Totals.restore(document)  # type: ignore[arg-type]
    except (TypeError, KeyError, AttributeError):
        return Totals()


def _image(document: object) -> Image | None:
    image = _build(Image, document)
    if image is None or not image.argv:
        return None
    return dataclasses.replace(image, argv=tuple(image.argv))
