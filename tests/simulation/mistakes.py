"""Mistakes to plant, one at a time: bugs that were found, and rules taken away.

Each replaces one function of the product. A run of the simulation has to notice it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from gateway.ingress.quota import Quota
from supervisor.core.admin.totals import Totals
from supervisor.core.discovery.answers import Answers
from supervisor.core.health.machine import Health
from supervisor.core.roster import Roster
from supervisor.core.workers.fleet import Fleet
from supervisor.core.workers.slot import Slot


def _nothing(*_: Any, **__: Any) -> None:
    """Does nothing, whatever it is asked for."""


def _failed_once(self: Health, error: str, now: float) -> None:
    self.dial_failed(error, now, began_at=now)


def _start_without_release(original: Callable[..., None]) -> Callable[..., None]:
    def start(self: Fleet, event: Any, now: float) -> None:
        original(self, event, now)
        self._out.clear()

    return start


def _always(_: object) -> bool:
    return True


Mistake = tuple[type, str, Callable[..., Any]]

MISTAKES: dict[str, Mistake] = {
    "an upgrade forgets what DNS said": (Answers, "remember", _nothing),
    "an upgrade counts one failure for what was inactive": (Health, "start_inactive", _failed_once),
    "an upgrade forgets who is in grace": (Roster, "remember", _nothing),
    "an adoption survives a crash of the master": (
        Fleet, "_start", _start_without_release(Fleet._start),
    ),
    "workers that ended unseen are counted": (Totals, "bury_others", _nothing),
    "a dead worker's counts are lost": (Totals, "_bury", _nothing),
    "sessions are not limited": (Quota, "_has_place", _always),
    "nobody adopts": (Slot, "may_be_adopted", lambda *_: False),
}  # fmt: skip


@contextmanager
def planted(name: str) -> Iterator[None]:
    """The product with this mistake in it; without any if ``name`` is empty."""
    if not name:
        yield
        return
    kind, attribute, wrong = MISTAKES[name]
    right = getattr(kind, attribute)
    setattr(kind, attribute, wrong)
    try:
        yield
    finally:
        setattr(kind, attribute, right)
