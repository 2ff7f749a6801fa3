"""What the log says of the endpoints' health: each change once."""

from __future__ import annotations

from gateway.core.log import Log
from supervisor.core.health.active_endpoints import ActiveEndpoints
from supervisor.core.health.addresses import log_fields
from supervisor.core.health.machine import Health


class HealthLog:
    """Names are those of endpoints, or of places (see ``core/health/addresses``)."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._kept: set[str] = set()
        """Whom the log said to be kept, though its probes fail."""

    def tell_activated(self, name: str) -> None:
        self._log.info("activated", **log_fields(name))

    def tell_deactivated(self, name: str, health: Health, now: float) -> None:
        """``health`` says why, and for how long it is held."""
        hold_s = health.hold_s(now)
        held: dict[str, float] = {"flaps": health.damping.flaps, "hold_s": hold_s} if hold_s else {}
        self._log.warn("deactivated endpoint", **log_fields(name), error=health.last_error, **held)

    def tell_kept(self, name: str, health: Health, active: ActiveEndpoints) -> None:
        """Say when an endpoint begins to be kept because too few others are active."""
        if health.kept and name not in self._kept:
            self._kept.add(name)
            self._log.warn(
                "too few endpoints are active, failed probes take none away",
                **log_fields(name),
                error=health.last_error,
                active=active.active,
                endpoints=active.count,
            )
        elif not health.kept:
            self._kept.discard(name)

    def tell_degraded(self, name: str, reason: str) -> None:
        """The endpoint is healthy, and ``reason`` says what is wrong with it; "" if nothing is."""
        if reason:
            self._log.warn("endpoint degraded", **log_fields(name), reason=reason)
        else:
            self._log.info("endpoint no longer degraded", **log_fields(name))

    def tell_undecided(self, name: str, error: str) -> None:
        """Its probes prove nothing, for a reason of this host's."""
        self._log.warn("cannot probe", **log_fields(name), error=error)

    def tell_host_failed(self, name: str, error: str) -> None:
        """Workers cannot dial it, for a reason of this host's."""
        self._log.warn("cannot dial", **log_fields(name), error=error)

    def forget(self, name: str) -> None:
        """The endpoint is gone."""
        self._kept.discard(name)
