"""An idle gateway leaves its host alone: how often its processes run, in counts."""

from __future__ import annotations

import time
from pathlib import Path

from tests.backends import Backend, greet
from tests.gateway import running

WATCHED_S = 3.0
MASTER_PER_S = 14
"""Four looks at the workers, a second's upkeep, and a report of each of the two workers; some more
where a busy machine makes a worker seem silent for a moment."""
WORKER_PER_S = 16
"""Ten heartbeats, and what the master tells."""


def test_an_idle_gateway_wakes_seldom() -> None:
    """Each wake-up costs a cold CPU a fifth of a millisecond, on every host of a fleet."""
    with (
        Backend(greet, name="b") as backend,
        running(endpoints=[backend.address], workers=2) as gateway,
    ):
        allowed = {gateway.pid: MASTER_PER_S} | dict.fromkeys(gateway.workers(), WORKER_PER_S)
        assert len(allowed) == 3
        fewest = dict.fromkeys(allowed, float("inf"))
        for _ in range(3):  # a probe, or a neighbour, may fall into one of them
            before, began_at = {pid: _wake_ups(pid) for pid in allowed}, time.monotonic()
            time.sleep(WATCHED_S)
            for pid in allowed:
                per_s = (_wake_ups(pid) - before[pid]) / (time.monotonic() - began_at)
                fewest[pid] = min(fewest[pid], per_s)
        assert {pid: n for pid, n in fewest.items() if n > allowed[pid]} == {}


def _wake_ups(pid: int) -> int:
    """How often the process has slept: the context switches that it made of its own accord."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("\nvoluntary_ctxt_switches:")[1].split()[0])
