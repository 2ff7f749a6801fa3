"""The memory that all processes share: rows, their owners, and what an upgrade keeps."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from gateway import scoreboard as module
from gateway.scoreboard import Scoreboard


@pytest.fixture
def scoreboard() -> Iterator[Scoreboard]:
    made = Scoreboard()
    yield made
    made.close()


def test_it_is_shared_through_its_descriptor(scoreboard: Scoreboard) -> None:
    """A second mapping of the same memory sees what the first wrote."""
    again = Scoreboard(os.dup(scoreboard.fd))
    row = scoreboard.open_row(7, 2)
    scoreboard.set_sessions(row, 3)
    scoreboard.beat(row, 99)
    assert again.rows == 1
    assert again.row_sessions() == [3]
    assert again.beat_ns(row) == 99
    assert again.slot(row) == 7
    again.close_row(row)
    assert scoreboard.row_sessions() == []
    again.close()


def test_a_scoreboard_of_another_release_is_not_used() -> None:
    """An upgraded master does not read cells whose meaning may have changed."""
    old = Scoreboard()
    fd = os.dup(old.fd)
    os.pwrite(fd, (99).to_bytes(8, "little"), 0)
    new = Scoreboard(fd)
    old.set_sessions(old.open_row(3, 1), 9)
    assert new.rows == 0
    new.close()
    old.close()


def test_a_row_is_clean_for_its_next_worker(scoreboard: Scoreboard) -> None:
    """Nothing of a worker that is gone is left, and a lower row is used first."""
    first, second = scoreboard.open_row(0, 1), scoreboard.open_row(1, 1)
    for row in (first, second):
        scoreboard.enter(row, 10 + row)
        scoreboard.set_sessions(row, 5)
        scoreboard.set_accepting(row, True)
        scoreboard.set_waiting(row, 3)
        scoreboard.tell(row, 4)
    scoreboard.close_row(first)
    assert list(scoreboard.workers()) == [(second, 1, 1, 10 + second)]
    assert scoreboard.total_sessions() == 5
    assert scoreboard.open_row(4, 9) == first
    assert not scoreboard.accepting(first)
    assert scoreboard.waiting() == [0, 3]
    assert scoreboard.told_ns() == 4


def test_clients_of_workers_that_are_gone_stay_counted(scoreboard: Scoreboard) -> None:
    """The rate of clients does not begin anew with every worker."""
    first, second = scoreboard.open_row(0, 1), scoreboard.open_row(1, 1)
    for row in (first, first, second):
        scoreboard.count_client(row)
    scoreboard.close_row(first)
    assert scoreboard.accepted() == 3


def test_who_takes_clients_in_a_slot(scoreboard: Scoreboard) -> None:
    """A successor that accepts is another taker; one that starts is not, nor is another slot's."""
    old, new, other = (scoreboard.open_row(slot, gen) for slot, gen in ((0, 1), (0, 2), (1, 1)))
    scoreboard.set_accepting(old, True)
    scoreboard.set_accepting(other, True)
    assert not scoreboard.has_taker(0, beside=old)
    scoreboard.set_accepting(new, True)
    assert scoreboard.has_taker(0, beside=old)


def test_no_row_is_left(scoreboard: Scoreboard, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker is not started, and the master says why."""
    monkeypatch.setattr(module, "ROWS", 2)
    scoreboard.open_row(0, 1)
    scoreboard.open_row(1, 1)
    with pytest.raises(OSError, match="rows of the scoreboard"):
        scoreboard.open_row(2, 1)


def test_marks_are_those_of_workers_that_accept(scoreboard: Scoreboard) -> None:
    """A worker that leaves, or hangs, or has no mark says nothing of the rate."""
    rows = [scoreboard.open_row(slot, 1) for slot in range(4)]
    for row in rows:
        scoreboard.set_accepting(row, row != 1)
        scoreboard.beat(row, 50 if row == 2 else 100)
        scoreboard.set_rate_mark(row, 0 if row == 3 else -7 - row)
    assert scoreboard.rate_marks(100) == [-7]
    assert scoreboard.rate_marks(50) == [-7, -9]
    scoreboard.close_row(0)
    assert scoreboard.rate_marks(50) == [-9]
