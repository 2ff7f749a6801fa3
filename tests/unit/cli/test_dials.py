"""The dials of ``check``, where the program on the other side sees them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from supervisor.cli.dials import hang_up, make_context
from supervisor.system.connections import connect, open_socket
from tests.support import wait_until
from tests.tls import Authority, Server


@pytest.mark.parametrize("shown", [True, False])
def test_a_program_that_demands_a_certificate(tmp_path: Path, shown: bool) -> None:
    """It has nothing to complain of where the operator named one for the health check."""
    authority = Authority(tmp_path)
    context = authority.context("127.0.0.1", want_client_certificate=True)
    ours = make_context(*(authority.client_files() if shown else ("", "")))

    async def visit() -> None:
        with open_socket("127.0.0.1") as sock:
            await connect(sock, "127.0.0.1", server.port)
            await hang_up(sock, 30.0, ours)

    with Server(context) as server:
        asyncio.run(visit())
        if not shown:
            wait_until(lambda: server.complaints)
    assert bool(server.complaints) is not shown
