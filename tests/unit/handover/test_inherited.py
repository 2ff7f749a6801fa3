"""What a master makes of the names of the descriptors that it inherits."""

from __future__ import annotations

from supervisor.core.workers.worker_id import WorkerId
from supervisor.workers.inherited import InheritedDescriptors


def test_no_generation_is_used_twice() -> None:
    """After a crash the record may be older than the newest worker, or the worker be gone."""
    names = [f"{kind}.0.{gen}" for gen in (3, 5) for kind in ("ctl", "pipe", "pid")]
    inherited = InheritedDescriptors.from_names(((name, 0) for name in names), gens={0: 4, 1: 7})
    assert {index: slot.gen for index, slot in inherited.slots.items()} == {0: 5, 1: 7}
    assert inherited.worker_ids() == {WorkerId(0, 3), WorkerId(0, 5)}
    assert inherited.slots[0].draining == {3}
