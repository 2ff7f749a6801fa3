"""How often endpoints were looked for, by source and result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from supervisor.core.discovery.endpoints import Source


class Tally:
    """Counts resolutions; member sync counts its own questions."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()

    def add(self, source: Source, result: str) -> None:
        self._counts[source.value, result] += 1

    def restore(
        self,
        by_source: Mapping[str, Mapping[str, int]],
        by_result: Mapping[str, int],
        source: Source,
    ) -> None:
        """Go on with the counts of an earlier image.

        One of a release that did not tell sources apart counted by result alone: ``source`` then
        says what it asked.
        """
        self._counts = Counter(
            {
                (name, result): count
                for name, results in (by_source or {source.value: by_result}).items()
                for result, count in results.items()
                if name != Source.MEMBERS
            }
        )

    def by_result(self) -> dict[str, int]:
        """All sources together."""
        sums: Counter[str] = Counter()
        for (_, result), count in self._counts.items():
            sums[result] += count
        return dict(sums)

    def by_source(
        self, source: Source, of_members: Mapping[str, int] | None
    ) -> dict[str, dict[str, int]]:
        """``source`` is there even if nothing was counted; so are members, unless None."""
        counts: dict[str, dict[str, int]] = {source.value: {}}
        for (name, result), count in self._counts.items():
            counts.setdefault(name, {})[result] = count
        if of_members is not None:
            counts[Source.MEMBERS.value] = dict(of_members)
        return counts
