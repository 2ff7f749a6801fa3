"""When the log tells of clients that were turned away: at once, and then once a minute.

Whoever scans the port is turned away a thousand times a second, and one line says all of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from gateway.core.counters import End
from gateway.core.records import dataclass

QUIET_S = 60.0

MESSAGES = {
    End.DENIED: "clients denied",
    End.PROXY_HEADER: "clients without a PROXY protocol header",
}


@dataclass(frozen=True, slots=True)
class Told:
    """One line: how many since the line before, of all workers, and the last one of them."""

    msg: str
    clients: int
    last: str


class TurnedAway:
    """``counts``: how many were turned away by each reason before; time is an argument."""

    def __init__(self, counts: Mapping[str, int]) -> None:
        self._told = dict(counts)
        self._told_at: dict[str, float] = {}

    def tell(
        self, counts: Mapping[str, int], last: Mapping[str, str], now: float
    ) -> Iterator[Told]:
        """The lines that are due; to be asked about once a second."""
        for reason, msg in MESSAGES.items():
            new = counts.get(reason, 0) - self._told.get(reason, 0)
            if new <= 0 or now - self._told_at.get(reason, -QUIET_S) < QUIET_S:
                continue
            self._told[reason] = counts[reason]
            self._told_at[reason] = now
            yield Told(msg, new, last.get(reason, ""))
