"""Workers are told apart, and are listed in one order."""

from __future__ import annotations

from supervisor.core.workers.worker_id import WorkerId


def test_workers_are_listed_by_slot_and_by_generation() -> None:
    """Also beside other values, as those that are missing in a list of sessions."""
    late, early = (WorkerId(1, 1), "late"), (WorkerId(0, 12), "did not answer")
    assert sorted([late, (WorkerId(0, 2), "ended"), early]) == [
        (WorkerId(0, 2), "ended"),
        early,
        late,
    ]
