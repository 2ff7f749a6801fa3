"""The list of sessions: asks the workers, finds the processes of the clients, makes the page."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Sequence
from time import monotonic

from gateway.core.address import Address, HostPort
from gateway.core.messages import SessionDetail, SessionDetails
from supervisor.core.admin.session_holders import Holders, Process
from supervisor.core.admin.session_list import (
    BusyError,
    SessionFold,
    SessionPage,
    SessionQuery,
)
from supervisor.core.workers.worker_id import WorkerId
from supervisor.system.socket_holders import find_holders
from supervisor.workers.pool import WorkerPool
from supervisor.workers.session_survey import SessionSurvey

WORKERS_S = 7.0
"""For how long workers are asked. A connection of the admin address has ten seconds."""

PROCESSES_S = 1.5
"""For how much longer the processes of the clients are looked for."""


MOST_WAIT_S = 6.0
"""A question that has waited longer is not begun: its asker would be gone before the answer."""

Question = tuple[SessionQuery, bool]


class _Turn:
    """One question, and those who wait for its answer."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.until = loop.time() + WORKERS_S
        self.answer: asyncio.Future[SessionPage | None] = loop.create_future()
        self.are_awaited: list[Callable[[], bool]] = []


class SessionLister:
    """One question after the other, so that the cost does not grow with those who ask.

    Who asks what somebody is waiting for already shares that answer. ``pool()``: None before there
    are workers.
    """

    def __init__(
        self, pool: Callable[[], WorkerPool | None], listen: Callable[[], Sequence[Address]]
    ) -> None:
        self._pool = pool
        self._listen = listen
        self._lock = asyncio.Lock()
        self._waiting: dict[Question, _Turn] = {}
        """Questions that nobody has begun to answer."""

    async def answer(
        self, query: SessionQuery, *, with_processes: bool, is_awaited: Callable[[], bool]
    ) -> SessionPage | None:
        """The page; None if nobody waits for it any more when its turn has come.

        ``with_processes``: whether the asker may know the processes of the clients.
        BusyError: others asked so much before that there is no time left for it.
        """
        question = query, with_processes
        turn = self._waiting.get(question)
        if turn is None:
            turn = self._waiting[question] = _Turn()
            turn.are_awaited.append(is_awaited)
            await self._take(turn, question)
        else:
            turn.are_awaited.append(is_awaited)
        return await turn.answer

    async def _take(self, turn: _Turn, question: Question) -> None:
        """Wait for the turn of a question, and answer it."""
        try:
            async with self._lock:
                self._forget(turn, question)  # who asks from now on gets a newer list
                page = None
                if any(is_awaited() for is_awaited in turn.are_awaited):
                    page = await self._make_page(*question, until=turn.until)
                turn.answer.set_result(page)
        except Exception as error:  # noqa: BLE001 - each asker gets it
            turn.answer.set_exception(error)
        finally:
            self._forget(turn, question)
            turn.answer.cancel()  # the gateway ends; does nothing to one that is there

    def _forget(self, turn: _Turn, question: Question) -> None:
        if self._waiting.get(question) is turn:
            del self._waiting[question]

    async def _make_page(
        self, query: SessionQuery, with_processes: bool, *, until: float
    ) -> SessionPage:
        """``until``: the workers are asked for no longer. BusyError: too little of it is left."""
        if asyncio.get_running_loop().time() > until - WORKERS_S + MOST_WAIT_S:
            raise BusyError
        fold = SessionFold(query, with_processes=with_processes)
        pool = self._pool()
        missing: dict[WorkerId, str] = {}
        details: dict[tuple[WorkerId, int], SessionDetail] = {}
        if pool is not None:
            missing |= await pool.survey.list(query.endpoint, fold.add, until=until)
        rows, following = fold.page()
        now = monotonic()
        if pool is not None:
            missing |= await _describe(pool.survey, rows, details, until=until)
        processes: dict[str, Process] = {}
        holders = Holders(fold.hosts)
        if with_processes and pool is not None:
            processes = await self._find_processes(
                fold.clients, holders, pool.pids(), until=until + PROCESSES_S
            )
        return SessionPage(
            query=query,
            now=now,
            listen=[str(each) for each in self._listen()],
            total=fold.total,
            next=following,
            rows=[(who, details[who, row]) for who, row in rows if (who, row) in details],
            clients=holders.top(),
            processes=processes,
            with_processes=with_processes,
            missing=[
                f"worker {who.slot}, generation {who.gen}: {why}"
                for who, why in sorted(missing.items())
            ],
        )

    async def _find_processes(
        self, clients: Collection[str], holders: Holders, own: Collection[int], *, until: float
    ) -> dict[str, Process]:
        """Those that are found in time: on a busy host some are not."""
        loop = asyncio.get_running_loop()
        found: dict[str, Process] = {}
        ports = {each.port for each in self._listen() if isinstance(each, HostPort)}
        for piece in find_holders(clients, ports, skip=own):
            found |= piece
            holders.add(piece)
            if loop.time() >= until:
                break
            await asyncio.sleep(0)
        return found


async def _describe(
    survey: SessionSurvey,
    rows: Iterable[tuple[WorkerId, int]],
    details: dict[tuple[WorkerId, int], SessionDetail],
    *,
    until: float,
) -> dict[WorkerId, str]:
    """Ask the workers for everything about these rows; who did not tell it, and why."""
    by_worker: dict[WorkerId, list[int]] = {}
    for who, row in rows:
        by_worker.setdefault(who, []).append(row)

    def take(who: WorkerId, told: SessionDetails) -> None:
        details.update(((who, each.row), each) for each in told.sessions)

    return await survey.describe(by_worker, take, until=until)
