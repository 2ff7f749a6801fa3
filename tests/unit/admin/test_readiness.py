"""Why clients should be sent elsewhere, asked for often."""

from __future__ import annotations

import asyncio
from pathlib import Path

from supervisor.admin.server import AdminServer
from supervisor.admin.sockets import AdminSocket
from supervisor.core.admin.readiness import unreadiness_of
from supervisor.core.admin.views import GatewayView, WorkerStatus, WorkerView
from tests.admin_double import SilentLog

WORKER = WorkerView(slot=0, gen=1, pid=1, state=WorkerStatus.READY)


def no_view() -> GatewayView:
    raise AssertionError("a whole view was made")


def test_questions_of_readiness_make_no_view(tmp_path: Path) -> None:
    """A view adds up the reports of all workers, which takes long with many endpoints."""
    path = str(tmp_path / "admin")
    reasons = ["no endpoint is active"]

    async def ask(asked: str) -> bytes:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(f"GET {asked} HTTP/1.0\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        return answer

    async def play() -> None:
        admin = AdminSocket(f"unix:{path}")
        server = AdminServer(no_view, SilentLog(), unready=lambda: reasons)
        await server.serve([admin])
        assert (await ask("/readyz")).endswith(b"\r\n\r\nnot ready: no endpoint is active\n")
        assert b'"reason":"no endpoint is active"' in await ask("/health")
        reasons.clear()
        assert (await ask("/readyz")).endswith(b"\r\n\r\nok\n")
        assert b'"health":"true"' in await ask("/health")
        await server.close()
        admin.close()

    asyncio.run(play())


def test_one_endpoint_that_can_be_dialed_is_enough() -> None:
    """The others are not looked at."""
    errors = iter(["no route", None, "no route"])
    found = unreadiness_of(errors, [WORKER], slots=1, started=True, draining=False)
    assert found == ()
    assert list(errors) == ["no route"]
