"""The search list: which name is looked up next, and when the search is over.

As in the C library the first name that has addresses counts. Unlike there, no failure ends the
search: one broken search domain (``ndots:5`` puts every search domain before the name itself) must
not hide the name.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import assert_never

from gateway.core.records import dataclass
from supervisor.core.discovery.questions import Answer, Failure, Negative, Outcome


@dataclass(frozen=True, slots=True)
class Lookup:
    """Look up the addresses of one absolute name; ``hurried``: do not wait long for a reply."""

    name: str
    hurried: bool


class SearchMemory:
    """Remembers between searches which name had the addresses, and which got no reply."""

    def __init__(self) -> None:
        self._found: dict[str, str] = {}
        """The name whose addresses are in use, by host."""
        self._silent: set[str] = set()

    def search(self, host: str, names: Sequence[str]) -> Generator[Lookup, Outcome, Outcome]:
        """Look up ``names``, which ``host`` may stand for, in order.

        A failure of the name whose addresses are in use ends the search, and so does a no, until
        :meth:`forget`: what a later name has may be another service, and the addresses in use stay
        until the no is believed. A name that got no reply last time is not waited for as long
        again.
        """
        failures: list[str] = []
        negatives: list[Negative] = []
        silent = False
        tried: list[str] = []
        for name in names:
            tried.append(name)
            outcome = yield Lookup(name, hurried=name in self._silent)
            self._silent.discard(name)
            match outcome:
                case Answer():
                    self._found[host] = name
                    return outcome
                case Negative():
                    negatives.append(outcome)
                    if self._found.get(host) == name:
                        break
                case Failure(error):
                    failures.append(f"{name}: {error}")
                    if outcome.silent:
                        silent = True
                        self._silent.add(name)
                    if self._found.get(host) == name:
                        break
                case _:
                    assert_never(outcome)
        if failures:
            return Failure("; ".join(failures), silent=silent)
        return _joined(negatives, tried)

    def export(self) -> dict[str, str]:
        """By host: the name whose addresses are in use; for :meth:`remember`."""
        return dict(self._found)

    def remember(self, found: Mapping[str, str]) -> None:
        """Go on with the names of the master before this one, whose addresses are in use."""
        self._found.update(found)

    def forget(self, host: str) -> bool:
        """No name has addresses in use for the host any more; whether one had."""
        return self._found.pop(host, None) is not None


def _joined(negatives: Sequence[Negative], names: Sequence[str]) -> Negative:
    """One definite no for all names that were tried."""
    if len(negatives) == 1:
        return negatives[0]
    errors = ", ".join(dict.fromkeys(each.error for each in negatives))
    tried = ", ".join(names)
    return Negative(f"{errors} (tried {tried})", min(each.ttl_s for each in negatives))
