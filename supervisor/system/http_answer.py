"""What a question by HTTP comes to; the client itself is imported when there is one to ask."""

from __future__ import annotations

from gateway.core.records import dataclass

MAX_BODY_BYTES = 64 * 1024
"""Of an answer, unless the caller expects more; what etcd says of its health is some thirty."""


class HttpError(Exception):
    """The answer is not HTTP, or too long; the text says what came instead."""


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """One complete answer."""

    status: int
    body: bytes
