"""What clients of etcd saw, and whether it fits what etcd says that happened.

Clients note each write that was acknowledged, each event of a watch, and each linearizable read.
The truth is the list of events that etcd itself tells from the first revision on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Event:
    """One change of one key, at a revision of the whole cluster."""

    revision: int
    key: str
    value: str


@dataclass(frozen=True, slots=True)
class Read:
    """A linearizable read of a key whose values are growing numbers.

    ``least``: the newest value that was acknowledged before the read began.
    """

    key: str
    least: int
    got: int


@dataclass(slots=True)
class History:
    """Lists grow in one thread each; ``watches`` by the watcher's name."""

    acknowledged: list[Event] = field(default_factory=list)
    watches: dict[str, list[Event]] = field(default_factory=dict)
    reads: list[Read] = field(default_factory=list)


def find_faults(history: History, truth: Sequence[Event]) -> Iterator[str]:
    """Everything that should not be, a line each; nothing if all is well."""
    happened = set(truth)
    for event in history.acknowledged:
        if event not in happened:
            yield f"acknowledged and lost: {event}"
    for name, seen in history.watches.items():
        yield from _compare(name, seen, truth)
    for read in history.reads:
        if read.got < read.least:
            yield f"stale read: {read}"


def _compare(name: str, seen: Sequence[Event], truth: Sequence[Event]) -> Iterator[str]:
    """A watch from the first revision on has every event, once, in order."""
    order = [event.revision for event in seen]
    if order != sorted(order):
        yield f"{name}: out of order"
    doubles = len(seen) - len(set(seen))
    if doubles:
        yield f"{name}: {doubles} events twice"
    known, happened = set(seen), set(truth)
    missed = [event for event in truth if event not in known]
    invented = [event for event in seen if event not in happened]
    if missed:
        yield f"{name}: missed {len(missed)} events, first {missed[0]}"
    if invented:
        yield f"{name}: {len(invented)} events that never were, first {invented[0]}"
