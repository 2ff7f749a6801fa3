"""The state of the whole gateway, from its parts: one word, the reasons, and one line."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable

from gateway.core.endpoint import EndpointState
from supervisor.core.admin.views import GatewayView, WorkerStatus, WorkerView


class GatewayState(enum.StrEnum):
    """``state`` of the status document."""

    STARTING = "starting"
    READY = "ready"
    DEGRADED = "degraded"
    """No active endpoint, or a slot without a live worker."""
    DRAINING = "draining"


def gateway_state(view: GatewayView) -> GatewayState:
    """The one word for the whole."""
    if view.draining:
        return GatewayState.DRAINING
    if not view.started:
        return GatewayState.STARTING
    return GatewayState.DEGRADED if _shortcomings(view) else GatewayState.READY


def unreadiness(view: GatewayView) -> tuple[str, ...]:
    """Why clients should be sent elsewhere, as ``/readyz`` says it; empty if they should not."""
    if view.draining:  # whatever is missing, it will not come again
        return ("draining",)
    reasons = _shortcomings(view)
    return reasons if view.started else ("starting", *reasons)


def summary_of(
    states: Iterable[EndpointState],
    workers: Iterable[WorkerView],
    sessions: int,
    *,
    foreign_listeners: bool,
) -> str:
    """The gateway in one line, from its parts.

    A whole view every second would be dear with 3,000 endpoints.
    """
    counts = Counter(states)
    active = counts[EndpointState.ACTIVE]
    present = counts.total() - counts[EndpointState.REMOVED]
    live = len(_live_slots(workers))
    beside = ", another program listens here too" if foreign_listeners else ""
    return (
        f"{active}/{present} endpoints active, {live} worker{'s' * (live != 1)}, "
        f"{sessions} session{'s' * (sessions != 1)}{beside}"
    )


def _live_slots(workers: Iterable[WorkerView]) -> set[int]:
    return {each.slot for each in workers if each.state == WorkerStatus.READY}


def _cut_off(view: GatewayView) -> str | None:
    """Why this host cannot dial any of the active endpoints; None if it can dial one."""
    errors = [each.health.cut_off for each in view.endpoints if each.state is EndpointState.ACTIVE]
    return errors[0] if all(errors) else None


def _shortcomings(view: GatewayView) -> tuple[str, ...]:
    reasons: list[str] = []
    if not any(each.state is EndpointState.ACTIVE for each in view.endpoints):
        reasons.append("no endpoint is active")
    elif error := _cut_off(view):
        reasons.append(f"this host cannot dial any endpoint: {error}")
    live = _live_slots(view.workers)
    if waiting := [str(slot) for slot in range(view.slots) if slot not in live]:
        reasons.append(f"no live worker in slot {', '.join(waiting)}")
    return tuple(reasons)
