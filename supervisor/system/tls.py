"""TLS as a client, for whoever asks an endpoint who it is: the TLS gate, the probe, ``check``.

The handshake runs over memory buffers on the asyncio loop: no thread, and no stream object that
would close the socket in its own way. The socket stays the caller's.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl

READ_BYTES = 16 * 1024

HANDSHAKE_RECORD = 22
CLIENT_SECOND_FLIGHT = (11, 16)
"""Certificate, ClientKeyExchange: a TLS 1.2 client sends them once it has verified the server."""

NO_TLS = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNEXPECTED_EOF_WHILE_READING"})
"""What OpenSSL says of a peer that speaks something else."""

CLIENT_CERTIFICATE_ALERTS = frozenset(
    {
        "SSLV3_ALERT_BAD_CERTIFICATE",
        "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
        "TLSV13_ALERT_CERTIFICATE_REQUIRED",
        "TLSV1_ALERT_UNKNOWN_CA",
    }
)
"""How servers say that they want a client certificate, or another one (OpenSSL's names)."""


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
        self.shaking_hands = False
        """A handshake was begun, and has neither ended nor failed: whoever waited for it left."""

    @property
    def resumed(self) -> bool:
        """Whether the server took the session that it was offered, and showed no certificate."""
        return bool(self._tls.session_reused)

    @property
    def certificate(self) -> bytes | None:
        """The server's certificate in DER; None before it was shown."""
        try:
            return self._tls.getpeercert(binary_form=True)
        except ValueError:  # the handshake was not over when it failed
            return None

    @property
    def session(self) -> ssl.SSLSession | None:
        """The newest session; with TLS 1.3 it comes after the handshake, with what is received."""
        return self._tls.session

    async def shake_hands(self) -> None:
        """Raises ssl.SSLError, or ConnectionError if the peer hangs up before the end.

        After a cancellation, another call goes on with the same handshake.
        """
        self.shaking_hands = True
        try:
            while not self._step():
                await self._flush()
                await self._feed()
            await self._flush()
        except OSError:
            self.shaking_hands = False
            raise
        self.shaking_hands = False

    def give_up_handshake(self) -> None:
        """Nobody will answer: a connection that is left does not wait for the handshake's end."""
        self.shaking_hands = False

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
            try:
                await asyncio.get_running_loop().sock_sendall(self._sock, flight)
            except ConnectionError:
                self._raise_alert()
                raise

    def _raise_alert(self) -> None:
        """Raise ssl.SSLError if the endpoint said why, before it hung up: an alert says more than
        a send that failed."""
        try:
            self._incoming.write(self._sock.recv(READ_BYTES))
        except OSError:
            return
        with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLZeroReturnError, ssl.SSLEOFError):
            if self.shaking_hands:
                self._tls.do_handshake()
            else:
                self._tls.read(READ_BYTES)

    async def _feed(self) -> None:
        await asyncio.sleep(0)  # sock_recv takes what is there without a turn for anybody else
        data = await asyncio.get_running_loop().sock_recv(self._sock, READ_BYTES)
        if not data:
            raise HungUpError("closed the connection")
        self._incoming.write(data)


class HungUpError(ConnectionError):
    """The endpoint closed the connection before TLS was over."""


def is_plaintext(error: Exception) -> bool:
    """Whether a handshake failed as it does with a server that speaks no TLS.

    Such a server answers in its own protocol, hangs up, or waits for more; one that speaks TLS may
    hang up or keep waiting, too.
    """
    if isinstance(error, ssl.SSLError):
        return (error.reason or "") in NO_TLS
    return isinstance(error, ConnectionError | TimeoutError)


def words(error: ssl.SSLError) -> str:
    """OpenSSL's words for an operator."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate: {error.verify_message}"
    reason = error.reason or str(error)
    text = reason.lower().replace("_", " ")
    return f"does not speak TLS ({text})" if reason in NO_TLS else text


def advise(error: ssl.SSLError, *, shown: bool) -> str:
    """The same, and what an operator can do about it where that is known.

    ``shown``: whether a client certificate was shown.
    """
    if error.reason not in CLIENT_CERTIFICATE_ALERTS:
        return words(error)
    verb = "does not accept" if shown else "wants a client certificate:"
    return f"{words(error)} (the endpoint {verb} --health-cert-file)"
