"""A worker's identity: its slot and its generation."""

from __future__ import annotations

from gateway.core.records import dataclass


@dataclass(frozen=True, slots=True)
class WorkerId:
    """One worker for ever: which slot it fills and which incarnation of that slot it is."""

    slot: int
    gen: int

    def __lt__(self, other: WorkerId) -> bool:
        """By slot, and the older ones of a slot first."""
        return (self.slot, self.gen) < (other.slot, other.gen)
