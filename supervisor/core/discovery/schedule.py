"""When the next resolution is due, and whether it asks everything."""

from __future__ import annotations

from gateway.core.records import dataclass

URGENT_S = 5.0
"""While no endpoint is active everything is asked again this often."""


@dataclass(frozen=True, slots=True)
class Due:
    """The next resolution; ``everything``: it asks every question, due or not."""

    at: float
    everything: bool


def next_due(planned_at: float, *, asked_all_at: float, urgent: bool) -> Due:
    """``planned_at``: when the first question or TLS check is due by itself, infinity for never.

    ``urgent``: no endpoint is active. That is a state and no event: DNS may name others a minute
    or an hour later, whatever TTL it gave before, so everything is asked again and again.
    ``asked_all_at``: when everything was asked last.
    """
    urgent_at = asked_all_at + URGENT_S
    if urgent and urgent_at <= planned_at:
        return Due(urgent_at, everything=True)
    return Due(planned_at, everything=False)
