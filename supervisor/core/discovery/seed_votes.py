"""The clusters that the seeds are members of, and whether they settle which one is followed."""

from __future__ import annotations

from collections.abc import Collection, Mapping


class SeedVotes:
    """What each seed said last of its cluster.

    A seed that is silent keeps its vote, so it does not matter who is away for a moment. It may
    never have said anything and be on the adopted list: then it is of that cluster.

    Until more than half of the seeds are of the adopted cluster, another one may be adopted if more
    seeds are of that. A seed of the adopted cluster is not one of these: that it was started anew
    as a member of another cluster moves nobody.
    """

    def __init__(self) -> None:
        self.settled = False
        """Whether no other cluster may be adopted any more without a reload."""
        self._seeds: frozenset[str] = frozenset()
        self._followed: int | None = None
        self._clusters: dict[str, int] = {}

    @property
    def clusters(self) -> Mapping[str, int]:
        """The cluster id of each seed that has one, by name."""
        return self._clusters

    def begin(
        self,
        seeds: Collection[str],
        members: Collection[str],
        followed: int | None,
        *,
        by_operator: bool = False,
    ) -> None:
        """All are asked now. ``seeds``: whom the targets name, whether DNS has an address or not.

        ``members``: those of them that are on the adopted list, which is of cluster ``followed``.
        ``by_operator``: a reload lets any cluster be adopted; what was said before does not count.
        """
        self._seeds = frozenset(seeds)
        self._followed = None if by_operator else followed
        said = {} if by_operator else self._clusters
        self._clusters = {name: each for name, each in said.items() if name in self._seeds}
        if self._followed is not None:
            for name in members:
                self._clusters.setdefault(name, self._followed)
            self.settled |= 2 * self._followers > len(self._seeds)

    def take(self, name: str, cluster_id: int) -> None:
        """Somebody says which cluster it is of; those who are no seeds have no vote."""
        faithful = self._followed is not None and self._clusters.get(name) == self._followed
        if name in self._seeds and not faithful:
            self._clusters[name] = cluster_id

    def settle(self) -> None:
        """The list is that of a former master: what its seeds said was not handed over."""
        self.settled = True

    def forget(self) -> None:
        """The targets are other ones."""
        self.settled = False
        self._seeds, self._followed, self._clusters = frozenset(), None, {}

    @property
    def doubt(self) -> str:
        """Why the adopted cluster is not settled; "" if it is, or if none is adopted."""
        if self.settled or self._followed is None:
            return ""
        silent = ", ".join(sorted(self._seeds - self._clusters.keys()))
        return (
            f"{self._followers} of {len(self._seeds)} seeds are known to be members of cluster"
            f" {self._followed:x}, expected more than half"
        ) + (f"; not heard yet: {silent}" if silent else "")

    @property
    def _followers(self) -> int:
        return sum(each == self._followed for each in self._clusters.values())
