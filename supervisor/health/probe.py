"""One probe of one address: connect, shake hands, ask, as far as its kind goes; then leave."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from gateway.core.outcome import EXHAUSTED, LOCAL
from gateway.core.unix_address import is_unix
from supervisor.core.health.probing import Plan, ProbeKind, Result, UnhealthyError, Verdict, fault
from supervisor.health import etcd_inquiry
from supervisor.health.etcd_inquiry import EtcdMemory
from supervisor.system import tls
from supervisor.system.connections import connect, knock, leave, open_socket, words
from supervisor.system.http_answer import HttpError
from supervisor.system.tls import TlsClient
from supervisor.system.tls_contexts import TlsContexts, TlsFiles
from supervisor.system.tls_sessions import TlsSessions

if TYPE_CHECKING:
    from supervisor.system.http_client import HttpClient

SYN_SENT = 2
"""The state of a connection that nobody has answered yet, as TCP_INFO has it."""


class Probe:
    """One connection: ``run`` for the result, then ``leave`` to end it in order, then ``close``.

    Owns its socket from ``run`` to ``close``. ``port`` is the endpoint's; the plan may have
    another. ``memory``: what earlier probes of an etcd member learned. ``on_handshake`` is called
    with each connection whose handshake is over, or failed.
    """

    def __init__(
        self,
        address: str,
        port: int,
        plan: Plan,
        contexts: TlsContexts,
        sessions: TlsSessions | None = None,
        *,
        memory: EtcdMemory | None = None,
        on_handshake: Callable[[TlsClient], None] | None = None,
    ) -> None:
        self._address = address
        self._port = plan.port or port
        self._introduced = self._port == port
        """Another port is seldom behind the same proxy: no PROXY protocol header goes there."""
        self._plan = plan
        self._contexts = contexts
        self._sessions = sessions or TlsSessions()
        self._memory = memory or EtcdMemory()
        self._on_handshake = on_handshake
        self._server = (address, self._port, plan.server_name, files_of(plan))
        self._resuming = False
        self._keep_session: Callable[[], None] | None = None
        self._sock: socket.socket | None = None
        self._connected = False
        self._unseen = False
        """The program on the other side knows nothing of the connection."""
        self._tls: TlsClient | None = None

    async def run(self, timeout_s: float) -> Result:
        """The result within ``timeout_s`` seconds; raises nothing but cancellation."""
        result = await self._run(timeout_s)
        if self._introduced or result.told or result.verdict is not Verdict.FAILED:
            return result
        return replace(result, error=f"health port {self._port}: {result.error}")

    async def _run(self, timeout_s: float) -> Result:
        try:
            async with asyncio.timeout(timeout_s):
                return await self._check(timeout_s)
        except _NoEvidenceError as error:
            return error.result
        except TimeoutError:
            stage = "answer" if self._connected else "connect"
            text = f"timeout: no {stage} within {timeout_s:g} s"
            return Result(Verdict.FAILED, text, unanswered=self._is_unanswered())
        except UnhealthyError as error:
            return Result(Verdict.FAILED, str(error))
        except (HttpError, OSError) as error:
            self._memory.forget()
            return self._failure(error)

    def _is_unanswered(self) -> bool:
        """Whether the kernel has heard nothing since it asked for the connection."""
        if self._connected or self._sock is None or is_unix(self._address):
            return False
        (state,) = self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
        return bool(state == SYN_SENT)

    async def leave(self) -> None:
        """End the connection so that the endpoint has nothing to log."""
        if self._sock is not None and self._connected and not self._unseen:
            await leave(self._sock, self._tls)
            if self._keep_session is not None:
                self._keep_session()

    def close(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def _failure(self, error: HttpError | OSError) -> Result:
        self._keep_session = None  # with TLS 1.3 it may be of a handshake that was refused after it
        if not isinstance(error, OSError):
            return Result(Verdict.FAILED, str(error))
        if not isinstance(error, ssl.SSLError):
            verdict = Verdict.UNDECIDED if error.errno in EXHAUSTED else Verdict.FAILED
            return Result(verdict, words(error))
        reason = tls.advise(error, shown=bool(self._plan.cert_file))
        if self._resuming:  # perhaps it is only the session that is wrong: once more, in full
            self._sessions.forget(self._server)
            return Result(Verdict.UNDECIDED, f"cannot resume TLS: {reason}")
        return Result(Verdict.FAILED, f"TLS: {reason}")

    async def _check(self, timeout_s: float) -> Result:
        kind = self._plan.kind
        if kind is ProbeKind.ETCD:
            return await self._ask_member(timeout_s)
        await self._connect(secure=bool(self._plan.secure))
        if kind in (ProbeKind.HTTP, ProbeKind.HTTPS):
            await self._ask()
        return Result(Verdict.PASSED)

    async def _ask_member(self, timeout_s: float) -> Result:
        secure = self._memory.secure if self._plan.secure is None else self._plan.secure

        async def connect() -> HttpClient:
            nonlocal secure
            await self._disconnect()
            if secure is None:
                secure = await self._find_out(timeout_s)
            else:
                await self._connect(secure=secure)
            return self._http_client()

        finding = await etcd_inquiry.ask(connect, self._memory, timeout_s=timeout_s)
        self._memory.secure = secure
        if finding.error:
            return Result(Verdict.FAILED, finding.error, told=True)
        return Result(Verdict.PASSED, degraded=finding.degraded)

    async def _find_out(self, timeout_s: float) -> bool:
        """Connect with TLS, or without if the server speaks none; whether it does.

        TLS is tried first: a server without it closes, says so, or waits for the end of a line,
        while etcd logs each connection to its TLS port that does not begin with a handshake.
        """
        try:
            await self._connect(secure=True, handshake_s=timeout_s / 2)
            return True
        except (ssl.SSLError, ConnectionError, TimeoutError) as error:
            if not self._connected or not tls.is_plaintext(error):
                raise
        if self._tls is not None:
            self._tls.give_up_handshake()
        await self._disconnect()
        await self._connect(secure=False)
        return False

    async def _disconnect(self) -> None:
        """End the connection in order, if there is one, so that another one can take its place."""
        await self.leave()
        self.close()
        self._tls, self._keep_session, self._connected = None, None, False

    async def _connect(self, *, secure: bool, handshake_s: float | None = None) -> None:
        """Connect, and shake hands if ``secure``; TimeoutError if that takes ``handshake_s``."""
        try:
            context = self._contexts.get(files_of(self._plan)) if secure else None
        except OSError as error:
            raise _NoEvidenceError(Result(Verdict.UNDECIDED, str(error))) from None
        try:
            self._sock = sock = open_socket(self._address)
            if self._plan.kind is ProbeKind.TCP:
                self._unseen = await knock(sock, self._address, self._port)
            else:
                await connect(sock, self._address, self._port, introduced=self._introduced)
        except OSError as error:
            if error.errno not in LOCAL:
                raise
            cut_off = error.errno not in EXHAUSTED
            result = Result(Verdict.UNDECIDED, words(error), cut_off=cut_off)
            raise _NoEvidenceError(result) from None
        self._connected = True
        if self._unseen:
            self.close()  # at once: the ACK is held back for no more than 200 ms
        if context is not None:
            async with asyncio.timeout(handshake_s):
                await self._shake_hands(sock, context)

    async def _ask(self) -> None:
        """GET the health path; raises UnhealthyError unless the answer says healthy."""
        # Status 200 says it; a body of etcd is short, and others may be pages of any length.
        answer = await self._http_client().get(self._plan.path, cut=True)
        if (problem := fault(answer.status, answer.body)) is not None:
            raise UnhealthyError(problem)

    def _http_client(self) -> HttpClient:
        from supervisor.system.http_client import HttpClient

        return HttpClient(self._socket, self._tls, self._plan.server_name, self._port)

    async def _shake_hands(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        now = asyncio.get_running_loop().time()
        session = self._sessions.find(self._server, context, now)
        self._resuming = session is not None
        self._tls = client = TlsClient(sock, context, self._plan.server_name, session)
        try:
            await client.shake_hands()
            self._keep_session = partial(self._sessions.keep, self._server, context, client, now)
        except (ssl.SSLError, ConnectionError):
            # It wants a client certificate that we do not have, but its own has verified.
            plan = self._plan
            if not client.verified or plan.kind is not ProbeKind.TLS or plan.cert_file:
                raise
        finally:
            if self._on_handshake is not None:
                self._on_handshake(client)

    @property
    def _socket(self) -> socket.socket:
        assert self._sock is not None  # noqa: S101 (for the type checker: it is connected)
        return self._sock


class _NoEvidenceError(Exception):
    """This host could not probe; the result says why."""

    def __init__(self, result: Result) -> None:
        super().__init__(result.error)
        self.result = result


def files_of(plan: Plan) -> TlsFiles:
    """The files that the probe's TLS context is made of."""
    return TlsFiles(
        ca_file=plan.ca_file,
        cert_file=plan.cert_file,
        key_file=plan.key_file,
        verify=plan.verify,
    )
