"""A worker's identity: its slot and its generation."""

from __future__ import annotations

from dataclasses import dataclass  # noqa: TID251 - this one has an order


@dataclass(frozen=True, slots=True, order=True)
class WorkerId:
    """One worker for ever: which slot it fills and which incarnation of that slot it is."""

    slot: int
    gen: int
