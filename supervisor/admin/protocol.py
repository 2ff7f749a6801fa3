"""HTTP on one connection of the admin address, as aiohttp speaks it, with headers of our own."""

from __future__ import annotations

import re
from collections.abc import Callable

from aiohttp import web

SERVED_METHODS = ("GET", "HEAD")

MAX_LINE_BYTES = 4096
"""Of the request line, and of each header."""

_REQUEST_LINE = re.compile(rb"[\r\n]*([!#$%&'*+.^_`|~0-9A-Za-z-]+) [^ ]+ HTTP/1\.[01]\r?\n")
"""Method, target and version; lines may be empty in front of it (RFC 9112, sections 2.2 and 3)."""

SECURITY_HEADERS = {
    "Server": "etcd-gateway",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def refuse_method() -> web.Response:
    """The answer to every method but those that are served."""
    response = web.Response(text="only GET and HEAD are served here\n", status=405)
    response.headers["Allow"] = ", ".join(SERVED_METHODS)
    return response


class Protocol(web.RequestHandler):
    """Answers what the parser refuses with these headers too, and unknown methods with 405.

    aiohttp's own answer would name the versions of aiohttp and of Python, and browsers might take
    the bytes that it repeats for a page. Its parser knows some forty methods by name, and takes the
    others for no HTTP.
    """

    on_answer: Callable[[], None] = staticmethod(lambda: None)
    """The answer to a request is made and is about to be written."""

    _begin = b""
    """What came first, to the end of the request line."""

    def data_received(self, data: bytes) -> None:
        if len(self._begin) < MAX_LINE_BYTES:
            self._begin += data[:MAX_LINE_BYTES]
        super().data_received(data)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        line = _REQUEST_LINE.match(self._begin)
        if status == 400 and line is not None and line[1].decode() not in SERVED_METHODS:
            response: web.StreamResponse = refuse_method()
            response.force_close()
        else:
            response = super().handle_error(request, status, exc, message)
        response.headers.update(SECURITY_HEADERS)
        return response
