"""HTTP on one connection of the admin address, as aiohttp speaks it, with headers of our own."""

from __future__ import annotations

from aiohttp import web

SECURITY_HEADERS = {
    "Server": "etcd-gateway",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Protocol(web.RequestHandler):
    """Answers what is no HTTP with these headers too.

    Such an answer is aiohttp's own: it would name the versions of aiohttp and of Python, and
    browsers might take the bytes that it repeats for a page.
    """

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        response = super().handle_error(request, status, exc, message)
        response.headers.update(SECURITY_HEADERS)
        return response
