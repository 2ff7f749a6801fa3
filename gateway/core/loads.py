"""How many sessions each endpoint has over all workers, as well as one worker can know."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping


class LoadBook:
    """The master's last totals plus what changed since, for least-sessions.

    What this worker changed since its last report is counted ``workers`` times over: the others
    see the same totals and choose alike, and without that they would all pour their sessions on
    an endpoint that came back, until the next totals tell.
    A pick counts until its session starts or the next totals come, so that a burst of clients,
    all accepted before the first dial ends, does not choose one endpoint either.
    """

    __slots__ = ("_own", "_picked", "_reported", "_seen", "_totals", "_workers")

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._totals: Mapping[str, int] = {}
        self._own: dict[str, int] = {}  # a Counter costs five times as much
        self._reported: dict[str, int] | None = None
        self._seen: dict[str, int] = {}
        self._picked: Counter[str] = Counter()

    def estimate(self, name: str) -> int:
        """Sessions of ``name`` over all workers, 0 or more."""
        ours = self._own.get(name, 0) - self._seen.get(name, 0) + self._picked[name]
        return max(0, self._totals.get(name, 0) + self._workers * ours)

    def pick(self, name: str) -> None:
        self._picked[name] += 1

    def start(self, name: str) -> None:
        own = self._own
        own[name] = own.get(name, 0) + 1
        if self._picked and self._picked[name]:
            self._picked[name] -= 1

    def end(self, name: str) -> None:
        own = self._own
        own[name] -= 1
        if not own[name]:
            del own[name]

    def report(self) -> None:
        """Our own sessions have just been told to the master; the next totals have them."""
        self._reported = dict(self._own)

    def take(self, totals: Mapping[str, int]) -> Collection[str]:
        """The master's totals; returns the names whose estimate may have changed."""
        changed = {name for name in totals if totals[name] != self._totals.get(name)}
        changed.update(self._totals.keys() - totals.keys(), self._picked, self._seen, self._own)
        self._totals = totals
        self._seen = dict(self._own) if self._reported is None else self._reported
        self._picked.clear()
        return changed
