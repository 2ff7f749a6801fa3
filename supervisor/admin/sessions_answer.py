"""The answer of the admin address to who asks for ``/sessions``."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable
from typing import Protocol

from aiohttp import web

from gateway.core import json_codec
from supervisor.core.admin.session_list import (
    BusyError,
    QueryError,
    SessionPage,
    SessionQuery,
    read_query,
)

ROWS_AT_A_TIME = 250
"""Rows encoded between two turns of the loop: about a millisecond."""

DURING_AN_UPGRADE = "the gateway is being upgraded and cannot list sessions now, ask again\n"

BUSY = "others ask for the sessions and there was no time for this question, ask again\n"


MOST_LISTING = 48
"""How many may wait for the sessions: fewer than ``MAX_ANSWERS``, so others are answered too."""


class ListSessions(Protocol):
    """What makes a page of the list; see ``supervisor.session_lister``."""

    async def __call__(
        self, query: SessionQuery, *, with_processes: bool, is_awaited: Callable[[], bool]
    ) -> SessionPage | None: ...


async def answer_sessions(request: web.BaseRequest, sessions: ListSessions | None) -> web.Response:
    """One page as JSON; 400 says what is wrong with the question, 503 why there is no page now."""
    try:
        query = read_query(request.query.items())
    except QueryError as error:
        return web.Response(text=f"{error}\n", status=400)
    if sessions is None:
        return _not_now(DURING_AN_UPGRADE)
    try:
        page = await sessions(
            query,
            with_processes=is_unix(request) or _is_of_this_host(request),
            is_awaited=lambda: request.transport is not None,
        )
    except BusyError:
        return refuse_busy()
    body = b"" if page is None else await _encode(page)
    return web.Response(body=body, content_type="application/json", charset="utf-8")


def refuse_busy() -> web.Response:
    return _not_now(BUSY)


def _not_now(text: str) -> web.Response:
    return web.Response(text=text, status=503, headers={"Retry-After": "1"})


async def _encode(page: SessionPage) -> bytes:
    """The document, its rows in pieces: other requests and the workers go on meanwhile."""
    text = bytearray(json_codec.dumps(page.head()).removesuffix(b"}"))
    text += b',"sessions":['
    for start in range(0, len(page.rows), ROWS_AT_A_TIME):
        rows = [page.row(who, each) for who, each in page.rows[start : start + ROWS_AT_A_TIME]]
        text += b"," if start else b""
        text += json_codec.dumps(rows)[1:-1]
        await asyncio.sleep(0)
    text += b"]}\n"
    return bytes(text)


def is_unix(request: web.BaseRequest) -> bool:
    """Whether the client came through a unix socket, which no web page can reach."""
    if request.transport is None:  # the client has gone
        return False
    sock = request.transport.get_extra_info("socket")
    return sock is not None and sock.family == socket.AF_UNIX


def _is_of_this_host(request: web.BaseRequest) -> bool:
    """Whether the client came over loopback: processes of this host are nobody else's business."""
    peer = request.transport.get_extra_info("peername") if request.transport is not None else None
    if not isinstance(peer, tuple):
        return False
    address = ipaddress.ip_address(str(peer[0]).partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
