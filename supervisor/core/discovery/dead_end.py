"""Dead ends: SRV records of which nothing can be used, in place of others that led somewhere.

So a zone looks in which the targets are misspelled, or whose targets are in another zone that does
not answer. It is no better than a name without records, or one that cannot be looked up, and must
not take every endpoint away: the records before stay in use, as they do then.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from supervisor.core.discovery.endpoints import find_srv
from supervisor.core.discovery.questions import Answer, Failure, Lookup, Negative, Outcome, Question
from supervisor.core.discovery.resolution import in_one_line, in_order
from supervisor.core.discovery.targets import Owner


def find_dead_ends(
    owners: Iterable[Owner], lookup: Lookup, before: Mapping[Question, Outcome]
) -> dict[Question, Negative | Failure]:
    """What new records are worth, by their question, if they are a dead end; empty if not.

    ``lookup``: what is held now. ``before``: what was held of the records before they were asked
    for.
    """
    owners = tuple(owners)
    changed = {
        question: answer.ttl_s
        for question, held in before.items()
        if (answer := _changed(held, lookup(question))) is not None
    }
    if not changed:
        return {}
    found = find_srv(owners, lookup)
    if found.endpoints or not find_srv(owners, lambda q: before.get(q) or lookup(q)).endpoints:
        return {}
    reasons = in_one_line(in_order(found.problems))
    error = f"the new records lead nowhere: {reasons}"
    if found.definite:
        return {question: Negative(error, ttl_s) for question, ttl_s in changed.items()}
    return {question: Failure(error) for question in changed}


def _changed(before: Outcome, now: Outcome | None) -> Answer | None:
    """The answer of now, if it has other records than the one before."""
    if not isinstance(before, Answer) or not isinstance(now, Answer):
        return None
    return now if set(now.records) != set(before.records) else None
