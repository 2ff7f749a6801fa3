"""HTTP as a client: several questions over one connection, and answers that are none."""

from __future__ import annotations

import asyncio
import socket

import pytest

from supervisor.system.connections import connect, leave, open_socket
from supervisor.system.http_answer import HttpAnswer, HttpError
from supervisor.system.http_client import HttpClient
from tests.servers import Script, answer, serving

CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfour\r\n6\r\n, five\r\n0\r\n\r\n"
)


def asked(script: Script, *bodies: bytes) -> list[HttpAnswer]:
    """The answers to one question for each body, over one connection; no body: a GET."""

    async def ask() -> list[HttpAnswer]:
        with open_socket("127.0.0.1") as sock:
            await connect(sock, "127.0.0.1", server.port)
            client, answers = HttpClient(sock, None, "127.0.0.1", server.port), []
            for left, body in enumerate(bodies, 1 - len(bodies)):
                if body:
                    answers.append(await client.post_json("/post", body, last=not left))
                else:
                    answers.append(await client.get("/get", last=not left))
            await leave(sock)
            return answers

    with serving(script) as server:
        return asyncio.run(ask())


def read_question(conn: socket.socket) -> bytes:
    """One question, with the two bytes of body that the tests send, if any."""
    got = b""
    while b"\r\n\r\n" not in got or (got.startswith(b"POST") and not got.endswith(b"{}")):
        got += conn.recv(4096)
    return got


def test_questions_share_a_connection() -> None:
    """Each question has its own answer, and the server is told which question is the last."""
    seen: list[bytes] = []

    def script(conn: socket.socket) -> None:
        for _ in range(3):
            seen.append(read_question(conn))
            conn.sendall(CHUNKED)

    assert asked(script, b"{}", b"", b"{}") == [HttpAnswer(200, b"four, five")] * 3
    assert [b"Connection: close" in each for each in seen] == [False, False, True]
    assert [each.split()[0] for each in seen] == [b"POST", b"GET", b"POST"]
    assert b"Content-Length: 2\r\n" in seen[0]
    assert b"Content-Type: application/json\r\n" in seen[0]


def test_a_server_that_closes_takes_no_second_question() -> None:
    """A second question to a server that closes after its answer is an error in words."""

    def script(conn: socket.socket) -> None:
        read_question(conn)
        conn.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")

    with pytest.raises(HttpError, match="no second question"):
        asked(script, b"", b"")


def test_a_long_answer_is_cut() -> None:
    """An answer of more bytes than expected is no answer."""
    with pytest.raises(HttpError, match="an answer of more than 65536 bytes"):
        asked(answer("200 OK", b"x" * 65537), b"")


@pytest.mark.parametrize(
    "said", [b"", b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"]
)
def test_a_server_that_hangs_up_is_said(said: bytes) -> None:
    """A server that closes instead of answering, or in the middle, is told of in plain words."""

    def script(conn: socket.socket) -> None:
        read_question(conn)
        conn.sendall(said)
        conn.shutdown(socket.SHUT_WR)

    with pytest.raises(HttpError, match="the server closed the connection before its answer was"):
        asked(script, b"")


def test_another_protocol_is_named() -> None:
    """What came instead of HTTP is quoted."""

    def script(conn: socket.socket) -> None:
        read_question(conn)
        conn.sendall(b"220 smtp.example.com ESMTP\r\n\r\n")

    with pytest.raises(HttpError, match=r"no HTTP: .*220 smtp"):
        asked(script, b"")
