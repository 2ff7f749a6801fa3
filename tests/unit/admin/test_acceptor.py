"""Clients of the admin address, accepted on a real loop."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

from supervisor.admin.acceptor import AdminAcceptor
from supervisor.admin.protocol import Protocol
from supervisor.admin.sockets import AdminSocket


def no_protocol() -> Protocol:
    raise AssertionError("nobody is accepted")


def test_a_stop_while_the_address_is_being_opened_leaves_nothing_on_the_loop(
    tmp_path: Path,
) -> None:
    """A client that waits there would be reported on a closed socket, turn after turn."""
    errors: list[dict[str, Any]] = []

    async def run() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: errors.append(context))
        admin = AdminSocket(f"unix:{tmp_path}/admin")
        acceptor = AdminAcceptor(no_protocol, lambda: 10)
        opening = asyncio.create_task(acceptor.start([admin]))
        await asyncio.sleep(0)
        opening.cancel()
        await asyncio.gather(opening, return_exceptions=True)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(f"{tmp_path}/admin")
            for _ in range(5):
                await asyncio.sleep(0)
        acceptor.close()
        admin.close()

    asyncio.run(run())
    assert errors == []
