"""One probe of one address: connect, shake handles, ask, as far as its kind goes; then leave.

On the loop, without a thread: the address is literal, and TLS runs over memory buffers.
Leaving is a part of the probe. Closing while the endpoint still has something to say (a greeting,
a TLS 1.3 session ticket) would be answered by our kernel with a reset, and servers log resets; so
we say goodbye, close our direction, and listen until the endpoint has closed its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import os
import re
import socket
import ssl
from dataclasses import dataclass

import h11

from gateway.core.outcome import LOCAL
from supervisor.core.health.probing import MAX_BODY_BYTES, Plan, ProbeKind, fault

READ_BYTES = 16 * 1024

LINGER_S = 1.0
"""How long an endpoint may take to close its direction after we closed ours."""

LINGER_BYTES = 256 * 1024
"""And how much it may still say: one that streams for ever is cut."""

HANDSHAKE_RECORD = 22
CLIENT_SECOND_FLIGHT = (11, 16)
"""Certificate, ClientKeyExchange: a TLS 1.2 client sends them once the server has verified."""


CLIENT_CERTIFICATE_ALERTS = frozenset(
    {
        "SSLV3_ALERT_BAD_CERTIFICATE",
        "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
        "TLSV13_ALERT_CERTIFICATE_REQUIRED",
        "TLSV1_ALERT_UNKNOWN_CA",
    }
)
"""How servers say that they want a client certificate, or another one (OpenSSL's names)."""


class Verdict(enum.StrEnum):
    """``result`` of ``probes_total``."""

    PASSED = "passed"
    FAILED = "failed"
    UNDECIDED = "undecided"
    """It failed on our own host (no descriptor, no route, no readable CA file): no evidence."""


@dataclass(frozen=True, slots=True)
class Result:
    """``error`` is empty if the probe passed."""

    verdict: Verdict
    error: str = ""


class _UnhealthyError(Exception):
    """The endpoint is not healthy; the text says why."""


class Trust:
    """TLS contexts, loaded when first needed and again when a file changed (rotated)."""

    def __init__(self) -> None:
        self._contexts: dict[tuple[str, str, str, bool], tuple[object, ssl.SSLContext]] = {}

    def context(self, plan: Plan) -> ssl.SSLContext:
        """Raises OSError (ssl.SSLError is one) if a file cannot be used."""
        key = (plan.ca_file, plan.cert_file, plan.key_file, plan.verify)
        marks = tuple(
            (stat.st_mtime_ns, stat.st_ino, stat.st_size)
            for path in key[:3]
            if isinstance(path, str) and path
            for stat in (os.stat(path),)
        )
        held = self._contexts.get(key)
        if held is None or held[0] != marks:
            held = self._contexts[key] = (marks, self._load(plan))
        return held[1]

    def _load(self, plan: Plan) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=plan.ca_file or None)
        # Python 3.13 turns the strict rules on; private CAs seldom follow them and Go never asks.
        context.verify_flags &= ~ssl.VerifyFlags.VERIFY_X509_STRICT
        context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
        if not plan.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if plan.cert_file:
            context.load_cert_chain(plan.cert_file, plan.key_file or None)
        return context


