"""How old a session may become, and which are given up first."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import monotonic
from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.age import OLDEST, YOUNGEST, limit_s
from gateway.core.counters import End
from gateway.sessions.age import SessionAge
from gateway.sessions.session import Session

HOUR_S = 3600.0
"""Between the beginnings of two sessions; the oldest began twenty hours ago."""

Facts = tuple[str, str, bool]
"""Of a session: its endpoint, its client, and whether it is idle."""


class AgedSession:
    """A session that counts how often it is asked whether it is idle, and says when it is cut."""

    waits = False

    def __init__(self, number: int, facts: Facts, all_cut: list[int]) -> None:
        self.endpoint, self._client, self._idle = facts
        self.started_at = monotonic() - (20 - number) * HOUR_S
        self.asked = 0
        self.over = False
        self._number = number
        self._all_cut = all_cut

    def idle_for(self, _now: float) -> float:
        self.asked += 1
        return 60.0 if self._idle else 0.0

    def client_host(self) -> str:
        return self._client

    def cut(self, _end: End) -> None:
        self.over = True
        self._all_cut.append(self._number)


def give_up(
    sessions: Sequence[AgedSession], messages: Sequence[Sequence[str]], older_than_s: float = 0.0
) -> None:
    """Carry out these messages, each with the endpoints that it names."""
    left: dict[AgedSession, None] = dict.fromkeys(sessions)
    loop = cast("asyncio.AbstractEventLoop", None)  # no age is set, so no timer begins
    age = SessionAge(loop, cast("dict[Session, None]", left), ())
    for names in messages:
        age.give_up(names, [older_than_s] * len(names))
        for each in sessions:
            if each.over:
                left.pop(each, None)


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz"), st.booleans()), max_size=12),
    st.lists(st.sampled_from("abc"), max_size=8),
)
def test_orders_of_one_message_are_like_one_after_the_other(
    facts: list[Facts], names: list[str]
) -> None:
    """The same sessions are given up, in the same order, and each is looked at once."""
    together: list[int] = []
    one_by_one: list[int] = []
    sessions = [AgedSession(number, each, together) for number, each in enumerate(facts)]
    give_up(sessions, [names])
    assert all(each.asked <= 1 for each in sessions)
    give_up(
        [AgedSession(number, each, one_by_one) for number, each in enumerate(facts)],
        [[name] for name in names],
    )
    assert together == one_by_one


def test_the_oldest_idle_one_of_another_client_is_given_up() -> None:
    """Clients take turns as long as there are several; busy sessions are spared."""
    facts = [("a", "x", False), ("a", "x", True), ("b", "z", True), ("a", "x", True)]
    facts += [("a", "y", True), ("a", "x", True)]
    cut: list[int] = []
    sessions = [AgedSession(number, each, cut) for number, each in enumerate(facts)]
    give_up(sessions, [["a"] * 3, ["a", "b"]])
    assert cut == [1, 4, 3, 5, 2]


def test_young_sessions_are_not_given_up() -> None:
    """Those that began since the endpoint is over-full have been moved already, perhaps."""
    cut: list[int] = []
    sessions = [AgedSession(number, ("a", "x", True), cut) for number in range(3)]
    give_up(sessions, [["a"] * 3], older_than_s=19.5 * HOUR_S)
    assert cut == [0]


def test_ages_are_spread_by_a_tenth() -> None:
    """Sessions that began together end at all times between nine and eleven tenths."""
    limits = [limit_s(100.0, 5000.0 + n * 1e-4) for n in range(2000)]
    assert min(limits) >= YOUNGEST * 100.0
    assert max(limits) <= OLDEST * 100.0
    assert all(
        sum(low <= each < low + 4 for each in limits) > 200 for low in (90, 94, 98, 102, 106)
    )


def test_the_age_of_a_session_does_not_change() -> None:
    """The same start has the same age."""
    assert limit_s(60.0, 1234.567891) == limit_s(60.0, 1234.567891)
