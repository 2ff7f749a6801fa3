"""Since when the gateway runs, as a wall clock's instant and as a length of time.

The length comes from CLOCK_BOOTTIME. The wall clock may be set while the gateway runs, which would
make the uptime jump. CLOCK_MONOTONIC stands still while the host is suspended, and the uptime would
then contradict ``started_at``. All processes of a host share the clock, so the next image of an
upgrade goes on with the reading of the first one.
"""

from __future__ import annotations

import time
from collections.abc import Callable


class Uptime:
    """``started_at`` is seconds since the epoch, ``started_boot_s`` a reading of CLOCK_BOOTTIME.

    Both come from an earlier image, or None. An earlier image that did not say ``started_boot_s``
    is trusted for ``started_at``.
    """

    def __init__(
        self,
        started_at: float | None = None,
        started_boot_s: float | None = None,
        *,
        wall: Callable[[], float] = time.time,
        boot: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
    ) -> None:
        self._boot = boot
        now = wall()
        self.started_at = now if started_at is None else started_at
        if started_boot_s is None:
            started_boot_s = boot() - max(now - self.started_at, 0.0)
        self.started_boot_s = started_boot_s

    def seconds(self) -> float:
        """How long the gateway runs, its earlier images included."""
        return max(self._boot() - self.started_boot_s, 0.0)
