"""When the admin address is bound, when it is served, and when it is closed.

The address is bound at the very start, so that an address that cannot be had ends the start before
any client has seen the gateway. It is served later, because importing the HTTP library takes a
third of a second, which clients would wait for.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

from gateway.core.log import Log
from supervisor.admin.sockets import AdminSocket, bind_all
from supervisor.core.admin.views import GatewayView

if TYPE_CHECKING:
    from supervisor.admin.server import AdminServer

PATIENCE_S = 1.0
"""A start that takes longer than this is served before it is over, so that people can look."""

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
"""What the server needs, one after the other with the loop's work in between.

All of it together takes 0.3 s, and the loop may not stand still for so long.
"""


class AdminLifecycle:
    """Owns the sockets from :meth:`bind` to :meth:`close`, and the server from :meth:`open` on."""

    def __init__(
        self,
        view: Callable[[], GatewayView],
        log: Log,
        *,
        names: Callable[[], Collection[str]] = tuple,
    ) -> None:
        """``names()``: the host names under which the address may be asked."""
        self._view = view
        self._names = names
        self._log = log
        self._sockets: list[AdminSocket] = []
        self._opening = False
        self._server: AdminServer | None = None

    def bind(self, addresses: Sequence[str]) -> None:
        """Bind the addresses; AdminError if one cannot be had."""
        self._sockets = bind_all(addresses)

    async def open(self) -> None:
        """Import the server and serve; a second call does nothing."""
        if not self._sockets or self._opening:
            return
        self._opening = True
        for module in IMPORTS:
            importlib.import_module(module)
            await asyncio.sleep(0)
        from supervisor.admin.server import AdminServer

        self._server = server = AdminServer(self._sockets, self._view, self._log, names=self._names)
        await server.start()
        self._log.info("admin address is open", admin=list(server.served))

    def forget_view(self) -> None:
        """Make the next request see the gateway as it is now, not a view of 0.1 s ago."""
        if self._server is not None:
            self._server.forget_view()

    async def close(self) -> None:
        """Stop serving and close the sockets."""
        if self._server is not None:
            await self._server.close()
        for each in self._sockets:
            each.close()
