"""The admin address: HTTP for people, probes and Prometheus, served by the master.

Ownership: AdminServer owns its listening sockets and its connections. It takes one request per
connection, GET only, and gives each connection a bounded life, so a slow, silent or hostile client
costs the master nothing that grows.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import importlib.resources
import json
import logging
import re
from collections.abc import Callable, Sequence
from typing import cast

from aiohttp import web

from gateway.core.log import Log
from supervisor.admin import metrics
from supervisor.admin.sockets import AdminSocket
from supervisor.core.admin.document import document
from supervisor.core.admin.readiness import unreadiness
from supervisor.core.admin.views import GatewayView

CONNECTION_LIFE_S = 10.0
"""From accept to the end of the answer. Prometheus gives a scrape ten seconds by default."""

MAX_CONNECTIONS = 64
"""One more, and the oldest is closed: whoever sits on a connection never locks the operator out."""

VIEW_LIFE_S = 0.1
"""Requests closer together than this share one view; workers report every second."""

SECURITY_HEADERS = {
    "Server": "etcd-gateway",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class AdminServer:
    """The server. ``source`` gives the view of this moment; it is called at most every 0.1 s."""

    def __init__(
        self, sockets: Sequence[AdminSocket], source: Callable[[], GatewayView], log: Log
    ) -> None:
        self._sockets = list(sockets)
        self._source = source
        self._log = log
        self._servers: list[asyncio.Server] = []
        self._connections: dict[_Connection, None] = {}
        self._view: tuple[float, GatewayView] | None = None
        self._metrics: dict[str, tuple[float, bytes]] = {}
        self._rendering = asyncio.Lock()
        self._page, self._page_policy = _read_page()
        self._http: web.Server | None = None

    async def start(self) -> None:
        """Serve every socket; who connected before is served, too."""
        loop = asyncio.get_running_loop()
        self._http = http = web.Server(
            self._handle,
            logger=_silent_logger(),
            access_log=None,
            keepalive_timeout=CONNECTION_LIFE_S,
            lingering_time=0,
            max_line_size=4096,
            max_field_size=4096,
            max_headers=64,
        )
        for each in self._sockets:
            server = await loop.create_server(
                lambda: _Connection(self._connections, http()), sock=each.sock
            )
            self._servers.append(server)

    @property
    def served(self) -> tuple[str, ...]:
        """The addresses as bound: ``host:port`` with the real port, or ``unix:/path``."""
        return tuple(each.served for each in self._sockets)

    async def close(self) -> None:
        """Stop serving, cut what is under way, remove our unix sockets."""
        for server in self._servers:
            server.close()
        for connection in list(self._connections):
            connection.abort()
        for each in self._sockets:
            each.close()
        self._servers, self._sockets = [], []
        if self._http is not None:
            await self._http.shutdown(0)
            self._http = None

    def forget_view(self) -> None:
        """What was gathered is out of date; the next request gets what is true now."""
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
        response.headers.update(SECURITY_HEADERS)
        response.force_close()
        return response

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        if request.method != "GET":
            response = _text("only GET is served here\n", 405)
            response.headers["Allow"] = "GET"
            return response
        match request.path:
            case "/":
                page = web.Response(body=self._page, content_type="text/html", charset="utf-8")
                page.headers["Content-Security-Policy"] = self._page_policy
                return page
            case "/status":
                return _json(document(self._current()))
            case "/metrics":
                return await self._answer_metrics(request.headers.get("Accept", ""))
            case "/livez":
                return _text("ok\n")
            case "/readyz":
                reasons = unreadiness(self._current())
                return (
                    _text(f"not ready: {'; '.join(reasons)}\n", 503) if reasons else _text("ok\n")
                )
            case "/health":
                reasons = unreadiness(self._current())
                body = {"health": "false" if reasons else "true", "reason": "; ".join(reasons)}
                return _json(body, 503 if reasons else 200)
        return _text("not found; there are / /status /metrics /livez /readyz /health\n", 404)

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


class _Connection(asyncio.Protocol):
    """Stands between the transport and aiohttp: counts, and ends what takes too long."""

    def __init__(self, alive: dict[_Connection, None], inner: asyncio.Protocol) -> None:
        self._alive = alive
        self._inner = inner
        self._transport: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if len(self._alive) >= MAX_CONNECTIONS:
            next(iter(self._alive)).abort()
        self._alive[self] = None
        self._transport = cast("asyncio.Transport", transport)
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(CONNECTION_LIFE_S, self.abort)
        self._inner.connection_made(transport)

    def abort(self) -> None:
        """Cut it now; what is unsent is lost."""
        self._alive.pop(self, None)
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._alive.pop(self, None)
        if self._deadline is not None:
            self._deadline.cancel()
        self._transport = None
        self._inner.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._inner.data_received(data)

    def eof_received(self) -> bool:
        """A client that half-closes after its request still gets its answer."""
        self._inner.eof_received()
        return True

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()


def _text(text: str, code: int = 200) -> web.Response:
    return web.Response(text=text, status=code)


def _json(content: object, code: int = 200) -> web.Response:
    text = json.dumps(content, default=str) + "\n"
    return web.Response(text=text, status=code, content_type="application/json")


def _read_page() -> tuple[bytes, str]:
    """The status page, and the policy that lets it run its own script and style only."""
    page = importlib.resources.files("supervisor.admin").joinpath("page.html").read_bytes()

    def sources(tag: bytes) -> str:
        inline = re.findall(rb"<" + tag + rb">(.*?)</" + tag + rb">", page, re.DOTALL)
        digests = (base64.b64encode(hashlib.sha256(text).digest()).decode() for text in inline)
        return " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"

    policy = (
        f"default-src 'none'; script-src {sources(b'script')}; style-src {sources(b'style')}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
    return page, policy


def _silent_logger() -> logging.Logger:
    """aiohttp's complaints about malformed requests are of no use to an operator."""
    logger = logging.Logger("etcd-gateway.admin")
    logger.addHandler(logging.NullHandler())
    return logger
