"""Who asks for the sessions at the same time as others."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp.test_utils import make_mocked_request

from supervisor import session_lister
from supervisor.admin.sessions_answer import answer_sessions
from supervisor.core.admin.session_list import BusyError, SessionPage, SessionQuery
from supervisor.session_lister import SessionLister

OTHER = SessionQuery(limit=1)


class Asking:
    """A lister without workers, and questions to it that wait for their turn."""

    def __init__(self) -> None:
        self.lister = SessionLister(lambda: None, list)
        self._tasks: list[asyncio.Task[SessionPage | None]] = []

    async def ask(self, *queries: SessionQuery, awaited: bool = True) -> None:
        for query in queries:
            question = self.lister.answer(query, with_processes=False, is_awaited=lambda: awaited)
            self._tasks.append(asyncio.create_task(question))
        await asyncio.sleep(0)

    async def answers(self) -> list[SessionPage | BaseException | None]:
        return await asyncio.gather(*self._tasks, return_exceptions=True)


def test_the_same_question_is_answered_once() -> None:
    """Those who wait for the same page share it; who asks when it is begun gets a newer one."""

    async def main() -> None:
        asking = Asking()
        async with asking.lister._lock:  # somebody else's question is answered
            await asking.ask(SessionQuery(), OTHER, SessionQuery(), SessionQuery())
        first, other, *same = await asking.answers()
        assert isinstance(first, SessionPage)
        assert isinstance(other, SessionPage)
        assert other is not first
        assert all(each is first for each in same)
        await asking.ask(SessionQuery())
        assert (await asking.answers())[-1] is not first

    asyncio.run(main())


def test_nobody_is_asked_for_whom_nobody_waits() -> None:
    """One of those who share an answer is enough to make it."""

    async def main() -> None:
        asking = Asking()
        async with asking.lister._lock:
            await asking.ask(OTHER, awaited=False)
            await asking.ask(SessionQuery(), awaited=False)
            await asking.ask(SessionQuery())
        nothing, first, second = await asking.answers()
        assert nothing is None
        assert first is second is not None

    asyncio.run(main())


def test_who_has_waited_too_long_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """With 503, as everybody who shares the question; the next one has its turn all the same."""

    async def main() -> None:
        asking = Asking()
        with monkeypatch.context() as patch:
            patch.setattr(session_lister, "MOST_WAIT_S", -1.0)
            await asking.ask(SessionQuery(), SessionQuery())
            assert [type(each) for each in await asking.answers()] == [BusyError, BusyError]
            request = make_mocked_request("GET", "/sessions")
            assert (await answer_sessions(request, asking.lister.answer)).status == 503
        await asking.ask(SessionQuery())
        assert isinstance((await asking.answers())[-1], SessionPage)

    asyncio.run(main())
