"""The last log lines of the master, kept for the status page."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping
from typing import Any

EVENTS_KEPT = 50


class RecentEvents:
    """Keeps the last ``EVENTS_KEPT`` records of the log, without debug lines and status lines."""

    def __init__(self, before: Iterable[Mapping[str, Any]]) -> None:
        """``before``: the events that the previous image of this master had kept."""
        self._kept = collections.deque(map(dict, before), maxlen=EVENTS_KEPT)

    def take(self, record: dict[str, Any]) -> None:
        """Take one record; the log calls this for each line that it writes."""
        if record["level"] != "debug" and not record["msg"].startswith("status"):
            self._kept.append(dict(record))

    def all(self) -> tuple[Mapping[str, Any], ...]:
        """The events, oldest first."""
        return tuple(self._kept)
