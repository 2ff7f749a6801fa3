"""A worker's identity: its slot and its generation."""

from __future__ import annotations

from gateway.core.records import dataclass


@dataclass(frozen=True, slots=True)
class WorkerId:
    """One worker for ever: which slot it fills and which incarnation of that slot it is."""

    slot: int
    gen: int
