"""Clients of UNIX sockets for tests: single ones, and many that come and go all the time."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from typing import Self

PAUSE_S = 0.005
"""Between two visits of one client."""


def connect(path: str, timeout_s: float = 60.0) -> socket.socket:
    """Connected; ``path`` may begin with ``@``."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(timeout_s)
    try:
        sock.connect("\0" + path[1:] if path.startswith("@") else path)
    except BaseException:
        sock.close()
        raise
    return sock


class Load:
    """Clients that connect, say something, hear it, leave, and come again; owns its thread.

    ``served`` counts those that got what they came for, ``lost`` says what happened to the others.
    """

    def __init__(self, path: str, clients: int = 4, *, answer: bytes = b"hello\n") -> None:
        self._answer = answer
        self._path = path
        self._clients = clients
        self.served = 0
        self.lost: list[str] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(60)

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(self._clients):
                group.create_task(self._come_and_go())

    async def _come_and_go(self) -> None:
        while not self._over.is_set():
            try:
                async with asyncio.timeout(60):
                    await self._visit()
            except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
                self.lost.append(repr(error))
            else:
                self.served += 1
            await asyncio.sleep(PAUSE_S)  # what is tested needs a CPU as well

    async def _visit(self) -> None:
        reader, writer = await asyncio.open_unix_connection(self._path)
        with contextlib.closing(writer):
            writer.write(b"hello\n")
            answer = await reader.readexactly(len(self._answer))
            if answer != self._answer:
                raise OSError(f"answered {answer!r}")
