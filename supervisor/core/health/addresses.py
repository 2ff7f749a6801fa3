"""The addresses of an endpoint that has several: each is probed and judged by itself.

A *place* is one address of such an endpoint. The prober watches places as if they were endpoints of
their own; this module names them, and adds their health up to that of the endpoint. An endpoint
with a single address is watched under its own name, and nothing of this applies to it.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import zip_longest

from supervisor.core.discovery.endpoints import Discovered
from supervisor.core.exact_seconds import exact
from supervisor.core.health.health_view import HealthView


def place_name(endpoint: str, address: str) -> str:
    """What the prober calls one address of an endpoint; names of endpoints have no blank."""
    return f"{endpoint} {address}"


def endpoint_of(watched: str) -> str:
    """The endpoint to which something belongs that the prober watches."""
    return watched.partition(" ")[0]


def is_place(watched: str) -> bool:
    """Whether what the prober watches is one address of several."""
    return " " in watched


def log_fields(watched: str) -> dict[str, str]:
    """How the log calls what the prober watches: an endpoint, or one of its addresses."""
    endpoint, _, address = watched.partition(" ")
    return {"endpoint": endpoint, "address": address} if address else {"endpoint": endpoint}


def places(found: Discovered) -> tuple[Discovered, ...]:
    """What the prober watches for an endpoint: the endpoint itself, or each of its addresses."""
    if len(found.addresses) == 1:
        return (found,)
    return tuple(
        dataclasses.replace(found, name=place_name(found.name, address), addresses=(address,))
        for address in found.addresses
    )


def inactive_addresses(views: Mapping[str, HealthView]) -> tuple[str, ...]:
    """The addresses that get no sessions while others are active."""
    return tuple(address for address, view in views.items() if not view.active)


def is_active(views: Collection[HealthView]) -> bool:
    """Whether an endpoint is active, by its addresses: while one of them is.

    An address that this host never had a way to says nothing of the endpoint: an AAAA record must
    not keep one active on a host without IPv6 when the IPv4 address is dead. If there is no other
    address that could tell, the fault is this host's and not the endpoint's.
    """
    if any(view.active and not view.unreached for view in views):
        return True
    return all(view.active for view in views)


def joined(views: Mapping[str, HealthView], since: float) -> HealthView:
    """An endpoint's health from that of its addresses.

    ``since``: when the endpoint came into this state. What counts adds up; the error is the newest.
    """
    all_views: Sequence[HealthView] = tuple(views.values())
    active = is_active(all_views)
    reached = {address: view for address, view in views.items() if not view.unreached} or views
    telling = [view for view in reached.values() if view.active]
    failed = [(v.last_error_at or 0.0, a, v) for a, v in reached.items() if v.last_error]
    newest = max(failed, key=lambda each: each[0], default=None)
    state = HealthView(
        active=active,
        since=since,
        last_error=None if newest is None else f"{newest[1]}: {newest[2].last_error}",
        last_error_at=None if newest is None else newest[2].last_error_at,
        hold_s=0.0 if active else min(view.hold_s for view in all_views if not view.active),
        flaps=max(view.flaps for view in all_views),
        kept=active and all(view.kept for view in telling),
        cut_off=_cut_off(telling),
        degraded=next((view.degraded for view in all_views if view.degraded), None),
        etcd_version=", ".join(dict.fromkeys(v.etcd_version for v in all_views if v.etcd_version))
        or None,
    )
    return add_counts(state, all_views)


def add_counts(view: HealthView, others: Iterable[HealthView]) -> HealthView:
    """The view, with what was counted of the others added to what it counts."""
    all_views = (view, *others)
    probes, transitions = Counter[str](), Counter[str]()
    for each in all_views:
        probes.update(each.probes)
        transitions.update(each.transitions)
    return dataclasses.replace(
        view,
        probe_failures=sum(each.probe_failures for each in all_views),
        probes=dict(probes),
        probe_buckets=tuple(
            map(sum, zip_longest(*(each.probe_buckets for each in all_views), fillvalue=0))
        ),
        probe_seconds=sum(exact(each.probe_seconds) for each in all_views),
        transitions=dict(transitions),
    )


def _cut_off(active: Sequence[HealthView]) -> str | None:
    """Why this host cannot dial any of the active addresses; None if it can dial one."""
    errors = [view.cut_off for view in active]
    return errors[0] if errors and all(errors) else None
