"""The search list: which name is looked up next, and when the search is over.

As in the C library the first name that has addresses counts. Unlike there, no failure ends the
search: one broken search domain (``ndots:5`` puts every search domain before the name itself) must
not hide the name.

A name that gets no reply costs its time once, and not again with every search and for every name
behind it: those are hurried. A search that finds nothing gives them more time than the one before,
because a nameserver that is merely slow has to be heard in the end.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Generator, Mapping, Sequence
from typing import assert_never

from gateway.core.records import dataclass
from supervisor.core.discovery.questions import Answer, Failure, Negative, Outcome

HURRIED_S = 0.5
"""How long a name is waited for that got no reply the last time, or comes behind one that got none
and is not in use. Doubles while nothing is found."""

MOST_HURRIED_S = 10.0
"""For so long the C library waits, with its defaults and one nameserver."""


@dataclass(frozen=True, slots=True)
class NameLookup:
    """Look up the addresses of one absolute name; ``within_s``: wait no longer for a reply."""

    name: str
    within_s: float = math.inf


class SearchMemory:
    """Remembers between searches which name had the addresses, and which got no reply."""

    def __init__(self) -> None:
        self._found: dict[str, str] = {}
        """The name whose addresses are in use, by host."""
        self._hurried: dict[str, dict[str, float]] = {}
        """By host, and by name that got no reply: how long it is waited for the next time."""

    def search(self, host: str, names: Sequence[str]) -> Generator[NameLookup, Outcome, Outcome]:
        """Look up ``names``, which ``host`` may stand for, in order.

        A failure of the name whose addresses are in use ends the search, and so does a no, until
        :meth:`forget`: what a later name has may be another service, and the addresses in use stay
        until the no is believed.
        """
        failures: list[str] = []
        negatives: list[Negative] = []
        silent: dict[str, float] = {}
        tried: list[str] = []
        hurried = self._hurried.setdefault(host, {})
        for name in names:
            tried.append(name)
            behind = bool(silent) and self._found.get(host) != name
            within_s = hurried.pop(name, HURRIED_S if behind else math.inf)
            outcome = yield NameLookup(name, within_s)
            match outcome:
                case Answer():
                    self._found[host] = name
                    hurried |= dict.fromkeys(silent, HURRIED_S)
                    return outcome
                case Negative():
                    negatives.append(outcome)
                    if self._found.get(host) == name:
                        break
                case Failure(error):
                    failures.append(f"{name}: {error}")
                    if outcome.silent:
                        silent[name] = within_s
                    if self._found.get(host) == name:
                        break
                case _:
                    assert_never(outcome)
        hurried |= {name: _longer_s(within_s) for name, within_s in silent.items()}
        if failures:
            return Failure("; ".join(failures), silent=bool(silent))
        return _joined(negatives, tried)

    def export(self) -> dict[str, str]:
        """By host: the name whose addresses are in use; for :meth:`remember`."""
        return dict(self._found)

    def remember(self, found: Mapping[str, str]) -> None:
        """Go on with the names of the master before this one, whose addresses are in use."""
        self._found.update(found)

    def retain(self, hosts: Collection[str]) -> None:
        """Forget all other hosts than these."""
        self._found = {host: name for host, name in self._found.items() if host in hosts}
        self._hurried = {host: names for host, names in self._hurried.items() if host in hosts}

    def forget(self, host: str) -> bool:
        """No name has addresses in use for the host any more; whether one had."""
        return self._found.pop(host, None) is not None


def _longer_s(within_s: float) -> float:
    """How long a name is waited for that got no reply within this time, and nothing was found."""
    return HURRIED_S if within_s == math.inf else min(2 * within_s, MOST_HURRIED_S)


def _joined(negatives: Sequence[Negative], names: Sequence[str]) -> Negative:
    """One definite no for all names that were tried."""
    if len(negatives) == 1:
        return negatives[0]
    errors = ", ".join(dict.fromkeys(each.error for each in negatives))
    tried = ", ".join(names)
    return Negative(f"{errors} (tried {tried})", min(each.ttl_s for each in negatives))
