"""Asking an etcd member about its health, over one connection if it keeps it open."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import field, replace
from typing import TYPE_CHECKING

from gateway.core.records import dataclass
from supervisor.core.health.etcd import ELECTION_S, Answer, Finding, Known, inquire

if TYPE_CHECKING:
    from supervisor.system.http_client import HttpClient


@dataclass(slots=True)
class EtcdMemory:
    """What one probe of a member leaves to the next.

    ``secure``: whether it speaks TLS where it is asked; None if nobody knows.
    """

    known: Known = field(default_factory=Known)
    secure: bool | None = None

    def forget(self) -> None:
        """The connection failed: another process may answer next time, in another way."""
        self.known = Known(version=self.known.version)
        self.secure = None


async def ask(
    connect: Callable[[], Awaitable[HttpClient]], memory: EtcdMemory, *, timeout_s: float
) -> Finding:
    """Ask what there is to ask, and remember what the answers teach.

    ``connect`` opens a connection in place of the one before. ``timeout_s``: how long the whole
    probe may take; a member without a leader is given no more than half of it to get one. Raises
    HttpError and OSError as HttpClient does.
    """
    now = asyncio.get_running_loop().time()
    inquiry = inquire(memory.known, now=now, patience_s=min(ELECTION_S, timeout_s / 2))
    question = next(inquiry)
    http = await connect()
    while True:
        if question.after_s:
            await asyncio.sleep(question.after_s)
        if not http.takes_another:
            http = await connect()
        if question.body:
            said = await http.post_json(question.path, question.body, last=False)
        else:
            said = await http.get(question.path, last=False, max_body_bytes=question.max_bytes)
        try:
            question = inquiry.send(Answer(said.status, said.body))
        except StopIteration as end:
            finding: Finding = end.value
            memory.known = replace(finding.known)
            return finding
