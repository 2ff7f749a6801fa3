"""Damping: an endpoint that keeps going up and down is held inactive for longer and longer.

Each change costs its clients a reconnection. A hold cannot hurt availability, because workers fail
open.
"""

from __future__ import annotations

import math

from supervisor.core.backoff import doubled_s

STABLE_S = 30.0
"""An endpoint that was active for this long before it failed did not flap."""

FREE_FLAPS = 3
"""So many flaps in a row are not damped: a rolling restart is none of our business."""

HOLD_FIRST_S = 1.0
"""The first hold; it doubles with each flap more, up to the retry delay."""


class Damping:
    """Of one endpoint. ``most_s`` is the longest hold, the retry delay."""

    __slots__ = ("changed_at", "flaps", "hold_until")

    def __init__(self) -> None:
        self.changed_at = -math.inf
        """When the endpoint last became active or inactive."""
        self.flaps = 0
        """Flaps in a row."""
        self.hold_until = -math.inf

    def left_s(self, now: float) -> float:
        """How long the hold lasts; 0 if it is over."""
        return max(0.0, self.hold_until - now)

    def activated(self, now: float) -> None:
        self.changed_at = now

    def deactivated(self, now: float, most_s: float) -> None:
        self.flaps = self.flaps + 1 if now - self.changed_at < STABLE_S else 0
        if self.flaps > FREE_FLAPS:
            damped = self.flaps - FREE_FLAPS
            self.hold_until = now + doubled_s(damped, first_s=HOLD_FIRST_S, most_s=most_s)
        self.changed_at = now

    def resume(
        self, flaps: int, hold_s: float, unchanged_s: float, now: float, most_s: float
    ) -> None:
        """Go on where a former master was.

        ``hold_s``: how long it was still to be held. ``unchanged_s``: since its last change.
        """
        self.flaps = flaps
        self.hold_until = now + min(hold_s, most_s)
        self.changed_at = now - unchanged_s

    def limit(self, most_s: float) -> None:
        """The retry delay changed: it counts for the hold that lasts, too."""
        self.hold_until = min(self.hold_until, self.changed_at + most_s)
