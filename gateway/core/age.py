"""How old a session may become: ``--max-session-age``, a tenth more or less."""

from __future__ import annotations

YOUNGEST, OLDEST = 0.9, 1.1
"""Parts of the age between which the sessions end."""

_STEPS = 1 << 16


def limit_s(most_s: float, started_at: float) -> float:
    """The age at which the session ends that began at ``started_at`` (monotonic, seconds).

    The microsecond of its start serves as chance, so nothing has to be kept for each session.
    """
    mixed = (int(started_at * 1e6) * 0x9E3779B97F4A7C15 >> 20) % _STEPS
    return most_s * (YOUNGEST + (OLDEST - YOUNGEST) * mixed / _STEPS)
