"""Dialing every address of every endpoint once, for the command ``check``."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Iterable

from gateway.core.records import dataclass
from supervisor.core.config import Config
from supervisor.core.discovery.endpoints import Discovered
from supervisor.system import connections
from supervisor.system.tls import TlsClient
from supervisor.system.tls_contexts import load_certificate, unverified

MAX_CONCURRENT = 64
"""Dials under way at once."""


@dataclass(frozen=True, slots=True)
class Dial:
    """One attempt at one address; ``error`` is "" if it connected."""

    address: str
    time_s: float
    error: str = ""

    @property
    def said(self) -> str:
        """What came of it, in words."""
        return self.error or f"connected in {self.time_s * 1000:.1f} ms"


@dataclass(frozen=True, slots=True)
class Checked:
    """One endpoint that may be used, and its dials, one for each address."""

    endpoint: Discovered
    dials: tuple[Dial, ...]

    @property
    def usable(self) -> bool:
        return any(not dial.error for dial in self.dials)


async def dial_all(config: Config, endpoints: Iterable[Discovered]) -> tuple[Checked, ...]:
    """Every address of every endpoint, some at a time."""
    slots = asyncio.Semaphore(MAX_CONCURRENT)
    context = make_context(config.health_cert_file, config.health_key_file)

    async def check(endpoint: Discovered) -> Checked:
        tls = endpoint.tls or (endpoint.srv and not config.insecure_discovery)
        dials = (
            dial(address, endpoint.port, config.dial_timeout_s, slots, context if tls else None)
            for address in endpoint.addresses
        )
        return Checked(endpoint, tuple(await asyncio.gather(*dials)))

    return tuple(await asyncio.gather(*map(check, endpoints)))


async def dial(
    address: str,
    port: int,
    timeout_s: float,
    slots: asyncio.Semaphore,
    tls: ssl.SSLContext | None,
) -> Dial:
    """Connect once and hang up, so that the program on the other side does not notice.

    It may speak TLS though nobody said so. Where the kernel does not allow that, a program that is
    known to speak it gets a handshake, which is not measured; ``tls`` is None for others.
    """
    loop = asyncio.get_running_loop()
    async with slots:
        started_at = loop.time()
        error, unseen = "", False
        try:
            sock = connections.open_socket(address)
        except OSError as failure:
            return Dial(address, 0.0, connections.words(failure))
        with sock:
            try:
                async with asyncio.timeout(timeout_s):
                    unseen = await connections.knock(sock, address, port)
            except TimeoutError:
                error = f"timeout after {timeout_s:g} s"
            except OSError as failure:
                error = connections.words(failure)
            time_s = loop.time() - started_at
            if not error and not unseen:
                await hang_up(sock, timeout_s, tls)
        return Dial(address, time_s, error)


async def hang_up(sock: socket.socket, timeout_s: float, tls: ssl.SSLContext | None) -> None:
    """End the connection in order: etcd logs every one that ends before its TLS handshake."""
    client = None if tls is None else TlsClient(sock, tls, None)
    if client is not None:
        with contextlib.suppress(OSError):
            async with asyncio.timeout(timeout_s):
                await client.shake_hands()
    await connections.leave(sock, client)


def make_context(cert_file: str, key_file: str) -> ssl.SSLContext:
    """A context that verifies nothing; with the certificate, for a program that demands one."""
    context = unverified()
    if cert_file:
        with contextlib.suppress(OSError):  # the health check says what is wrong with it
            load_certificate(context, cert_file, key_file)
    return context
