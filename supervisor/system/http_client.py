"""HTTP/1.1 as a client: questions over one connection to an endpoint, with TLS or without.

Its users import it when they ask: h11 takes 16 ms of a start that needs no HTTP.
"""

from __future__ import annotations

import asyncio
import re
import socket

import h11

from supervisor.system.http_answer import MAX_BODY_BYTES, HttpAnswer, HttpError
from supervisor.system.tls import READ_BYTES, TlsClient


class HttpClient:
    """The client's side of HTTP over a connected, non-blocking socket, which stays the caller's.

    ``host``: the name or literal address for the Host header; ``port`` is 0 for a UNIX socket.
    """

    def __init__(self, sock: socket.socket, tls: TlsClient | None, host: str, port: int) -> None:
        self._sock = sock
        self._tls = tls
        bracketed = f"[{host}]" if ":" in host else host
        self._host = f"{bracketed}:{port}" if port else bracketed
        self._http = h11.Connection(h11.CLIENT)
        self._ended = False
        """The server has ended its stream."""

    @property
    def takes_another(self) -> bool:
        """Whether the connection takes a question, as far as the last answer told."""
        states = {self._http.our_state, self._http.their_state}
        return states in ({h11.IDLE}, {h11.DONE})

    async def get(
        self,
        path: str,
        *,
        last: bool = True,
        max_body_bytes: int = MAX_BODY_BYTES,
        cut: bool = False,
    ) -> HttpAnswer:
        """Ask for ``path``; ``last``: no question follows, which the server is told.

        ``cut``: of a longer body the beginning is enough; without it a longer one is an error.

        Raises HttpError for what is no answer, and OSError for a connection that broke. After
        either, and after an answer of a server that closes, the connection takes no question.
        """
        return await self._ask("GET", path, b"", last=last, max_body_bytes=max_body_bytes, cut=cut)

    async def post_json(
        self, path: str, body: bytes, *, last: bool, max_body_bytes: int = MAX_BODY_BYTES
    ) -> HttpAnswer:
        """Send a JSON document to ``path``; otherwise as :meth:`get`."""
        return await self._ask("POST", path, body, last=last, max_body_bytes=max_body_bytes)

    async def _ask(
        self,
        method: str,
        path: str,
        body: bytes,
        *,
        last: bool,
        max_body_bytes: int,
        cut: bool = False,
    ) -> HttpAnswer:
        if self._http.our_state is not h11.IDLE:
            try:
                self._http.start_next_cycle()
            except h11.LocalProtocolError:
                text = "the server takes no second question on a connection"
                raise HttpError(text) from None
        question = self._question(method, path, body, last=last)
        try:
            await self._send(question)
            return await self._read_answer(max_body_bytes, cut=cut)
        except h11.RemoteProtocolError as error:
            if self._ended:
                text = "the server closed the connection before its answer was over"
                raise HttpError(text) from None
            # h11 quotes what it got as Python would spell it.
            text = re.sub(r"bytearray\(b(.*)\)", r"\1", str(error))
            raise HttpError(f"no HTTP: {text}") from None

    def _question(self, method: str, path: str, body: bytes, *, last: bool) -> bytes:
        headers = [("Host", self._host), ("User-Agent", "etcd-gateway"), ("Accept", "*/*")]
        if body:
            headers += [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        if last:
            headers += [("Connection", "close")]
        question = self._http.send(h11.Request(method=method, target=path, headers=headers)) or b""
        if body:
            question += self._http.send(h11.Data(data=body)) or b""
        return question + (self._http.send(h11.EndOfMessage()) or b"")

    async def _read_answer(self, max_body_bytes: int, *, cut: bool) -> HttpAnswer:
        status, body = 0, bytearray()
        while True:
            match self._http.next_event():
                case h11.NEED_DATA:
                    data = await self._receive()
                    self._ended = not data
                    self._http.receive_data(data)
                case h11.Response() as response:
                    status = response.status_code
                case h11.Data() as part:
                    body += part.data
                    if len(body) > max_body_bytes:
                        if cut:
                            return HttpAnswer(status, bytes(body[:max_body_bytes]))
                        raise HttpError(f"an answer of more than {max_body_bytes} bytes")
                case h11.EndOfMessage():
                    return HttpAnswer(status, bytes(body))
                case h11.InformationalResponse():
                    pass
                case event:
                    raise HttpError(f"no HTTP: {event!s:.40}")

    async def _send(self, data: bytes) -> None:
        if self._tls is None:
            await asyncio.get_running_loop().sock_sendall(self._sock, data)
        else:
            await self._tls.send(data)

    async def _receive(self) -> bytes:
        """What the endpoint said next; empty at its end."""
        if self._tls is not None:
            return await self._tls.receive()
        await asyncio.sleep(0)  # sock_recv takes what is there without a turn for anybody else
        return await asyncio.get_running_loop().sock_recv(self._sock, READ_BYTES)
