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

ANSWER_S = 3.0
"""How long a worker may take for one slice, which is a millisecond's work."""

Answer = messages.SessionSlice | messages.SessionDetails
Question = messages.ListSessions | messages.DescribeSessions


class GoneError(Exception):
    """The worker ended before it had answered."""


class SilentError(Exception):
    """The worker did not answer in time."""


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
        self._listed: set[WorkerId] = set()
        """Workers that were asked for the newest list and have not ended."""

    async def list(
        self,
        endpoint: str,
        take: Callable[[WorkerId, messages.SessionSlice], None],
        *,
        until: float,
    ) -> dict[WorkerId, str]:
        """Have ``take`` called with every slice of every worker; who did not answer, and why.

        ``until``: the loop's time at which whoever is not done is given up.
        """
        self._listing += 1
        self._listed = set(self._workers())
        return await self._all(
            {who: self._list_one(who, endpoint, take) for who in self._listed}, until
        )

    async def describe(
        self,
        rows: Mapping[WorkerId, Sequence[int]],
        take: Callable[[WorkerId, messages.SessionDetails], None],
        *,
        until: float,
    ) -> dict[WorkerId, str]:
        """The same with the details of these rows of the last list."""
        return await self._all(
            {who: self._describe_all(who, numbers, take) for who, numbers in rows.items()},
            until,
        )

    def hear(self, who: WorkerId, answer: Answer) -> None:
        """A worker answered; what nobody waits for any more is dropped."""
        asked = self._asked.get(who)
        if asked is not None and not asked.done() and answer.listing == self._listing:
            asked.set_result(answer)

    def forget(self, who: WorkerId) -> None:
        """The worker is gone."""
        self._listed.discard(who)
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
        if who not in self._listed:
            raise GoneError
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._asked[who] = answer
        try:
            self._tell(who, wire.encode(question), type(question))
            return await asyncio.wait_for(answer, ANSWER_S)
        except TimeoutError:
            raise SilentError from None
        finally:
            del self._asked[who]

    async def _all(
        self, questions: Mapping[WorkerId, Coroutine[Any, Any, None]], until: float
    ) -> dict[WorkerId, str]:
        """Wait for all of them; those that came to nothing, with the reason."""
        tasks = {
            who: asyncio.create_task(question, name=f"sessions of {who}")
            for who, question in questions.items()
        }
        if not tasks:
            return {}
        now = asyncio.get_running_loop().time()
        try:
            await asyncio.wait(tasks.values(), timeout=max(until - now, 0.0))
        finally:
            for task in tasks.values():
                task.cancel()
            outcomes = await asyncio.gather(*tasks.values(), return_exceptions=True)
        return {
            who: reason
            for who, outcome in zip(tasks, outcomes, strict=True)
            if (reason := _reason_of(outcome))
        }


def _reason_of(outcome: BaseException | None) -> str:
    """Why a worker's answer is not complete; "" if it is."""
    match outcome:
        case None:
            return ""
        case GoneError():
            return "it ended meanwhile"
        case SilentError():
            return f"no answer within {ANSWER_S:g} s"
        case asyncio.CancelledError():
            return "it has not told all in time"
        case _:
            raise outcome
