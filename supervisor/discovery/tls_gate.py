"""The TLS gate: a real handshake with an endpoint found by SRV, verified, before it is used.

etcd's gateway merely connects (Trail of Bits TOB-ETCD-001), so a plaintext server passes there.
No data follows the handshake.
"""

from __future__ import annotations

import asyncio
import socket
import ssl

from gateway.core.outcome import EXHAUSTED, LOCAL
from supervisor.core.discovery.admission import Candidate, Passed, Refused, Unreachable, Verdict
from supervisor.system import tls
from supervisor.system.connections import CLOSE_S, connect, leave, open_socket, words
from supervisor.system.shared_tls import SharedTls
from supervisor.system.tls import TlsClient
from supervisor.system.tls_contexts import TlsFiles

MAX_CONCURRENT = 16
"""Handshakes under way at once."""


class Gate:
    """Verifies servers against one CA bundle and one name, which the constructor is given.

    ``max_concurrent``: for how many handshakes at once there are descriptors.
    Raises ValueError if a file cannot be used.
    """

    def __init__(
        self,
        server_name: str,
        *,
        ca_file: str = "",
        cert_file: str = "",
        key_file: str = "",
        timeout_s: float = 2.0,
        max_concurrent: int = MAX_CONCURRENT,
        shared_tls: SharedTls | None = None,
    ) -> None:
        self._server_name = server_name
        self._timeout_s = timeout_s
        self._files = TlsFiles(ca_file=ca_file, cert_file=cert_file, key_file=key_file)
        self._shared = shared_tls or SharedTls()
        try:
            self._shared.contexts.get(self._files)
        except OSError as error:
            raise ValueError(str(error)) from None
        self._slots = asyncio.Semaphore(min(max_concurrent, MAX_CONCURRENT))
        self._under_way: set[asyncio.Future[None]] = set()
        self._going = asyncio.Event()
        self._going.set()
        self._closed = False

    async def verify(self, candidate: Candidate) -> Verdict:
        """The verdict on one address.

        Every failure of the network or of the server is a verdict. Errors of the program, and
        cancellation, are raised.
        """
        async with self._slots:
            await self._going.wait()
            if self._closed:
                return Unreachable("the gateway stops")
            over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._under_way.add(over)
            try:
                return await self._verify(candidate)
            finally:
                self._under_way.discard(over)
                over.set_result(None)

    async def close(self) -> None:
        """Begin no more handshakes, and let those under way end in order for CLOSE_S."""
        self._closed = True
        await self._await_those_under_way()
        self._going.set()

    async def pause(self) -> None:
        """Begin no handshake until :meth:`resume`; those under way may end in order for CLOSE_S."""
        self._going.clear()
        await self._await_those_under_way()

    def resume(self) -> None:
        """Go on with the checks that wait."""
        self._going.set()

    async def _await_those_under_way(self) -> None:
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=CLOSE_S)

    async def _verify(self, candidate: Candidate) -> Verdict:
        try:
            context = self._shared.contexts.get(self._files)
        except OSError as error:  # a file that cannot be used
            return Unreachable(str(error))
        try:
            sock = open_socket(candidate.address)
        except OSError as error:
            return _unreachable(error)
        with sock:
            return await self._dial_and_verify(candidate, sock, context)

    async def _dial_and_verify(
        self, candidate: Candidate, sock: socket.socket, context: ssl.SSLContext
    ) -> Verdict:
        """A handshake that takes too long, or that nobody awaits any more, ends in order too."""
        client = None
        try:
            async with asyncio.timeout(self._timeout_s):
                try:
                    await connect(sock, candidate.address, candidate.port)
                except OSError as error:
                    return _unreachable(error)
                client = TlsClient(sock, context, self._server_name)
                verdict = await _shake_hands(client)
            place = (candidate.name, candidate.address, candidate.port)
            self._shared.certificates.take(place, client)
            return verdict
        except TimeoutError:
            return Unreachable(f"timeout after {self._timeout_s:g} s")
        finally:
            if client is not None:
                await leave(sock, client)


def _unreachable(error: OSError) -> Unreachable:
    return Unreachable(words(error), cut_off=error.errno in LOCAL.difference(EXHAUSTED))


async def _shake_hands(client: TlsClient) -> Verdict:
    """A server passes if its certificate verified, even if it wants one of ours and hangs up."""
    try:
        await client.shake_hands()
    except ssl.SSLError as error:
        if not (client.verified and "ALERT" in (error.reason or "")):
            return Refused(tls.words(error))
    except OSError as error:
        if not client.verified:
            if error.errno in EXHAUSTED:
                return _unreachable(error)
            return Refused(f"does not speak TLS ({words(error)})", hung_up=True)
    return Passed()
