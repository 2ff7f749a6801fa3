"""TLS as a client, for whoever asks an endpoint who it is: the TLS gate, the probe, ``check``.

The handshake runs over memory buffers on the asyncio loop: no thread, and no stream object that
would close the socket in its own way. The socket stays the caller's.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import Hashable
from dataclasses import dataclass

READ_BYTES = 16 * 1024

FULL_HANDSHAKE_S = 600.0
"""A session is resumed for so long at most: only a full handshake shows the certificate."""

HANDSHAKE_RECORD = 22
CLIENT_SECOND_FLIGHT = (11, 16)
"""Certificate, ClientKeyExchange: a TLS 1.2 client sends them once it has verified the server."""

NO_TLS = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNEXPECTED_EOF_WHILE_READING"})
"""What OpenSSL says of a peer that speaks something else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """The files that a TLS context is made of, and whether the server's certificate is verified.

    An empty ``ca_file`` means the CA certificates of the system.
    """

    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    verify: bool = True


class TlsContexts:
    """TLS contexts, loaded when first needed and loaded again when one of their files changed."""

    def __init__(self) -> None:
        self._contexts: dict[TlsFiles, tuple[object, ssl.SSLContext]] = {}

    def get(self, files: TlsFiles) -> ssl.SSLContext:
        """Raises OSError if a file cannot be used; the text names it."""
        stamps = tuple(map(_stamp, _paths(files)))
        held = self._contexts.get(files)
        if held is None or held[0] != stamps:
            held = self._contexts[files] = (stamps, _load(files))
        return held[1]


@dataclass(frozen=True, slots=True)
class _Held:
    """A session, the context that it belongs to, and when its server showed its certificate."""

    session: ssl.SSLSession
    context: ssl.SSLContext
    verified_at: float


class TlsSessions:
    """Sessions to resume, by server: a resumed handshake costs it no signature.

    One that is older than FULL_HANDSHAKE_S, or of a context whose files changed, is not resumed.
    ``now`` is of the monotonic clock.
    """

    def __init__(self) -> None:
        self._held: dict[Hashable, _Held] = {}

    def find(self, server: Hashable, context: ssl.SSLContext, now: float) -> ssl.SSLSession | None:
        held = self._held.get(server)
        if held is None or held.context is not context:
            return None
        return held.session if now - held.verified_at < FULL_HANDSHAKE_S else None

    def keep(
        self, server: Hashable, context: ssl.SSLContext, client: TlsClient, now: float
    ) -> None:
        """Remember the newest session of a connection whose handshake was completed."""
        session = client.session
        if session is None:
            return
        held = self._held.get(server)
        if held is None or not client.resumed:
            self._held[server] = _Held(session, context, now)
            fresh = now - FULL_HANDSHAKE_S
            self._held = {key: each for key, each in self._held.items() if each.verified_at > fresh}
        else:
            self._held[server] = _Held(session, context, held.verified_at)

    def forget(self, server: Hashable) -> None:
        self._held.pop(server, None)


class TlsClient:
    """The client's side of one TLS connection over a connected, non-blocking socket."""

    def __init__(
        self,
        sock: socket.socket,
        context: ssl.SSLContext,
        server_name: str | None,
        session: ssl.SSLSession | None = None,
    ) -> None:
        self._sock = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_hostname=server_name, session=session
        )
        self.verified = False
        """The server's certificate was accepted, though the handshake may not be over.

        A server that demands a client certificate ends the handshake after this point.
        """

    @property
    def resumed(self) -> bool:
        """Whether the server took the session that it was offered, and showed no certificate."""
        return bool(self._tls.session_reused)

    @property
    def session(self) -> ssl.SSLSession | None:
        """The newest session; with TLS 1.3 it comes after the handshake, with what is received."""
        return self._tls.session

    async def shake_hands(self) -> None:
        """Raises ssl.SSLError, or ConnectionError if the peer hangs up before the end."""
        while not self._step():
            await self._flush()
            await self._feed()
        await self._flush()

    async def send(self, data: bytes) -> None:
        self._tls.write(data)
        await self._flush()

    async def receive(self) -> bytes:
        """What the endpoint said next; empty at the end of its stream, an unclean end included."""
        while True:
            try:
                return self._tls.read(READ_BYTES)
            except ssl.SSLZeroReturnError:
                return b""
            except ssl.SSLWantReadError:
                await self._flush()
            try:
                await self._feed()
            except HungUpError:
                return b""

    def goodbye(self) -> bytes:
        """The last bytes to send: our close_notify, or the alert of a handshake that failed."""
        with contextlib.suppress(ssl.SSLError):
            self._tls.unwrap()
        return self._outgoing.read()

    def _step(self) -> bool:
        """Let OpenSSL go on with the handshake; False while it waits for the endpoint."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        self.verified = True
        return True

    async def _flush(self) -> None:
        flight = self._outgoing.read()
        if len(flight) > 5 and flight[0] == HANDSHAKE_RECORD and flight[5] in CLIENT_SECOND_FLIGHT:
            self.verified = True
        if flight:
            await asyncio.get_running_loop().sock_sendall(self._sock, flight)

    async def _feed(self) -> None:
        data = await asyncio.get_running_loop().sock_recv(self._sock, READ_BYTES)
        if not data:
            raise HungUpError("closed the connection")
        self._incoming.write(data)


class HungUpError(ConnectionError):
    """The endpoint closed the connection before TLS was over."""


def unverified() -> ssl.SSLContext:
    """A context that verifies nothing: for a handshake that only spares the server's log."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def words(error: ssl.SSLError) -> str:
    """OpenSSL's words for an operator."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate: {error.verify_message}"
    reason = error.reason or str(error)
    text = reason.lower().replace("_", " ")
    return f"does not speak TLS ({text})" if reason in NO_TLS else text


def _paths(files: TlsFiles) -> tuple[str, ...]:
    """The files and folders whose change makes a new context necessary."""
    paths = [path for path in (files.cert_file, files.key_file) if path]
    if files.ca_file:
        return (files.ca_file, *paths)
    system = ssl.get_default_verify_paths()
    return (*(path for path in (system.cafile, system.capath) if path), *paths)


def _stamp(path: str) -> tuple[int, int, int] | None:
    """What changes with the file; None while there is none, which loading will complain about."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size


def _load(files: TlsFiles) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=files.ca_file or None)
    except OSError as error:
        raise OSError(f"cannot load CA certificates from {files.ca_file}: {error}") from None
    # Python 3.13 turns the strict rules on; private CAs seldom follow them and Go never asks.
    context.verify_flags &= ~ssl.VerifyFlags.VERIFY_X509_STRICT
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    if not files.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if files.cert_file:
        try:
            context.load_cert_chain(files.cert_file, files.key_file or None)
        except OSError as error:
            raise OSError(f"cannot load {files.cert_file} and its key: {error}") from None
    return context
