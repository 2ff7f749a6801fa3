"""Asking a member of etcd: what it answers, and every way in which it may not."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest

from supervisor.system.etcd_client import (
    MEMBER_LIST,
    EtcdConnection,
    EtcdError,
    Peer,
    SpeaksFirstError,
)
from supervisor.system.tls_contexts import TlsContexts, TlsFiles
from tests.servers import Script, Server, answer, greet, serving, silent
from tests.support import eventually, free_port
from tests.tls import Authority, LateHandshake
from tests.tls import Server as TlsServer

REFUSED = b'{"error":"etcdserver: user name is empty","code":3}'


def asked(port: int, files: TlsFiles | None = None) -> dict[str, Any]:
    peer = Peer(address="127.0.0.1", port=port, server_name="127.0.0.1", files=files)

    async def ask() -> dict[str, Any]:
        async with EtcdConnection(peer, TlsContexts()) as member:
            return await member.ask(MEMBER_LIST)

    return asyncio.run(ask())


def test_an_answer_is_a_document() -> None:
    """The JSON object of the answer is handed out, and the connection ends in order."""
    with serving(answer("200 OK", b'{"header": {}}')) as server:
        assert asked(server.port) == {"header": {}}
    assert server.ends == ["eof"]


@pytest.mark.parametrize(
    ("script", "text"),
    [
        (answer("401 Unauthorized", REFUSED), "HTTP status 401 (etcdserver: user name is empty)"),
        (answer("400 Bad Request", b"Client sent an HTTP request to an HTTPS server.\n"),
         "HTTP status 400 (Client sent an HTTP request to an HTTPS server.)"),
        (answer("404 Not Found", b"<html>"), "HTTP status 404"),
        (answer("503 Busy", b'{"message": 5}'), "HTTP status 503"),
        (answer("503 Busy", b"5"), "HTTP status 503"),
        (answer("200 OK", b"[]"), "the answer is no JSON object"),
        (answer("200 OK", b"no JSON"), "the answer is no JSON object"),
        (answer("200 OK", b"[" * 60_000), "the answer is no JSON object"),
        (answer("500 Oh", b'{"error":"\\u001b[2J"}'), "HTTP status 500 (?[2J)"),
        (lambda conn: conn.sendall(b"220 mail.example.com\r\n\r\n"), "no HTTP: "),
    ],
)  # fmt: skip
def test_a_refusal_is_told_in_words(script: Script, text: str) -> None:
    """What a server says of its refusal is the error; so is what is no answer."""
    with serving(script) as server, pytest.raises(EtcdError) as raised:
        asked(server.port)
    assert str(raised.value).startswith(text)


def test_nobody_there_is_an_error() -> None:
    """A connection that is refused, and a file that cannot be read, are errors in words."""
    with pytest.raises(EtcdError, match="connection refused"):
        asked(free_port())
    with pytest.raises(EtcdError, match="cannot load CA certificates from /absent"):
        asked(free_port(), TlsFiles(ca_file="/absent"))


def test_a_server_without_tls_is_said(tmp_path: Path) -> None:
    """A handshake that fails says so, and the socket is closed."""
    files = TlsFiles(ca_file=Authority(tmp_path).file)
    with (
        serving(lambda conn: conn.sendall(b"no TLS")) as server,
        pytest.raises(EtcdError) as raised,
    ):
        asked(server.port, files)
    assert str(raised.value).startswith(("TLS: ", "closed the connection"))


def test_a_member_that_wants_another_certificate_is_told_with_the_flag(tmp_path: Path) -> None:
    """OpenSSL's words do not say whose certificate is unknown, nor what to do."""
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    tls_1_2 = ssl.TLSVersion.TLSv1_2
    context = authority.context("127.0.0.1", want_client_certificate=True, version=tls_1_2)
    certificate, key = other.client_files()
    files = TlsFiles(ca_file=authority.file, cert_file=certificate, key_file=key)
    with serving(answer("200 OK", b"{}"), context) as server, pytest.raises(EtcdError) as told:
        asked(server.port, files)
    assert str(told.value).startswith("TLS: ")
    assert str(told.value).endswith("(the endpoint does not accept --health-cert-file)")


def test_tls_is_found_out(tmp_path: Path) -> None:
    """Where nobody knows, TLS is tried first; a server that hangs up, answers in its own protocol
    or goes on reading is asked without it."""
    authority = Authority(tmp_path)
    files = TlsFiles(ca_file=authority.file)

    def told(server: Server) -> bool:
        peer = Peer(
            address="127.0.0.1", port=server.port, server_name="127.0.0.1", files=files, guess=True
        )

        async def ask() -> bool:
            async with EtcdConnection(peer, TlsContexts()) as member:
                await member.ask(MEMBER_LIST)
                return member.tls is not None

        return asyncio.run(ask())

    good = answer("200 OK", b"{}")
    context = authority.context("127.0.0.1")
    with serving(good, context) as secure, serving(good) as patient, serving(_hang_up) as curt:
        assert told(secure)
        assert not told(patient)
        assert not told(curt)


def _hang_up(conn: socket.socket) -> None:
    """As an HTTP server does that is not spoken to in HTTP."""
    if conn.recv(1, socket.MSG_PEEK) == b"P":
        answer("200 OK", b"{}")(conn)
    else:
        conn.shutdown(socket.SHUT_RDWR)


def test_who_speaks_first_is_told_nothing(tmp_path: Path) -> None:
    """A server that greets is left before it hears anything."""
    files = TlsFiles(ca_file=Authority(tmp_path).file)

    async def ask() -> None:
        peer = Peer(
            address="127.0.0.1",
            port=server.port,
            server_name="127.0.0.1",
            files=files,
            guess=True,
            greeting_s=5.0,
        )
        async with EtcdConnection(peer, TlsContexts()):
            pass

    with serving(greet) as server, pytest.raises(SpeaksFirstError):
        asyncio.run(ask())


def test_a_handshake_that_nobody_awaits_any_more_ends_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stop, or a timeout, in the middle of a handshake: etcd would log that it broke off."""
    monkeypatch.setattr("supervisor.system.connections.LINGER_S", 60.0)
    authority = Authority(tmp_path)
    late = LateHandshake(authority.context("127.0.0.1"))

    async def scene(port: int) -> None:
        files = TlsFiles(ca_file=authority.file)
        peer = Peer(address="127.0.0.1", port=port, server_name="127.0.0.1", files=files)
        question = asyncio.create_task(EtcdConnection(peer, TlsContexts()).__aenter__())
        await eventually(lambda: server.connections)
        await asyncio.sleep(0.01)  # the handshake is begun
        question.cancel()
        asyncio.get_running_loop().call_soon(late.go_on.set)
        await asyncio.wait({question})
        assert question.cancelled()

    with TlsServer(late) as server:
        asyncio.run(scene(server.port))
    assert late.heard == [b""]


def test_a_timeout_is_the_callers() -> None:
    """A member that says nothing is left in order when its time is over."""

    async def ask() -> None:
        peer = Peer(address="127.0.0.1", port=server.port, server_name="127.0.0.1")
        async with asyncio.timeout(0.1), EtcdConnection(peer, TlsContexts()) as member:
            await member.get("/version")

    with serving(silent) as server, pytest.raises(TimeoutError):
        asyncio.run(ask())
