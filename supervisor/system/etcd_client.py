"""Asking one member of an etcd cluster: the JSON gateway of its client port, over HTTP/1.1."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Mapping
from typing import Any, Self

from gateway.core.records import dataclass
from supervisor.core.discovery.member_list import MAX_TEXT, plain
from supervisor.system import tls
from supervisor.system.connections import connect, leave, open_socket, words
from supervisor.system.http_answer import MAX_BODY_BYTES, HttpAnswer, HttpError
from supervisor.system.tls import TlsClient
from supervisor.system.tls_contexts import TlsContexts, TlsFiles

MEMBER_LIST = "/v3/cluster/member/list"
STATUS = "/v3/maintenance/status"

GUESS_S = 0.5
"""A server that does not answer a first handshake within this is taken for one without TLS."""

GUESS_ROUND_TRIPS = 4
"""And so many round trips: TLS 1.2 needs two, and one that is lost is repeated."""


class EtcdError(Exception):
    """The member could not be asked, or refused to answer; the text says why.

    ``kind``: the same without the server's own words, which may be others each time.
    """

    def __init__(self, text: str, *, kind: str | None = None) -> None:
        super().__init__(text)
        self.kind = text if kind is None else kind


class SpeaksFirstError(EtcdError):
    """The server said something before it was asked, as databases and mail servers do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One literal address of a member, and how to speak with it.

    ``files``: None where it speaks no TLS. ``guess``: nobody knows whether it does, so TLS is tried
    first: a server without it hangs up in silence, while etcd logs each connection to its TLS port
    that does not begin with a handshake. ``greeting_s``: so long it may speak first when guessing.
    ``server_name``: what its certificate must be valid for, and the Host of a request.
    """

    address: str
    port: int
    server_name: str
    files: TlsFiles | None = None
    guess: bool = False
    greeting_s: float = 0.0


class EtcdConnection:
    """A connection to one member, for some questions; ``async with`` opens and ends it in order.

    Owns its socket. Every failure but cancellation (and so a timeout) is raised as EtcdError.
    """

    def __init__(self, peer: Peer, contexts: TlsContexts) -> None:
        self._peer = peer
        self._contexts = contexts
        self._connected = False
        self.tls: TlsClient | None = None
        """The TLS of the connection, None where it has none."""
        self.round_trip_s = 0.0
        """How long connecting took, without TLS."""

    async def __aenter__(self) -> Self:
        peer = self._peer
        try:
            await self._open(peer.files)
        except _NoTlsError:
            self.tls = None
            await self._open(None)
        from supervisor.system.http_client import HttpClient

        self._http = HttpClient(self._sock, self.tls, peer.server_name, peer.port)
        return self

    async def _open(self, files: TlsFiles | None) -> None:
        """Connect, and shake hands where there are files; raises EtcdError."""
        peer, now = self._peer, asyncio.get_running_loop().time
        try:
            context = None if files is None else self._contexts.get(files)
        except OSError as error:  # the text names the file
            raise EtcdError(str(error)) from None
        try:
            self._sock = open_socket(peer.address)
        except OSError as error:
            raise EtcdError(words(error)) from None
        self._connected, began_at = False, now()
        try:
            await connect(self._sock, peer.address, peer.port)
            self._connected = True
            self.round_trip_s = now() - began_at
            if context is not None:
                await self._shake_hands(context)
        except BaseException as error:
            await self._end()
            if isinstance(error, OSError):
                raise EtcdError(self._words(error)) from None
            raise

    def _words(self, error: Exception) -> str:
        if isinstance(error, ssl.SSLError):
            files = self._peer.files
            return f"TLS: {tls.advise(error, shown=files is not None and bool(files.cert_file))}"
        return words(error) if isinstance(error, OSError) else str(error)

    async def _shake_hands(self, context: ssl.SSLContext) -> None:
        """Raises _NoTlsError if that is what it looks like, and it was a guess."""
        peer = self._peer
        if peer.guess and peer.greeting_s and await self._speaks_first(peer.greeting_s):
            raise SpeaksFirstError("speaks first, as etcd never does")
        self.tls = TlsClient(self._sock, context, peer.server_name)
        guess_s = GUESS_S + GUESS_ROUND_TRIPS * self.round_trip_s
        try:
            async with asyncio.timeout(guess_s if peer.guess else None):
                await self.tls.shake_hands()
        except (OSError, TimeoutError) as error:
            if peer.guess and (isinstance(error, TimeoutError) or tls.is_plaintext(error)):
                self.tls.give_up_handshake()
                raise _NoTlsError from None
            raise

    async def __aexit__(self, *_: object) -> None:
        await self._end()

    async def _speaks_first(self, within_s: float) -> bool:
        try:
            async with asyncio.timeout(within_s):
                return bool(await asyncio.get_running_loop().sock_recv(self._sock, 1))
        except TimeoutError:
            return False

    async def get(
        self, path: str, *, last: bool = False, max_body_bytes: int = MAX_BODY_BYTES
    ) -> HttpAnswer:
        """The answer, whatever its status is."""
        try:
            return await self._http.get(path, last=last, max_body_bytes=max_body_bytes)
        except (OSError, HttpError) as error:
            raise EtcdError(self._words(error)) from None

    async def ask(
        self, path: str, question: Mapping[str, Any] | None = None, *, last: bool = False
    ) -> dict[str, Any]:
        """What the JSON gateway answers to a question; a refusal is an EtcdError too."""
        body = json.dumps(question or {}).encode()
        try:
            answer = await self._http.post_json(
                path, body, last=last, max_body_bytes=16 * MAX_BODY_BYTES
            )
        except OSError as error:
            raise EtcdError(self._words(error)) from None
        except HttpError as error:
            raise EtcdError(str(error), kind="no HTTP") from None
        try:
            document = json.loads(answer.body)
        except (ValueError, RecursionError):
            document = None
        if answer.status != 200:
            kind = f"HTTP status {answer.status}"
            raise EtcdError(kind + _reason(document, answer.body), kind=kind)
        if not isinstance(document, dict):
            raise EtcdError("the answer is no JSON object")
        return document

    async def _end(self) -> None:
        try:
            if self._connected:
                await leave(self._sock, self.tls)
        finally:
            self._sock.close()


class _NoTlsError(Exception):
    """TLS was tried, and the server does not seem to speak it."""


def _reason(document: object, body: bytes) -> str:
    """What the server says of its refusal: etcd in a JSON body, other servers in a line of text."""
    text = ""
    if isinstance(document, dict):
        said = document.get("message") or document.get("error")
        text = plain(said)
    elif document is None:
        line = body.decode(errors="replace").strip()
        text = line if line.isprintable() and "<" not in line else ""
    return f" ({text[:MAX_TEXT]})" if text else ""
