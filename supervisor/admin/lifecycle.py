"""The admin address in time: bound before there are clients, served when the workers are up."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from gateway.core.log import Log
from supervisor.admin.sockets import AdminSocket, bind_all
from supervisor.core.admin.status import GatewayView

if TYPE_CHECKING:
    from supervisor.admin.server import Admin

PATIENCE_S = 1.0
"""A start that takes longer than this is worth a look: the admin address answers meanwhile."""

IMPORTS = (
    "multidict",
    "yarl",
    "http.cookies",
    "email.parser",
    "zlib",
    "ssl",
    "aiohttp.hdrs",
    "aiohttp.helpers",
    "aiohttp.http",
    "aiohttp.client_reqrep",
    "aiohttp.client",
    "aiohttp.multipart",
    "aiohttp.web_protocol",
    "aiohttp.web",
    "prometheus_client",
)
"""What serving needs, in pieces that the loop can bear: 0.3 s in one piece would be too long."""


class AdminLifecycle:
    """Owns the sockets from :meth:`bind` on, and the server once it is open."""

    def __init__(self, view: Callable[[], GatewayView], log: Log) -> None:
        self._view = view
        self._log = log
        self._sockets: list[AdminSocket] = []
        self._opening = False
        self._admin: Admin | None = None

    def bind(self, addresses: Sequence[str]) -> None:
        """Take the addresses; AdminError if one cannot be had."""
        self._sockets = bind_all(addresses)

    async def open(self) -> None:
        """Serve, unless that was asked for before; the libraries are imported only now."""
        if not self._sockets or self._opening:
            return
        self._opening = True
        for module in IMPORTS:
            importlib.import_module(module)
            await asyncio.sleep(0)
        from supervisor.admin.server import Admin

        self._admin = admin = Admin(self._sockets, self._view, self._log)
        await admin.start()
        self._log.info("admin address is open", admin=list(admin.served))

    def forget_view(self) -> None:
        """Something changed that nobody is to miss by a moment."""
        if self._admin is not None:
            self._admin.forget_view()

    async def close(self) -> None:
        """Stop serving and give the addresses back."""
        if self._admin is not None:
            await self._admin.close()
        for each in self._sockets:
            each.close()
