"""Which name of the search list is looked up next, and when the search is over."""

from __future__ import annotations

import math

import pytest

from supervisor.core.discovery.questions import Answer, Failure, Negative, Outcome
from supervisor.core.discovery.search import (
    HURRIED_S,
    MOST_HURRIED_S,
    NameLookup,
    SearchMemory,
)

A = Answer(60, addresses=("10.0.0.1",))
NO = Negative("NXDOMAIN", 60)
SERVFAIL = Failure("SERVFAIL")
SILENT = Failure("timeout", silent=True)
NAMES = ("web.a.test", "web.b.test", "web")


def search(memory: SearchMemory, *outcomes: Outcome) -> tuple[Outcome, list[NameLookup]]:
    """Run one search; names beyond the outcomes do not exist."""
    course = memory.search("web", NAMES)
    lookups = [next(course)]
    try:
        while True:
            number = len(lookups) - 1
            lookups.append(course.send(outcomes[number] if number < len(outcomes) else NO))
    except StopIteration as end:
        outcome: Outcome = end.value
        return outcome, lookups


def test_the_first_name_with_addresses_counts() -> None:
    """Names after it are not looked up."""
    outcome, lookups = search(SearchMemory(), NO, A)
    assert outcome == A
    assert [each.name for each in lookups] == ["web.a.test", "web.b.test"]


def test_no_failure_ends_the_search() -> None:
    """The search goes on; if nothing is found, the failure is told with the name that failed."""
    assert search(SearchMemory(), SERVFAIL, SILENT, A)[0] == A
    outcome, lookups = search(SearchMemory(), NO, SERVFAIL)
    assert outcome == Failure("web.b.test: SERVFAIL")
    assert len(lookups) == 3
    outcome, _ = search(SearchMemory(), SILENT, SERVFAIL)
    assert outcome == Failure("web.a.test: timeout; web.b.test: SERVFAIL", silent=True)


def test_a_no_names_what_was_tried() -> None:
    """All names absent is a definite no."""
    outcome, _ = search(SearchMemory(), NO, Negative("no addresses", 5))
    assert outcome == Negative(
        "NXDOMAIN, no addresses (tried web.a.test, web.b.test, web)", ttl_s=5
    )
    course = SearchMemory().search("web", ("web",))
    assert next(course) == NameLookup("web", math.inf)
    with pytest.raises(StopIteration) as end:
        course.send(NO)
    assert end.value.value == NO


def test_a_name_without_a_reply_is_hurried_next_time() -> None:
    """Until it replies again, and for as long as another name of the list is found."""
    memory = SearchMemory()
    search(memory, SILENT, A)
    for _ in range(3):
        _, lookups = search(memory, SILENT, A)
        assert [each.within_s for each in lookups] == [HURRIED_S, math.inf], "the one in use is not"
    _, lookups = search(memory, NO, A)
    assert [each.within_s for each in lookups] == [HURRIED_S, math.inf]
    _, lookups = search(memory, NO, A)
    assert [each.within_s for each in lookups] == [math.inf, math.inf]


def test_a_host_that_is_not_looked_up_any_more_is_forgotten() -> None:
    """The name in use, and the names without a reply."""
    memory = SearchMemory()
    search(memory, SILENT, A)
    memory.retain({"web"})
    assert memory.export() == {"web": "web.b.test"}
    memory.retain({"db"})
    assert memory.export() == {}
    _, lookups = search(memory, SILENT, A)
    assert [each.within_s for each in lookups] == [math.inf, HURRIED_S]


def test_names_behind_one_without_a_reply_are_hurried_at_once() -> None:
    """Dead nameservers cost their time once, and not for each name of the list."""
    _, lookups = search(SearchMemory(), NO, SILENT, SILENT)
    assert [each.within_s for each in lookups] == [math.inf, math.inf, HURRIED_S]


def test_while_nothing_is_found_names_get_more_time() -> None:
    """A nameserver that was away, and is slow now, is heard in the end."""
    memory, waited = SearchMemory(), []
    for _ in range(8):
        outcome, lookups = search(memory, SILENT, NO, NO)
        assert isinstance(outcome, Failure)
        waited.append(lookups[0].within_s)
    assert waited == [math.inf, 0.5, 1, 2, 4, 8, MOST_HURRIED_S, MOST_HURRIED_S]


def test_the_name_in_use_is_not_passed_over() -> None:
    """When the name whose addresses are in use fails, no later name takes its place."""
    memory = SearchMemory()
    search(memory, NO, A)
    outcome, lookups = search(memory, NO, SERVFAIL, A)
    assert outcome == Failure("web.b.test: SERVFAIL")
    assert len(lookups) == 2
    assert search(memory, SERVFAIL, A)[0] == A
    memory = SearchMemory()
    search(memory, NO, A)
    outcome, lookups = search(memory, NO, NO, A)
    assert outcome == Negative("NXDOMAIN (tried web.a.test, web.b.test)", 60)
    assert len(lookups) == 2, "nor when it is denied, until that is believed"
    assert memory.forget("web")
    assert not memory.forget("web")
    assert search(memory, NO, SERVFAIL, A)[0] == A, "nothing is in use"
