"""Which endpoints are active, and whether a failed probe may take one away: `--health-min-active`.

Endpoints are counted, not addresses: an endpoint is active while one of its addresses is. So an
address may go while another one of its endpoint is active, which takes no endpoint away, and a name
with twenty addresses weighs as much as a name with one.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet

from supervisor.core.health.addresses import endpoint_of


class ActiveEndpoints:
    """The endpoints that may get new sessions, each with what the prober watches of it."""

    __slots__ = ("_active", "active")

    def __init__(self) -> None:
        self._active: dict[str, set[str]] = {}
        """By endpoint: which of the names that the prober watches for it are active."""
        self.active = 0
        """How many endpoints are active."""

    @property
    def count(self) -> int:
        """How many endpoints there are, active or not."""
        return len(self._active)

    def replace(self, watched: Mapping[str, bool], retired: AbstractSet[str]) -> None:
        """Begin anew: whether each watched name is active. ``retired`` endpoints do not count."""
        self._active = {}
        for name, active in watched.items():
            endpoint = endpoint_of(name)
            if endpoint in retired:
                continue
            names = self._active.setdefault(endpoint, set())
            if active:
                names.add(name)
        self.active = sum(1 for names in self._active.values() if names)

    def counts(self, watched: str) -> bool:
        """Whether it is a name of an endpoint that may get new sessions."""
        return endpoint_of(watched) in self._active

    def note(self, watched: str, active: bool) -> None:
        """A watched name is active now, or is not; that of a retired endpoint changes nothing."""
        names = self._active.get(endpoint_of(watched))
        if names is None:
            return
        before = bool(names)
        if active:
            names.add(watched)
        else:
            names.discard(watched)
        self.active += bool(names) - before

    def must_keep(self, watched: str, min_percent: int) -> bool:
        """Whether failed probes alone may not take this one away.

        So it is for the last active address of an endpoint while less than ``min_percent`` of the
        endpoints are active: it is rather this host that is cut off than most of the cluster that
        is gone.
        """
        others = self._active.get(endpoint_of(watched), set()) - {watched}
        return not others and 100 * self.active < min_percent * self.count
