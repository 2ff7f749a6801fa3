"""The TLS gate: a real handshake with an endpoint found by SRV, verified, before it is used.

etcd's gateway merely connects (Trail of Bits TOB-ETCD-001), so a plaintext server passes there.
The handshake runs over memory buffers on the loop: no thread, and no data follows it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl

from supervisor.core.discovery.admission import Candidate, Passed, Refused, Unreachable, Verdict

MAX_CONCURRENT = 16
"""Handshakes under way at once."""

READ_BYTES = 16 * 1024

HANDSHAKE_RECORD = 22
CLIENT_SECOND_FLIGHT = (11, 16)
"""Certificate and ClientKeyExchange: what a TLS 1.2 client sends once it verified the server."""


class Gate:
    """Verifies servers against one CA bundle and one name, which the constructor is given.

    Raises ValueError if the CA file cannot be used.
    """

    def __init__(
        self,
        server_name: str,
        *,
        ca_file: str = "",
        cert_file: str = "",
        key_file: str = "",
        timeout_s: float = 2.0,
    ) -> None:
        self._server_name = server_name
        self._timeout_s = timeout_s
        try:
            self._context = ssl.create_default_context(cafile=ca_file or None)
        except (OSError, ssl.SSLError) as error:
            raise ValueError(f"cannot load CA certificates from {ca_file}: {error}") from None
        if cert_file:
            try:
                self._context.load_cert_chain(cert_file, key_file or None)
            except (OSError, ssl.SSLError) as error:
                raise ValueError(f"cannot load {cert_file} and its key: {error}") from None
        self._slots = asyncio.Semaphore(MAX_CONCURRENT)

    async def verify(self, candidate: Candidate) -> Verdict:
        """One address, one verdict; cancellation is the only way out without one."""
        async with self._slots:
            try:
                async with asyncio.timeout(self._timeout_s):
                    return await self._dial_and_verify(candidate)
            except TimeoutError:
                return Unreachable(f"timeout after {self._timeout_s:g} s")

    async def _dial_and_verify(self, candidate: Candidate) -> Verdict:
        family = socket.AF_INET6 if ":" in candidate.address else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as sock:
            loop = asyncio.get_running_loop()
            try:
                await loop.sock_connect(sock, (candidate.address, candidate.port))
                if sock.getsockname()[:2] == sock.getpeername()[:2]:
                    return Unreachable("nobody listens (connected to itself)")
            except OSError as error:
                return Unreachable(_words(error))
            handshake = _Handshake(sock, self._context, self._server_name)
            try:
                return await handshake.run()
            except OSError as error:
                return handshake.hung_up(_words(error))


async def part_politely(sock: socket.socket, timeout_s: float) -> None:
    """Shake handles over a connected socket, verifying nothing, and say goodbye.

    For whoever only wanted to know whether a TLS server can be dialed: etcd logs every connection
    that ends before its handshake.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with contextlib.suppress(OSError):
        async with asyncio.timeout(timeout_s):
            await _Handshake(sock, context, None).run()


class _Handshake:
    """One handshake over a connected socket, which stays the caller's."""

    def __init__(
        self, sock: socket.socket, context: ssl.SSLContext, server_name: str | None
    ) -> None:
        self._sock = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_name)
        self._verified = False

    async def run(self) -> Verdict:
        """Shake handles until the certificate verified or did not; then say goodbye."""
        loop = asyncio.get_running_loop()
        while (verdict := self._step()) is None:
            if flight := self._outgoing.read():
                self._verified = self._verified or _is_second_flight(flight)
                await loop.sock_sendall(self._sock, flight)
            data = await loop.sock_recv(self._sock, READ_BYTES)
            if not data:
                return self.hung_up("closed the connection")
            self._incoming.write(data)
        await self._leave(verdict)
        return verdict

    def _step(self) -> Verdict | None:
        """Let OpenSSL go on; None while it wants to read."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return None
        except ssl.SSLError as error:
            if self._verified and "ALERT" in (error.reason or ""):
                return Passed()  # it wants a client certificate; its own verified
            return Refused(_reason(error))
        return Passed()

    def hung_up(self, error: str) -> Verdict:
        """The connection ended before the handshake did."""
        if self._verified:
            return Passed()
        return Refused(f"does not speak TLS ({error.lower()})", hung_up=True)

    async def _leave(self, verdict: Verdict) -> None:
        """Finish our flight and close orderly: an endpoint's log is not ours to fill."""
        if isinstance(verdict, Passed):
            with contextlib.suppress(OSError):
                self._tls.unwrap()
        with contextlib.suppress(OSError):
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(self._sock, self._outgoing.read())


def _is_second_flight(flight: bytes) -> bool:
    return len(flight) > 5 and flight[0] == HANDSHAKE_RECORD and flight[5] in CLIENT_SECOND_FLIGHT


def _words(error: OSError) -> str:
    # asyncio replaces the system's words by its own, with the address in them.
    return os.strerror(error.errno) if error.errno else str(error)


def _reason(error: ssl.SSLError) -> str:
    """OpenSSL's words for an operator."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate: {error.verify_message}"
    reason = error.reason or str(error)
    if reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNEXPECTED_EOF_WHILE_READING"):
        return f"does not speak TLS ({reason.lower().replace('_', ' ')})"
    return reason.lower().replace("_", " ")
