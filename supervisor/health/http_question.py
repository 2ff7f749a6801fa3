"""The question of an HTTP probe, over a connection with TLS or without."""

from __future__ import annotations

import asyncio
import re
import socket

import h11

from supervisor.core.health.probing import MAX_BODY_BYTES, Plan, UnhealthyError, fault
from supervisor.system.tls import READ_BYTES, TlsClient


class NoHttpError(Exception):
    """The answer is not HTTP; the text says what came instead."""


async def ask(sock: socket.socket, tls: TlsClient | None, plan: Plan, port: int) -> None:
    """GET the health path; raises UnhealthyError unless the answer says healthy.

    Raises NoHttpError for what is no answer, and OSError for a connection that broke.
    """
    http = h11.Connection(h11.CLIENT)
    question = _question(http, plan, port)
    if tls is None:
        await asyncio.get_running_loop().sock_sendall(sock, question)
    else:
        await tls.send(question)
    try:
        status, body = await _read_answer(http, sock, tls)
    except h11.RemoteProtocolError as error:
        # h11 quotes what it got as Python would spell it.
        text = re.sub(r"bytearray\(b(.*)\)", r"\1", str(error))
        raise NoHttpError(f"no HTTP: {text}") from None
    if (problem := fault(status, body)) is not None:
        raise UnhealthyError(problem)


def _question(http: h11.Connection, plan: Plan, port: int) -> bytes:
    host = plan.server_name
    host = f"[{host}]" if ":" in host else host
    headers = [
        ("Host", f"{host}:{port}"),
        ("User-Agent", "etcd-gateway"),
        ("Accept", "*/*"),
        ("Connection", "close"),
    ]
    request = h11.Request(method="GET", target=plan.path, headers=headers)
    return (http.send(request) or b"") + (http.send(h11.EndOfMessage()) or b"")


async def _read_answer(
    http: h11.Connection, sock: socket.socket, tls: TlsClient | None
) -> tuple[int, bytes]:
    """Status and body, at most MAX_BODY_BYTES of it."""
    status, body = 0, b""
    while True:
        match http.next_event():
            case h11.NEED_DATA:
                http.receive_data(await _receive(sock, tls))
            case h11.Response() as response:
                status = response.status_code
            case h11.Data() as data:
                body += data.data
                if len(body) > MAX_BODY_BYTES:
                    raise UnhealthyError(f"an answer of more than {MAX_BODY_BYTES} bytes")
            case h11.EndOfMessage():
                return status, body
            case h11.InformationalResponse():
                pass
            case event:
                raise NoHttpError(f"no HTTP: {event!s:.40}")


async def _receive(sock: socket.socket, tls: TlsClient | None) -> bytes:
    """What the endpoint said next; empty at its end."""
    if tls is not None:
        return await tls.receive()
    return await asyncio.get_running_loop().sock_recv(sock, READ_BYTES)
