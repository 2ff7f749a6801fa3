"""What member sync asks: how it finds out, and remembers, whether a member speaks TLS."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from supervisor.core.config import Config
from supervisor.core.discovery.adoption import Heard
from supervisor.core.discovery.endpoints import Discovered
from supervisor.core.discovery.questions import Negative, Outcome, Question
from supervisor.discovery.member_questions import MemberQuestions
from supervisor.system.etcd_client import EtcdError
from supervisor.system.tls_contexts import TlsContexts
from tests.tls import Authority, Server

LIST = {"header": {"cluster_id": "7"}, "members": [], "leader": "1"}


class TlsMember:
    """Answers over TLS, and logs a connection that begins otherwise; may stand still for a time."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        self.refuses = False
        self.first_bytes: list[int] = []
        self.runs = threading.Event()
        self.runs.set()

    def __call__(self, conn: socket.socket) -> None:
        self.runs.wait(60)
        first = conn.recv(1, socket.MSG_PEEK)
        self.first_bytes += first
        if first != b"\x16":
            return
        with self._context.wrap_socket(conn, server_side=True) as tls:
            while tls.recv(65536):
                body = b"{}" if self.refuses else json.dumps(LIST).encode()
                status = b"401 Unauthorized" if self.refuses else b"200 OK"
                head = b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n" % (status, len(body))
                tls.sendall(head + body)


async def nobody(_: Question) -> Outcome:
    return Negative("no such name", 60.0)


def any_answer(_: Heard) -> bool:
    return True


@pytest.mark.slow
@pytest.mark.parametrize("refuses", [False, True])
def test_a_tls_member_that_stood_still_is_not_asked_in_plain_text(
    tmp_path: Path, refuses: bool
) -> None:
    """A seed without a scheme: what it speaks is found out once, also if it refuses the list."""
    authority = Authority(tmp_path)
    member = TlsMember(authority.context("127.0.0.1"))
    member.refuses = refuses
    config = replace(Config(), trusted_ca_file=authority.file, health_timeout_s=60.0)

    async def scene(port: int) -> None:
        seed = Discovered(f"127.0.0.1:{port}", "127.0.0.1", port, ("127.0.0.1",))
        questions = MemberQuestions(config, TlsContexts(), listen=tuple, look_up=nobody)
        errors: list[EtcdError] = []
        assert (await questions.first_answer([seed], errors, any_answer) is None) == refuses, errors
        member.runs.clear()
        questions.config = replace(config, health_timeout_s=3.0)
        assert await questions.first_answer([seed], errors, any_answer) is None
        assert str(errors[-1]).endswith("timeout: no answer within 3 s")
        member.runs.set()
        questions.config = config
        assert (await questions.first_answer([seed], errors, any_answer) is None) == refuses, errors

    with Server(member) as server:
        asyncio.run(scene(server.port))
    assert set(member.first_bytes) == {0x16}
