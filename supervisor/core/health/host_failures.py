"""What on this host stands between it and the endpoints: no route, a firewall, no free port.

None of it is an endpoint's fault, so no endpoint turns inactive for it. But nobody is served while
it lasts, and the status, the log and the readiness have to say so.
"""

from __future__ import annotations

FORGET_S = 60.0
"""A failure that is not heard of again is forgotten after this long.

It must be: a gateway that is not ready gets no clients, so no dial could prove that it is over.
"""

LOG_EVERY_S = 60.0


class HostFailures:
    """By endpoint, from the first failure until something reaches the endpoint again."""

    def __init__(self) -> None:
        self._failures: dict[str, tuple[str, float]] = {}
        self._logged_at = float("-inf")

    def failed(self, name: str, error: str, now: float, *, quiet: bool = False) -> bool:
        """The endpoint could not be dialed for ``error``; whether the log should hear of it.

        ``quiet``: it is one of several addresses that could never be dialed from here, which is how
        it is with AAAA records on a host without IPv6.
        """
        self._failures[name] = (error, now)
        if quiet or now - self._logged_at < LOG_EVERY_S:
            return False
        self._logged_at = now
        return True

    def reached(self, name: str) -> None:
        """The endpoint answered something, be it with a refusal; or it is gone."""
        self._failures.pop(name, None)

    def error_of(self, name: str, now: float) -> str | None:
        """Why the endpoint cannot be dialed from here; None if it can, as far as is known."""
        error, at = self._failures.get(name, ("", float("-inf")))
        return error if now - at < FORGET_S else None
