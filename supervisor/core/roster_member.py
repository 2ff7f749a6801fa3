"""One endpoint of the roster, as the policy wants it and as it is by now."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import field

from gateway.core.endpoint import RETIRED, Endpoint, EndpointState
from gateway.core.networks import Networks
from gateway.core.records import dataclass
from gateway.core.socket_address import packed
from supervisor.core.discovery.endpoints import Discovered

RAMP_STEP = 10
"""Percent: the steps in which an endpoint that came back gets its share."""

SETTLE_S = 2.0
"""With a grace of 0 (no limit) an endpoint is dropped with its last session, and with any grace one
that fails its probes; but not earlier than this: a worker's report is up to a second old and may
not count a session that has just begun."""


@dataclass(frozen=True, slots=True)
class Member:
    """One endpoint of the roster. ``removed_at``: when it left DNS, None while it is in.

    ``grace_s`` is how long it may stay after that; 0 is until its last session ended.
    ``draining_at``: since when it is under maintenance; its sessions have the policy's grace, too.
    ``returned_at``: when it became active again, or was under maintenance no more, while it does
    not have its whole share. ``emptied``, ``ramp`` and ``tier``: as in :class:`Endpoint`.
    """

    found: Discovered
    active: bool = True
    inactive: tuple[str, ...] = ()
    """Those of its several addresses that are inactive."""
    sessions: int = 0
    removed_at: float | None = None
    grace_s: float = 0.0
    draining_at: float | None = None
    emptied: bool = False
    returned_at: float | None = None
    ramp: int = 100
    tier: int = 0

    @property
    def state(self) -> EndpointState:
        if self.removed_at is not None:
            return EndpointState.REMOVED
        if self.draining_at is not None:
            return EndpointState.DRAINING
        return EndpointState.ACTIVE if self.active else EndpointState.INACTIVE

    @property
    def retired_at(self) -> float | None:
        """Since when it is in its state, if that is REMOVED or DRAINING; health knows the rest."""
        return self.draining_at if self.removed_at is None else self.removed_at

    @property
    def ends_at(self) -> float | None:
        """When it is to be dropped; None: not yet known."""
        if self.removed_at is None:
            return None
        if self.sessions > 0 and self.grace_s == 0:
            return None
        grace_s = self.grace_s or SETTLE_S
        if self.sessions == 0 and not self.active:
            grace_s = min(grace_s, SETTLE_S)
        return self.removed_at + grace_s

    def under(self, policy: Policy, now: float) -> Member:
        """The member as the policy wants it; of one that left, the grace too."""
        draining_at, returned_at = None, self.returned_at
        if self.found.name in policy.draining:
            draining_at = now if self.draining_at is None else self.draining_at
        elif self.draining_at is not None:
            returned_at = self.back_at(policy, now)
        wanted = dataclasses.replace(
            self,
            draining_at=draining_at,
            returned_at=returned_at,
            tier=policy.tier_of(self.found.addresses),
            grace_s=self.grace_s if self.removed_at is None else policy.grace_s,
        )
        return wanted.advanced(policy, now)

    def back_at(self, policy: Policy, now: float) -> float | None:
        """``returned_at`` of one that gets sessions again from now on; None: no ramp."""
        return now if policy.slow_start_s and self.active else None

    def advanced(self, policy: Policy, now: float) -> Member:
        """The member as it is by now."""
        emptied = (
            self.draining_at is not None
            and policy.grace_s > 0
            and now >= self.draining_at + policy.grace_s
        )
        ramp, returned_at = 100, self.returned_at
        if returned_at is not None:
            ramp = _ramp(now - returned_at, policy.slow_start_s)
            returned_at = returned_at if ramp < 100 else None
        return dataclasses.replace(self, emptied=emptied, ramp=ramp, returned_at=returned_at)

    def endpoint(self) -> Endpoint:
        """What a snapshot says of it."""
        found = self.found
        return Endpoint(
            name=found.name,
            addresses=found.addresses,
            port=found.port,
            priority=found.priority,
            weight=found.weight,
            state=self.state,
            tier=self.tier,
            ramp=self.ramp,
            emptied=self.emptied,
            inactive=self._inactive_addresses(),
        )

    def _inactive_addresses(self) -> tuple[str, ...]:
        """The state says nothing of the health of one that is retired, and its sessions may have
        to go; so its only address is told like one of several."""
        if self.state in RETIRED and not self.active:
            return self.found.addresses
        return tuple(each for each in self.inactive if each in self.found.addresses)


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """One that left DNS, for the next master: since when (monotonic), and for how long it stays."""

    found: Discovered
    at: float
    grace_s: float
    active: bool = True
    sessions: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Since:
    """What takes its time, for the next master: by endpoint, since when (monotonic)."""

    draining: Mapping[str, float] = field(default_factory=dict)
    returned: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What operators want of endpoints, whatever DNS and health say of them.

    ``draining``: names of endpoints under maintenance. ``grace_s``: for how long sessions of an
    endpoint that left or drains go on; 0 is for ever. ``slow_start_s``: how long an endpoint that
    came back takes to get its whole share; 0 is no time. ``prefer``: networks whose endpoints come
    first within their priority.
    """

    draining: frozenset[str] = frozenset()
    grace_s: float = 30.0
    slow_start_s: float = 0.0
    prefer: Networks = field(default_factory=Networks)

    def tier_of(self, addresses: Iterable[str]) -> int:
        """0 for an endpoint with an address in a preferred network, and where none is preferred."""
        if not self.prefer:
            return 0
        return 0 if any(self.prefer.has(packed(each)) for each in addresses) else 1


def _ramp(since_s: float, slow_start_s: float) -> int:
    """The percentage of its share that an endpoint gets so long after its return.

    In steps, because each one is a snapshot for every worker.
    """
    if since_s >= slow_start_s:
        return 100
    return RAMP_STEP * max(1, int(100 / RAMP_STEP * since_s / slow_start_s))
