"""Asking all workers for their sessions."""

from __future__ import annotations

import asyncio
import sys

from gateway.core.messages import SessionSlice
from supervisor.core.workers.worker_id import WorkerId
from supervisor.workers.session_survey import SessionSurvey


def take(_: WorkerId, slice_: SessionSlice) -> None:
    """Nobody answers in these tests."""


def test_a_worker_that_ended_is_not_waited_for() -> None:
    """Neither in a list that it ends in, nor for the details of its rows."""

    async def main() -> None:
        who = WorkerId(0, 1)
        survey = SessionSurvey(workers=lambda: [who], tell=lambda *_: survey.forget(who))
        until = asyncio.get_running_loop().time() + 60
        gone = {who: "it ended meanwhile"}
        assert await survey.list("", take, until=until) == gone
        assert await survey.describe({who: [0]}, lambda *_: None, until=until) == gone

    asyncio.run(main())


def test_workers_that_end_leave_nothing_behind() -> None:
    """They come and go for months, and nobody asks for sessions."""
    survey = SessionSurvey(workers=list, tell=lambda *_: None)
    who = WorkerId(1, 2)
    before = sys.getrefcount(who)
    survey.forget(who)
    assert sys.getrefcount(who) == before
