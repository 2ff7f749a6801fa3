"""The addresses of an endpoint that has several: each is probed and judged by itself.

A *place* is one address of such an endpoint. The prober watches places as if they were endpoints of
their own; this module names them, and adds their health up to that of the endpoint. An endpoint
with a single address is watched under its own name, and nothing of this applies to it.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import zip_longest

from supervisor.core.discovery.endpoints import Discovered
from supervisor.core.health.health_view import HealthView


def place_name(endpoint: str, address: str) -> str:
    """What the prober calls one address of an endpoint; names of endpoints have no blank."""
    return f"{endpoint} {address}"


def endpoint_of(watched: str) -> str:
    """The endpoint to which something belongs that the prober watches."""
    return watched.partition(" ")[0]


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


def joined(views: Mapping[str, HealthView], since: float) -> HealthView:
    """An endpoint's health from that of its addresses: active while one of them is.

    ``since``: when the endpoint came into this state. What counts adds up; the error is the newest.
    """
    all_views: Sequence[HealthView] = tuple(views.values())
    active = any(view.active for view in all_views)
    probes, transitions = Counter[str](), Counter[str]()
    for view in all_views:
        probes.update(view.probes)
        transitions.update(view.transitions)
    failed = [(view.last_error_at or 0.0, a, view) for a, view in views.items() if view.last_error]
    newest = max(failed, key=lambda each: each[0], default=None)
    return HealthView(
        active=active,
        since=since,
        last_error=None if newest is None else f"{newest[1]}: {newest[2].last_error}",
        last_error_at=None if newest is None else newest[2].last_error_at,
        dial_failures=sum(view.dial_failures for view in all_views),
        probe_failures=sum(view.probe_failures for view in all_views),
        probes=dict(probes),
        probe_buckets=tuple(
            map(sum, zip_longest(*(view.probe_buckets for view in all_views), fillvalue=0))
        ),
        probe_seconds=sum(view.probe_seconds for view in all_views),
        transitions=dict(transitions),
        hold_s=0.0 if active else min(view.hold_s for view in all_views),
        flaps=max(view.flaps for view in all_views),
        kept=active and all(view.kept for view in all_views if view.active),
        cut_off=_cut_off([view for view in all_views if view.active]),
        degraded=next((view.degraded for view in all_views if view.degraded), None),
        etcd_version=", ".join(dict.fromkeys(v.etcd_version for v in all_views if v.etcd_version))
        or None,
    )


def _cut_off(active: Sequence[HealthView]) -> str | None:
    """Why this host cannot dial any of the active addresses; None if it can dial one."""
    errors = [view.cut_off for view in active]
    return errors[0] if errors and all(errors) else None
