"""The rows of the scoreboard: who has which, over upgrades and after a crash of the master."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator

from gateway.scoreboard import Scoreboard
from supervisor.core.workers.worker_id import WorkerId
from supervisor.workers.scoreboard_rows import ScoreboardRows
from tests.support import eventually

FIRST, SECOND = WorkerId(0, 1), WorkerId(0, 2)


@contextlib.asynccontextmanager
async def rows(of: ScoreboardRows | None = None) -> AsyncIterator[ScoreboardRows]:
    """A master's rows; ``of``: on the scoreboard of a master before."""
    fd = None if of is None else os.dup(of.scoreboard.fd)
    made = ScoreboardRows(Scoreboard(fd))
    try:
        yield made
    finally:
        made.close()


def live(master: ScoreboardRows, who: WorkerId, pid: int, sessions: int) -> int:
    """What a worker does that was given its row."""
    row = master.give(who)
    master.scoreboard.enter(row, pid)
    master.scoreboard.set_sessions(row, sessions)
    return row


def test_a_worker_and_its_successor_have_a_row_each() -> None:
    """Neither's end touches the other's sessions."""

    async def play() -> None:
        async with rows() as master:
            live(master, FIRST, 101, 5)
            live(master, SECOND, 102, 2)
            assert master.scoreboard.total_sessions() == 7
            master.take_back(FIRST)
            master.take_back(FIRST)
            assert master.scoreboard.total_sessions() == 2

    asyncio.run(play())


def test_the_next_master_finds_the_rows_of_its_workers() -> None:
    """By process too: a slot and a generation may come again after a crash."""

    async def play() -> None:
        async with rows() as before:
            live(before, FIRST, 101, 5)
            own = live(before, FIRST, 102, 3)
            async with rows(before) as master:
                master.inherit(FIRST, 102)
                master.scoreboard.beat(own, 77)
                assert master.beat_ns(FIRST) == 77
                master.report(FIRST, 99)
                assert master.scoreboard.total_sessions() == 8, (
                    "workers write their rows themselves"
                )
                master.take_back(FIRST)
                assert master.scoreboard.total_sessions() == 5

    asyncio.run(play())


def test_a_worker_of_another_layout_is_counted_from_its_reports() -> None:
    """It writes to a scoreboard that this master does not read."""

    async def play() -> None:
        async with rows() as master:
            master.inherit(FIRST, 101)
            master.report(FIRST, 4)
            assert master.scoreboard.total_sessions() == 4
            master.take_back(FIRST)
            assert master.scoreboard.total_sessions() == 0

    asyncio.run(play())


def test_rows_of_unknown_workers_count_until_those_are_gone() -> None:
    """Workers of a master that crashed drain by themselves; their sessions are sessions."""

    gate_r, gate_w = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(gate_w)
        os.read(gate_r, 1)
        os._exit(0)
    os.close(gate_r)

    async def play() -> None:
        async with rows() as before:
            live(before, FIRST, pid, 5)
            live(before, SECOND, _pid_of_nobody(), 3)
            before.give(WorkerId(1, 1))  # forked, and not begun yet
            async with rows(before) as master:
                master.watch_others()
                assert master.scoreboard.total_sessions() == 5
                os.close(gate_w)
                await eventually(lambda: not master.scoreboard.total_sessions())
                assert master.give(WorkerId(2, 1)) != 2

    asyncio.run(play())
    os.waitpid(pid, 0)


def _pid_of_nobody() -> int:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return pid
