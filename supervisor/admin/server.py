"""The HTTP server of the admin address, for people, probes and Prometheus.

A connection carries one request, GET or HEAD, and is closed after ten seconds at most, so that a
slow, silent or hostile client costs the master a bounded amount.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.http import HttpVersion11

from gateway.core.log import Log
from supervisor.admin import metrics
from supervisor.admin.acceptor import AdminAcceptor
from supervisor.admin.connection import CONNECTION_LIFE_S, MAX_CONNECTIONS
from supervisor.admin.protocol import (
    MAX_LINE_BYTES,
    SECURITY_HEADERS,
    SERVED_METHODS,
    Protocol,
    refuse_method,
)
from supervisor.admin.sessions_answer import (
    MOST_LISTING,
    ListSessions,
    answer_sessions,
    is_unix,
    refuse_busy,
)
from supervisor.admin.sockets import AdminSocket
from supervisor.admin.status_page import read_page
from supervisor.core.admin.document import document
from supervisor.core.admin.host_check import is_known_host
from supervisor.core.admin.readiness import unreadiness
from supervisor.core.admin.views import GatewayView

BODY_S = 2.0
"""For how long the body of a request is read, and dropped, after the answer. To close a connection
with unread bytes resets it, and a client that still sends would never read why."""

PATHS = "/ /status /sessions /metrics /livez /readyz /health"

VIEW_LIFE_S = 0.1
"""Requests within this time share one view; workers report only every second."""

HTTP_OPTIONS: dict[str, Any] = {
    "access_log": None,
    "keepalive_timeout": CONNECTION_LIFE_S,
    "lingering_time": BODY_S,
    "max_line_size": MAX_LINE_BYTES,
    "max_field_size": MAX_LINE_BYTES,
    "max_headers": 64,
}


class AdminServer:
    """Owns its connections until :meth:`close`; the listening sockets are its caller's.

    ``source()`` gives the view of this moment; it is called at most every 0.1 s.
    ``unready()`` says why clients should be sent elsewhere, for less than a view costs; without it
    the view says it.
    ``names()`` are the host names under which it may be asked, see ``core.admin.host_check``.
    ``sessions`` makes a page of the list of sessions; None where nobody could.
    ``max_connections()``: for how many there are descriptors.
    """

    def __init__(
        self,
        source: Callable[[], GatewayView],
        log: Log,
        *,
        unready: Callable[[], Sequence[str]] | None = None,
        names: Callable[[], Collection[str]] = tuple,
        sessions: ListSessions | None = None,
        max_connections: Callable[[], int] = lambda: MAX_CONNECTIONS,
    ) -> None:
        self._source = source
        self._unready = unready or (lambda: unreadiness(self._current()))
        self._names = names
        self._sessions = sessions
        self._log = log
        self._acceptor = AdminAcceptor(self._make_protocol, max_connections)
        self._view: tuple[float, GatewayView] | None = None
        self._metrics: dict[str, tuple[float, bytes]] = {}
        self._rendering = asyncio.Lock()
        self._listing = 0
        """How many have asked for the sessions, and have no answer yet."""
        self._page, self._page_policy = read_page()
        self._http = web.Server(self._handle)
        self._logger = _silent_logger()

    async def serve(self, sockets: Iterable[AdminSocket]) -> None:
        """Serve these sockets, see :meth:`AdminAcceptor.start`."""
        await self._acceptor.start(sockets)

    async def stop_serving(self, sock: AdminSocket) -> None:
        """Accept no more from this one; who was accepted is answered."""
        await self._acceptor.stop(sock)

    async def pause(self) -> None:
        """Accept no more, and answer who was accepted, see :meth:`AdminAcceptor.pause`."""
        await self._acceptor.pause()

    async def close(self) -> None:
        """Stop serving and cut the requests that are under way."""
        await self._acceptor.close()
        await self._http.shutdown(0)

    def _make_protocol(self) -> Protocol:
        loop = asyncio.get_running_loop()
        return Protocol(self._http, loop=loop, logger=self._logger, **HTTP_OPTIONS)

    def forget_view(self) -> None:
        """Make the next request see the gateway as it is now."""
        self._view = None
        self._metrics.clear()

    def _current(self) -> GatewayView:
        now = asyncio.get_running_loop().time()
        if self._view is None or now - self._view[0] > VIEW_LIFE_S:
            self._view = (now, self._source())
        return self._view[1]

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            response = await self._answer(request)
        except Exception as error:  # noqa: BLE001 - the boundary: one request fails, nothing else
            self._log.error("admin request failed", path=request.path, error=repr(error))
            response = _text("internal error\n", 500)
        if isinstance(request.protocol, Protocol):
            request.protocol.on_answer()
        response.headers.update(SECURITY_HEADERS)
        response.force_close()
        return response

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        if request.method not in SERVED_METHODS:  # of HEAD, aiohttp sends the headers alone
            return refuse_method()
        if (refusal := self._refuse_host(request)) is not None:
            return refusal
        match request.path:
            case "/":
                page = web.Response(body=self._page, content_type="text/html", charset="utf-8")
                page.headers["Content-Security-Policy"] = self._page_policy
                return page
            case "/status":
                return _json(document(self._current()))
            case "/metrics":
                return await self._answer_metrics(request.headers.get("Accept", ""))
            case "/sessions":
                return await self._answer_sessions(request)
            case "/livez":
                return _text("ok\n")
            case "/readyz":
                reasons = self._unready()
                return (
                    _text(f"not ready: {'; '.join(reasons)}\n", 503) if reasons else _text("ok\n")
                )
            case "/health":
                return _health(self._unready())
        return _text(f"not found; there are {PATHS}\n", 404)

    async def _answer_sessions(self, request: web.BaseRequest) -> web.Response:
        """Who asks may wait for seconds: of too many, the last is told, instead of one cut off."""
        if self._listing >= MOST_LISTING:
            return refuse_busy()
        self._listing += 1
        try:
            return await answer_sessions(request, self._sessions)
        finally:
            self._listing -= 1

    def _refuse_host(self, request: web.BaseRequest) -> web.Response | None:
        """The answer to a request that was sent to another host; None for one meant for us."""
        if is_unix(request):
            return None
        hosts = request.headers.getall("Host", [])
        if not hosts and request.version < HttpVersion11:  # no browser speaks it
            return None
        if len(hosts) != 1:
            return _text("expected one Host header\n", 400)
        target = request.raw_path
        authorities = hosts if target.startswith("/") else [*hosts, urlsplit(target).netloc]
        names = self._names()
        for authority in authorities:
            if not is_known_host(authority, names):
                return _text(
                    f"unknown host {authority!r:.300}: expected an IP address, localhost,"
                    " or a name given with --admin-host\n",
                    421,
                )
        return None

    async def _answer_metrics(self, accept: str) -> web.Response:
        """Rendered in pieces, and once for all who ask at the same moment."""
        loop = asyncio.get_running_loop()
        async with self._rendering:
            parts, content_type = metrics.render(self._current(), accept)
            rendered_at, body = self._metrics.get(content_type, (-VIEW_LIFE_S, b""))
            if loop.time() - rendered_at > VIEW_LIFE_S:
                text = bytearray()
                for part in parts:
                    text += part
                    await asyncio.sleep(0)
                body = bytes(text)
                self._metrics[content_type] = (loop.time(), body)
        return web.Response(body=body, headers={"Content-Type": content_type})


def _health(reasons: Sequence[str]) -> web.Response:
    """etcd's answer byte for byte, because scripts compare it as text."""
    body = {"health": "false" if reasons else "true", "reason": "; ".join(reasons)}
    text = json.dumps(body, separators=(",", ":"))
    return web.Response(
        text=text + "\n" if reasons else text,
        status=503 if reasons else 200,
        content_type="application/json",
    )


def _text(text: str, code: int = 200) -> web.Response:
    return web.Response(text=text, status=code)


def _json(content: object) -> web.Response:
    text = json.dumps(content, default=str) + "\n"
    return web.Response(text=text, content_type="application/json")


def _silent_logger() -> logging.Logger:
    """aiohttp's complaints about malformed requests are of no use to an operator."""
    logger = logging.Logger("etcd-gateway.admin")
    logger.addHandler(logging.NullHandler())
    return logger
