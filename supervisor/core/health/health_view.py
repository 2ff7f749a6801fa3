"""One endpoint's health as others see it: the status document, the metrics, the next master."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import field

from gateway.core.endpoint import EndpointState
from gateway.core.records import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthView:
    """What the status document and the metrics say of one endpoint's health.

    Instants are seconds since the epoch: ``since``, when it came into this state, None if it was
    never watched; and ``last_error_at``, None if the time is not known any more. ``probes`` counts
    by result, ``probe_buckets`` by duration (not cumulative, bounds are
    ``counters.DIAL_BOUNDS_S``), and ``transitions`` by the state changed to.
    ``hold_s``: how long damping still keeps it inactive. ``kept``: its probes fail, but too few
    others are active to take it away. ``cut_off``: why this host cannot dial it at
    all, which is no fault of the endpoint.
    """

    active: bool
    since: float | None
    last_error: str | None = None
    last_error_at: float | None = None
    probe_failures: int = 0
    probes: Mapping[str, int] = field(default_factory=dict)
    probe_buckets: Sequence[int] = ()
    probe_seconds: float = 0.0
    transitions: Mapping[str, int] = field(default_factory=dict)
    hold_s: float = 0.0
    flaps: int = 0
    kept: bool = False
    cut_off: str | None = None
    unreached: bool = False
    """One of several addresses that this host cannot dial at all, and never could."""
    degraded: str | None = None
    """What is wrong with it though it is healthy."""
    etcd_version: str | None = None
    """Of the member, as far as probes asked."""
    has_passed: bool = False
    """A probe passed once, be it in an earlier process."""

    @property
    def state(self) -> EndpointState:
        return EndpointState.ACTIVE if self.active else EndpointState.INACTIVE


def without_counts(view: HealthView) -> HealthView:
    """What is known, and nothing of what was counted but changes of state, which are all known."""
    return dataclasses.replace(
        view,
        probe_failures=0,
        probes={},
        probe_buckets=(),
        probe_seconds=0.0,
    )


UNWATCHED = HealthView(active=True, since=None)
"""Of an endpoint that the prober does not know."""