class Probe:
    """One connection: ``run`` for the result, then ``leave`` to end it orderly, then ``close``.

    Owns its socket from ``run`` to ``close``.
    """

    def __init__(self, address: str, port: int, plan: Plan, trust: Trust) -> None:
        self._address = address
        self._port = port
        self._plan = plan
        self._trust = trust
        self._sock: socket.socket | None = None
        self._tls: _Tls | None = None

    async def run(self, timeout_s: float) -> Result:
        """The result within ``timeout_s`` seconds; raises nothing but cancellation."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self._check()
        except TimeoutError:
            stage = "connect" if self._sock is None or not _connected(self._sock) else "answer"
            return Result(Verdict.FAILED, f"timeout: no {stage} within {timeout_s:g} s")
        except _UnhealthyError as error:
            return Result(Verdict.FAILED, str(error))
        except ssl.SSLError as error:
            return Result(Verdict.FAILED, f"TLS: {_reason(error, self._plan)}")
        except OSError as error:
            return Result(Verdict.FAILED, _words(error))
        except h11.RemoteProtocolError as error:
            # h11 quotes what it got as Python would spell it.
            text = re.sub(r"bytearray\(b(.*)\)", r"\1", str(error))
            return Result(Verdict.FAILED, f"no HTTP: {text}")

    async def leave(self) -> None:
        """Say goodbye and wait, for a while, until the endpoint has closed too."""
        if self._sock is None or not _connected(self._sock):
            return
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(LINGER_S):
                if self._tls is not None:
                    await loop.sock_sendall(self._sock, self._tls.goodbye())
                self._sock.shutdown(socket.SHUT_WR)
                heard = 0
                while heard < LINGER_BYTES:
                    data = await loop.sock_recv(self._sock, READ_BYTES)
                    if not data:
                        break
                    heard += len(data)

    def close(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    async def _check(self) -> Result:
        try:
            context = self._trust.context(self._plan) if self._plan.tls else None
        except OSError as error:
            return Result(Verdict.UNDECIDED, f"cannot load a certificate or key file: {error}")
        try:
            await self._connect()
        except OSError as error:
            if error.errno not in LOCAL:
                raise
            return Result(Verdict.UNDECIDED, _words(error))
        if context is not None:
            await self._handshake(context)
        if self._plan.kind in (ProbeKind.HTTP, ProbeKind.HTTPS):
            await self._ask()
        return Result(Verdict.PASSED)

    async def _connect(self) -> None:
        family = socket.AF_INET6 if ":" in self._address else socket.AF_INET
        kind = socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        self._sock = sock = socket.socket(family, kind, socket.IPPROTO_TCP)
        await asyncio.get_running_loop().sock_connect(sock, (self._address, self._port))
        if is_reflection(sock):
            raise _UnhealthyError("connection refused (connected to itself)")

    async def _handshake(self, context: ssl.SSLContext) -> None:
        self._tls = tls = _Tls(context, self._plan.server_name)
        try:
            while not tls.shake_hands():
                await self._send(tls.take_outgoing())
                tls.feed(await self._receive_raw())
            await self._send(tls.take_outgoing())
        except (ssl.SSLError, ConnectionError):
            # It wants a client certificate that we do not have, but its own has verified.
            if not tls.verified or self._plan.kind is not ProbeKind.TLS or self._plan.cert_file:
                raise

    async def _ask(self) -> None:
        """GET the health path; raises _UnhealthyError unless the answer says healthy."""
        http = h11.Connection(h11.CLIENT)
        host = self._plan.server_name
        host = f"[{host}]" if ":" in host else host
        headers = [
            ("Host", f"{host}:{self._port}"),
            ("User-Agent", "etcd-gateway"),
            ("Accept", "*/*"),
            ("Connection", "close"),
        ]
        request = h11.Request(method="GET", target=self._plan.path, headers=headers)
        question = (http.send(request) or b"") + (http.send(h11.EndOfMessage()) or b"")
        await self._send(self._tls.encrypt(question) if self._tls else question)
        status, body = 0, b""
        while True:
            match http.next_event():
                case h11.NEED_DATA:
                    http.receive_data(await self._receive())
                case h11.Response() as response:
                    status = response.status_code
                case h11.Data() as data:
                    body += data.data
                    if len(body) > MAX_BODY_BYTES:
                        raise _UnhealthyError(f"an answer of more than {MAX_BODY_BYTES} bytes")
                case h11.EndOfMessage():
                    break
                case h11.InformationalResponse():
                    pass
                case event:
                    raise _UnhealthyError(f"no HTTP: {event!s:.40}")
        if (error := fault(status, body)) is not None:
            raise _UnhealthyError(error)

    async def _receive(self) -> bytes:
        """What the endpoint said next, decrypted; empty at its end."""
        if self._tls is None:
            return await self._receive_raw()
        while (data := self._tls.decrypt()) is None:
            await self._send(self._tls.take_outgoing())
            raw = await self._receive_raw()
            if not raw:
                return b""
            self._tls.feed(raw)
        return data

    async def _receive_raw(self) -> bytes:
        assert self._sock is not None  # noqa: S101 (connected before)
        return await asyncio.get_running_loop().sock_recv(self._sock, READ_BYTES)

    async def _send(self, data: bytes) -> None:
        assert self._sock is not None  # noqa: S101 (connected before)
        if data:
            await asyncio.get_running_loop().sock_sendall(self._sock, data)


class _Tls:
    """The client's side of TLS without a socket: bytes in, bytes out."""

    def __init__(self, context: ssl.SSLContext, server_name: str) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_name)
        self.verified = False
        """The server's certificate was accepted, though the handshake may not be over."""

    def shake_hands(self) -> bool:
        """True when done; False: send what is outgoing, then feed what comes."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        self.verified = True
        return True

    def feed(self, data: bytes) -> None:
        """What came from the endpoint; raises ConnectionError at its end."""
        if not data:
            raise ConnectionResetError("closed the connection during the TLS handshake")
        self._incoming.write(data)

    def take_outgoing(self) -> bytes:
        flight = self._outgoing.read()
        if len(flight) > 5 and flight[0] == HANDSHAKE_RECORD and flight[5] in CLIENT_SECOND_FLIGHT:
            self.verified = True
        return flight

    def encrypt(self, data: bytes) -> bytes:
        self._tls.write(data)
        return self._outgoing.read()

    def decrypt(self) -> bytes | None:
        """Plain bytes, empty at the end of the stream; None: feed more."""
        try:
            return self._tls.read(READ_BYTES)
        except ssl.SSLWantReadError:
            return None
        except ssl.SSLZeroReturnError:
            return b""

    def goodbye(self) -> bytes:
        """Our close_notify, or the alert of a failed handshake."""
        with contextlib.suppress(ssl.SSLError):
            self._tls.unwrap()
        return self._outgoing.read()


def is_reflection(sock: socket.socket) -> bool:
    """Whether it is connected to itself.

    TCP allows that (simultaneous open), and a connect to a local port where nobody listens comes
    to it when the kernel happens to choose that very port for our side.
    """
    return bool(sock.getsockname()[:2] == sock.getpeername()[:2])


def _connected(sock: socket.socket) -> bool:
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


def _words(error: OSError) -> str:
    """The system's words; asyncio's own would repeat the address."""
    return (os.strerror(error.errno) if error.errno else str(error)).lower()


def _reason(error: ssl.SSLError, plan: Plan) -> str:
    """OpenSSL's words for an operator, and what they mean where that is known."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate: {error.verify_message}"
    reason = error.reason or str(error)
    words = reason.lower().replace("_", " ")
    if reason not in CLIENT_CERTIFICATE_ALERTS:
        return words
    verb = "does not accept" if plan.cert_file else "wants a client certificate:"
    return f"{words} (the endpoint {verb} --health-cert-file)"
