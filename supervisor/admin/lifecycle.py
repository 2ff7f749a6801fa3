"""When the admin address is bound, when it is served, how it survives an upgrade, when it closes.

The address is bound at the very start, so that an address that cannot be had ends the start before
any client has seen the gateway. It is served later, because importing the HTTP library takes a
third of a second, which clients would wait for.

An upgrade hands the listening sockets on. :meth:`AdminLifecycle.pause` answers what this image has
accepted; whoever connects after that waits in the kernel's queue for the next image, which serves
as soon as it can.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from gateway.core.log import Log
from supervisor.admin.sockets import (
    AdminError,
    AdminSocket,
    adopt_all,
    bind_all,
    descriptor_name,
)
from supervisor.core.admin.views import GatewayView
from supervisor.system.limits import UNLIMITED
from supervisor.system.patience import try_until_done
from supervisor.system.unix_listener import CANNOT_REMOVE

if TYPE_CHECKING:
    from supervisor.admin.server import AdminServer
    from supervisor.admin.sessions_answer import ListSessions

PATIENCE_S = 1.0
"""A start that takes longer than this is served before it is over, so that people can look."""

REBIND_S = 5.0
"""How often an admin address is tried again that somebody else holds, or whose folder is gone."""

CANNOT_OPEN = "cannot open the admin address, trying again"

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
        unready: Callable[[], Sequence[str]] | None = None,
        names: Callable[[], Collection[str]] = tuple,
        sessions: ListSessions | None = None,
        before_serving: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """``names()``: the host names under which the address may be asked.

        ``view()``, ``unready()``: see :class:`AdminServer`.
        ``sessions`` makes a page of the list of sessions. ``before_serving()`` is awaited right
        before this image accepts its first client.
        """
        self._before_serving = before_serving
        self.max_connections = UNLIMITED
        self._view = view
        self._unready = unready
        self._names = names
        self._sessions = sessions
        self._log = log
        self._sockets: list[AdminSocket] = []
        self._missing: list[str] = []
        self._told: dict[str, str] = {}
        self._opening = False
        self._binding = False
        self._paused = False
        self._server: AdminServer | None = None
        self._served = False

    @property
    def sockets(self) -> tuple[AdminSocket, ...]:
        """Those that are served; none before :meth:`open`."""
        return tuple(self._sockets) if self._served else ()

    def bind(self, addresses: Sequence[str], inherited: Mapping[str, int] | None = None) -> None:
        """Bind the addresses; AdminError if one cannot be had.

        ``inherited`` are the sockets of the image before an upgrade, by name. With them nothing
        raises, because a gateway that serves does not end over its admin address: what cannot be
        bound is logged and tried again after :meth:`open`.
        """
        if inherited is None:
            self._sockets = bind_all(addresses)
            return
        self._sockets = adopt_all(addresses, inherited, self._tell_left)
        bound = {each.address for each in self._sockets}
        self._missing = [address for address in addresses if address not in bound]
        self._bind_missing()

    def _bind_missing(self) -> list[AdminSocket]:
        """Try the addresses that there is no socket for; those it got now."""
        got: list[AdminSocket] = []
        for address in list(self._missing):
            try:
                got.append(AdminSocket(address))
            except AdminError as error:
                if self._told.get(address) != (why := str(error)):
                    self._told[address] = why
                    self._log.error("admin address is not available, trying again", error=why)
            else:
                self._missing.remove(address)
                self._told.pop(address, None)
        self._sockets += got
        return got

    @property
    def has_lost_files(self) -> bool:
        """Whether the file of a socket that is served is gone or was replaced."""
        return self._served and any(each.has_lost_its_file for each in self._sockets)

    def named_descriptors(self) -> dict[str, int]:
        """The sockets for the next image, by name; they stay ours."""
        return {
            descriptor_name(n, each): each.sock.fileno() for n, each in enumerate(self._sockets)
        }

    async def open(self) -> None:
        """Import the server and serve, however often that has to be tried; once is enough."""
        if self._opening:
            return
        if not (self._sockets or self._missing):
            if self._before_serving is not None:  # nobody is to answer where nothing is configured
                await self._before_serving()
            return
        self._opening = True
        await try_until_done(self._serve, self._log, msg=CANNOT_OPEN)
        if self._missing:
            await asyncio.sleep(REBIND_S)
            await self._serve_missing()

    async def renew_lost(self) -> None:
        """Make sockets anew whose file is gone or was replaced, however often it has to be tried.

        Nobody finds the old ones any more. Clients that they have accepted are answered.
        """
        server = self._server
        if server is None or self._paused:
            return
        for each in [each for each in self._sockets if each.has_lost_its_file]:
            self._log.error(
                "nobody finds the socket of an admin address any more", admin=each.address
            )
            self._sockets.remove(each)
            self._missing.append(each.address)
            await server.stop_serving(each)
            each.close()
        await self._serve_missing()

    async def _serve_missing(self) -> None:
        """Bind and serve what is missing; while an upgrade is on, that is the next image's part."""
        if self._binding:
            return
        self._binding = True
        try:
            while self._missing:
                if not self._paused and (got := self._bind_missing()):
                    await try_until_done(partial(self._serve_more, got), self._log, msg=CANNOT_OPEN)
                if self._missing:
                    await asyncio.sleep(REBIND_S)
        finally:
            self._binding = False

    async def _serve_more(self, sockets: Sequence[AdminSocket]) -> None:
        if self._server is not None and not self._paused:
            await self._server.serve(sockets)
            self._tell(sockets)

    async def _serve(self) -> None:
        for module in IMPORTS:
            importlib.import_module(module)
            await asyncio.sleep(0)
        from supervisor.admin.server import AdminServer

        if self._server is None:
            self._server = AdminServer(
                self._view,
                self._log,
                unready=self._unready,
                names=self._names,
                sessions=self._sessions,
                max_connections=lambda: self.max_connections,
            )
        if not self._paused:
            if self._before_serving is not None:
                await self._before_serving()
            await self._server.serve(self._sockets)
            self._served = True
            self._tell(self._sockets)

    def _tell(self, sockets: Sequence[AdminSocket]) -> None:
        if sockets:
            self._log.info("admin address is open", admin=[each.served for each in sockets])

    async def pause(self) -> None:
        """Accept no more, and answer what was accepted; further clients wait for :meth:`resume`,
        or for the next image."""
        self._paused = True
        if self._server is not None:
            await self._server.pause()

    async def resume(self) -> None:
        """The upgrade came to nothing: serve on, if :meth:`pause` was called."""
        if self._paused:
            self._paused = False
            if self._server is not None:
                await try_until_done(self._serve, self._log, msg=CANNOT_OPEN)

    def forget_view(self) -> None:
        """Make the next request see the gateway as it is now, not a view of 0.1 s ago."""
        if self._server is not None:
            self._server.forget_view()

    def leave_open(self) -> None:
        """Forget the sockets without closing them: the image before this one is executed again."""
        for each in self._sockets:
            each.sock.detach()
        self._sockets, self._server = [], None

    async def close(self) -> None:
        """Stop serving and close the sockets."""
        if self._server is not None:
            await self._server.close()
        for each in self._sockets:
            if why := each.close():
                self._tell_left(each.path, why)
        self._sockets = []

    def _tell_left(self, path: str, why: str) -> None:
        self._log.warn(CANNOT_REMOVE, path=path, error=why)
