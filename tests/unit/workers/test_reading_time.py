"""Who may read from workers in a turn of the loop."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, cast

from supervisor.workers.reading_time import TURN_S, ReadingTime


class Turns:
    """As much of a loop as is needed: its time passes by what is read."""

    def __init__(self) -> None:
        self.now = 0.0
        self.soon: list[Callable[[], None]] = []

    def time(self) -> float:
        return self.now

    def call_soon(self, call: Callable[[], None]) -> None:
        self.soon.append(call)

    def turn(self, reading: ReadingTime, order: str, each_s: float) -> str:
        """Who read, of those who have something to read in this order."""
        due, self.soon = self.soon, []
        for call in due:
            call()
        read = ""
        for who in order:
            if reading.is_left(who):
                self.now += each_s
                read += who
        return read


def test_as_many_read_in_a_turn_as_there_is_time_for() -> None:
    """And at least one."""
    loop = Turns()
    reading = ReadingTime(cast("Any", loop))
    assert loop.turn(reading, "abc", TURN_S * 0.6) == "ab"
    assert loop.turn(reading, "c", TURN_S * 0.6) == "c"
    assert loop.turn(reading, "abc", 2 * TURN_S) == "a"


def test_one_that_always_has_more_to_read_keeps_nobody_else_from_it() -> None:
    """The loop calls it first in each turn, and its reads take all of the time."""
    loop = Turns()
    reading = ReadingTime(cast("Any", loop))
    count = Counter(loop.turn(reading, "abc", 2 * TURN_S) for _ in range(300))
    assert all(count[who] >= 60 for who in "abc"), count


def test_who_was_refused_and_has_nothing_more_to_read_delays_nobody() -> None:
    """For more than a turn."""
    loop = Turns()
    reading = ReadingTime(cast("Any", loop))
    assert loop.turn(reading, "ab", 2 * TURN_S) == "a"
    assert loop.turn(reading, "a", 2 * TURN_S) == ""
    assert loop.turn(reading, "a", 2 * TURN_S) == "a"
