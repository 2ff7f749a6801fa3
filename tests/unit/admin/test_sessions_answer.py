"""Many who ask the admin address for the sessions at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from supervisor.admin.connection import MAX_ANSWERS
from supervisor.admin.server import AdminServer
from supervisor.admin.sessions_answer import BUSY, MOST_LISTING
from supervisor.admin.sockets import AdminSocket
from supervisor.core.admin.session_list import SessionPage, SessionQuery
from tests.admin_double import Pretender, SilentLog


def test_of_too_many_each_is_answered(tmp_path: Path) -> None:
    """Some are told to ask again, and none is cut off without a word."""
    path = str(tmp_path / "admin")
    asked, go_on = 0, asyncio.Event()

    async def list_sessions(
        query: SessionQuery, *, with_processes: bool, is_awaited: Callable[[], bool]
    ) -> SessionPage | None:
        nonlocal asked
        asked += query.limit > 0 and with_processes and is_awaited()
        await go_on.wait()
        return None

    async def ask() -> bytes:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"GET /sessions HTTP/1.0\r\n\r\n")
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        return answer

    async def play() -> list[bytes]:
        admin = AdminSocket(f"unix:{path}")
        server = AdminServer(Pretender().view, SilentLog(), sessions=list_sessions)
        await server.serve([admin])
        first = [asyncio.create_task(ask()) for _ in range(MOST_LISTING)]
        async with asyncio.timeout(60):
            while asked < MOST_LISTING:  # noqa: ASYNC110 - the server says when
                await asyncio.sleep(0.001)
            late = await asyncio.gather(*(ask() for _ in range(MAX_ANSWERS)))
            go_on.set()
            answers = await asyncio.gather(*first)
        await server.close()
        admin.close()
        assert all(b" 503 " in each and each.endswith(BUSY.encode()) for each in late)
        return answers

    assert all(b" 200 OK\r\n" in each for each in asyncio.run(play()))
