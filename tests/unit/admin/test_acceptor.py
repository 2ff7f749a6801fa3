"""Clients of the admin address, accepted on a real loop."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import os
import socket
import warnings
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from supervisor.admin import acceptor as acceptor_module
from supervisor.admin.acceptor import AdminAcceptor
from supervisor.admin.protocol import Protocol
from supervisor.admin.sockets import AdminSocket
from supervisor.master import ACCEPT_FAILED


def no_protocol() -> Protocol:
    raise AssertionError("nobody is accepted")


def protocol_of(http: web.Server) -> Protocol:
    return Protocol(http, loop=asyncio.get_running_loop())


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
        await acceptor.close()
        admin.close()

    asyncio.run(run())
    assert errors == []


@pytest.mark.parametrize("turns", range(1, 5))
def test_who_is_accepted_while_it_closes_leaves_no_transport(tmp_path: Path, turns: int) -> None:
    """asyncio makes a transport of a client some turns after it has seen it."""

    async def run() -> None:
        admin = AdminSocket(f"unix:{tmp_path}/admin")
        acceptor = AdminAcceptor(lambda: protocol_of(http), lambda: 10)
        http = web.Server(lambda _: pytest.fail("nobody asks"))
        await acceptor.start([admin])
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(f"{tmp_path}/admin")
            for _ in range(turns):
                await asyncio.sleep(0)
            await acceptor.close()
            admin.close()
            client.setblocking(False)
            with contextlib.suppress(ConnectionResetError):
                assert await asyncio.get_running_loop().sock_recv(client, 1) == b""

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        asyncio.run(run())
        gc.collect()
    assert [str(each.message) for each in caught if "transport" in str(each.message)] == []


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (errno.EPERM, "Operation not permitted"),
        (errno.EMFILE, "Too many open files"),
        (errno.EPROTO, ""),
    ],
)
def test_whoever_cannot_be_accepted_is_tried_again_slowly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, told: str
) -> None:
    """A security module may forbid it for good; what is about one client says nothing of others."""
    tried: list[bool] = []
    contexts: list[dict[str, Any]] = []

    class Refusing(acceptor_module.Listening):
        def _accept(self) -> tuple[int, Any]:
            tried.append(True)
            raise OSError(code, os.strerror(code))

    async def run() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: contexts.append(context))
        admin = AdminSocket(f"unix:{tmp_path}/admin")
        acceptor = AdminAcceptor(no_protocol, lambda: 10)
        await acceptor.start([admin])
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(f"{tmp_path}/admin")
            for _ in range(40):
                await asyncio.sleep(0)
        await acceptor.close()
        admin.close()

    monkeypatch.setattr(acceptor_module, "Listening", Refusing)
    asyncio.run(run())
    one_pass = acceptor_module.ACCEPTS
    assert (len(tried) <= one_pass) == bool(told)
    assert {context["message"] for context in contexts} == ({ACCEPT_FAILED} if told else set())
    assert {context["exception"].strerror for context in contexts} == ({told} if told else set())
