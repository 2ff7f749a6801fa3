"""Asks all workers for their sessions, slice by slice, and waits for their answers.

Each worker has at most one question to answer at a time, and the next one goes out when the answer
is here. So neither end ever holds more than a slice, and whatever else they say goes between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from typing import Any

from gateway.core import messages, wire
from supervisor.core.workers.worker_id import WorkerId

LIST_S = 3.0
"""How long workers may take for all slices. 20,000 sessions of one worker take 0.2 seconds."""

DESCRIBE_S = 3.0
"""How long workers may take to describe the rows of a page."""

Answer = messages.SessionSlice | messages.SessionDetails
Question = messages.ListSessions | messages.DescribeSessions


class GoneError(Exception):
    """The worker ended before it had answered."""


class SessionSurvey:
    """One survey at a time; whoever makes it sees to that.

    ``workers()``: whom to ask. ``tell(who, line, kind)`` sends a message to one of them.
    """

    def __init__(
        self,
        *,
        workers: Callable[[], Collection[WorkerId]],
        tell: Callable[[WorkerId, bytes, type], None],
    ) -> None:
        self._workers = workers
        self._tell = tell
        self._listing = 0
        self._asked: dict[WorkerId, asyncio.Future[Answer]] = {}
        self._gone: set[WorkerId] = set()
        """Workers that ended since the list was begun."""

    async def list(
        self, endpoint: str, take: Callable[[WorkerId, messages.SessionSlice], None]
    ) -> dict[WorkerId, str]:
        """Have ``take`` called with every slice of every worker; who did not answer, and why."""
        self._listing += 1
        self._gone.clear()
        return await self._all(
            {who: self._list_one(who, endpoint, take) for who in self._workers()}, LIST_S
        )

    async def describe(
        self,
        rows: Mapping[WorkerId, Sequence[int]],
        take: Callable[[WorkerId, messages.SessionDetails], None],
    ) -> dict[WorkerId, str]:
        """The same with the details of these rows of the last list."""
        return await self._all(
            {who: self._describe_all(who, numbers, take) for who, numbers in rows.items()},
            DESCRIBE_S,
        )

    def hear(self, who: WorkerId, answer: Answer) -> None:
        """A worker answered; what nobody waits for any more is dropped."""
        asked = self._asked.get(who)
        if asked is not None and not asked.done() and answer.listing == self._listing:
            asked.set_result(answer)

    def forget(self, who: WorkerId) -> None:
        """The worker is gone."""
        self._gone.add(who)
        asked = self._asked.get(who)
        if asked is not None and not asked.done():
            asked.set_exception(GoneError)

    async def _list_one(
        self,
        who: WorkerId,
        endpoint: str,
        take: Callable[[WorkerId, messages.SessionSlice], None],
    ) -> None:
        first = 0
        while True:
            answer = await self._ask(who, messages.ListSessions(self._listing, first, endpoint))
            if not isinstance(answer, messages.SessionSlice) or answer.first != first:
                continue  # of a question before this one
            take(who, answer)
            if answer.last:
                return
            first += len(answer.clients)

    async def _describe_all(
        self,
        who: WorkerId,
        rows: Sequence[int],
        take: Callable[[WorkerId, messages.SessionDetails], None],
    ) -> None:
        most = messages.DESCRIBED_ROWS
        for start in range(0, len(rows), most):
            some = tuple(rows[start : start + most])
            answer = await self._ask(who, messages.DescribeSessions(self._listing, some))
            if isinstance(answer, messages.SessionDetails):
                take(who, answer)

    async def _ask(self, who: WorkerId, question: Question) -> Answer:
        if who in self._gone:
            raise GoneError
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._asked[who] = answer
        try:
            self._tell(who, wire.encode(question), type(question))
            return await answer
        finally:
            del self._asked[who]

    async def _all(
        self, questions: Mapping[WorkerId, Coroutine[Any, Any, None]], longest_s: float
    ) -> dict[WorkerId, str]:
        """Wait for all of them; those that came to nothing, with the reason."""
        tasks = {
            who: asyncio.create_task(question, name=f"sessions of {who}")
            for who, question in questions.items()
        }
        if not tasks:
            return {}
        try:
            await asyncio.wait(tasks.values(), timeout=longest_s)
        finally:
            for task in tasks.values():
                task.cancel()
            outcomes = await asyncio.gather(*tasks.values(), return_exceptions=True)
        return {
            who: reason
            for who, outcome in zip(tasks, outcomes, strict=True)
            if (reason := _reason_of(outcome, longest_s))
        }


def _reason_of(outcome: BaseException | None, longest_s: float) -> str:
    """Why a worker's answer is not complete; "" if it is."""
    match outcome:
        case None:
            return ""
        case GoneError():
            return "it ended meanwhile"
        case asyncio.CancelledError():
            return f"no answer within {longest_s:g} s"
        case _:
            raise outcome
