"""Whether all endpoints are members of one etcd cluster, as far as they say.

Clients of endpoints of two clusters see one keyspace or the other, by chance. Priorities may be
meant to lead to another cluster, so each of them is judged by itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping


class Clusters:
    """The cluster that each endpoint last said it is a member of; for etcd members alone."""

    def __init__(self) -> None:
        self._of: dict[str, tuple[int, int]] = {}
        """By name: priority and cluster id."""
        self._counts: dict[int, Counter[int]] = {}
        """By priority: endpoints of each cluster."""

    def note(self, name: str, priority: int, cluster_id: int) -> None:
        """It answered; ``cluster_id`` is 0 if it did not say."""
        told = (priority, cluster_id)
        if self._of.get(name) == told:
            return
        self.forget(name)
        if cluster_id:
            self._of[name] = told
            self._counts.setdefault(priority, Counter())[cluster_id] += 1

    def forget(self, name: str) -> None:
        """The endpoint is gone, or another process may answer there."""
        if name in self._of:
            priority, cluster_id = self._of.pop(name)
            counts = self._counts[priority]
            counts[cluster_id] -= 1
            if not counts[cluster_id]:
                del counts[cluster_id]

    def describe_disagreement(self, name: str) -> str:
        """What is wrong if most endpoints of its priority, or as many, are of another cluster."""
        priority, own = self._of.get(name, (0, 0))
        counts: Mapping[int, int] = self._counts.get(priority, {})
        if not own or len(counts) == 1:
            return ""
        other = max((each for each in counts if each != own), key=lambda each: counts[each])
        if counts[own] > counts[other]:
            return ""
        how_many = "most endpoints" if counts[own] < counts[other] else "as many endpoints"
        return f"is a member of cluster {own:x}, and {how_many} are of {other:x}"
