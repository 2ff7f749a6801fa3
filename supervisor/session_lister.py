"""The list of sessions: asks the workers, finds the processes of the clients, makes the page."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from time import monotonic

from gateway.core.address import Address, HostPort
from gateway.core.messages import SessionDetail, SessionDetails
from supervisor.core.admin.session_holders import Holders, Process
from supervisor.core.admin.session_list import SessionFold, SessionPage, SessionQuery
from supervisor.core.workers.worker_id import WorkerId
from supervisor.system.socket_holders import find_holders
from supervisor.workers.pool import WorkerPool

WORKERS_S = 7.0
"""For how long workers are asked. A connection of the admin address has ten seconds."""

PROCESSES_S = 1.5
"""For how much longer the processes of the clients are looked for."""


class SessionLister:
    """One question after the other, so that the cost does not grow with those who ask.

    ``pool()``: None before there are workers.
    """

    def __init__(
        self, pool: Callable[[], WorkerPool | None], listen: Callable[[], Sequence[Address]]
    ) -> None:
        self._pool = pool
        self._listen = listen
        self._lock = asyncio.Lock()

    async def answer(
        self, query: SessionQuery, *, with_processes: bool, is_awaited: Callable[[], bool]
    ) -> SessionPage | None:
        """The page; None if nobody waits for it any more when its turn has come.

        ``with_processes``: whether the asker may know the processes of the clients.
        """
        async with self._lock:
            if not is_awaited():
                return None
            return await self._make_page(query, with_processes=with_processes)

    async def _make_page(self, query: SessionQuery, *, with_processes: bool) -> SessionPage:
        fold = SessionFold(query, with_processes=with_processes)
        until = asyncio.get_running_loop().time() + WORKERS_S
        pool = self._pool()
        missing: dict[WorkerId, str] = {}
        details: dict[tuple[WorkerId, int], SessionDetail] = {}

        def take(who: WorkerId, told: SessionDetails) -> None:
            details.update(((who, each.row), each) for each in told.sessions)

        if pool is not None:
            missing |= await pool.survey.list(query.endpoint, fold.add, until=until)
        rows, following = fold.page()
        now = monotonic()
        if pool is not None:
            by_worker: dict[WorkerId, list[int]] = {}
            for who, row in rows:
                by_worker.setdefault(who, []).append(row)
            missing |= await pool.survey.describe(by_worker, take, until=until)
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
