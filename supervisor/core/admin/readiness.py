"""The state of the whole gateway, from its parts: one word, the reasons, and one line."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable, Iterator

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
    reasons = _shortcomings(_cut_off(view), view.workers, view.slots)
    return GatewayState.DEGRADED if reasons else GatewayState.READY


def unreadiness(view: GatewayView) -> tuple[str, ...]:
    """Why clients should be sent elsewhere, as ``/readyz`` says it; empty if they should not."""
    return unreadiness_of(
        _cut_off(view),
        view.workers,
        slots=view.slots,
        started=view.started,
        draining=view.draining,
    )


def unreadiness_of(
    cut_off: Iterable[str | None],
    workers: Iterable[WorkerView],
    *,
    slots: int,
    started: bool,
    draining: bool,
) -> tuple[str, ...]:
    """The same from the gateway's parts; a whole view for each question would be dear.

    ``cut_off``: of each active endpoint, why this host cannot dial it; None: it can. It is read to
    the first None.
    """
    if draining:  # whatever is missing, it will not come again
        return ("draining",)
    reasons = _shortcomings(cut_off, workers, slots)
    return reasons if started else ("starting", *reasons)


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


def _cut_off(view: GatewayView) -> Iterator[str | None]:
    """Of each active endpoint, why this host cannot dial it."""
    return (each.health.cut_off for each in view.endpoints if each.state is EndpointState.ACTIVE)


def _shortcomings(
    cut_off: Iterable[str | None], workers: Iterable[WorkerView], slots: int
) -> tuple[str, ...]:
    reasons: list[str] = []
    errors: list[str] = []
    for error in cut_off:
        if not error:
            break
        errors.append(error)
    else:
        if errors:
            reasons.append(f"this host cannot dial any endpoint: {errors[0]}")
        else:
            reasons.append("no endpoint is active")
    live = _live_slots(workers)
    if waiting := [str(slot) for slot in range(slots) if slot not in live]:
        reasons.append(f"no live worker in slot {', '.join(waiting)}")
    return tuple(reasons)
