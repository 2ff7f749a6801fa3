"""What every test may use: waiting with a deadline, and ports."""

from __future__ import annotations

import contextlib
import random
import socket
import time
from collections.abc import Callable


def wait_until(predicate: Callable[[], object], deadline_s: float = 10.0, what: str = "") -> None:
    """Wait until ``predicate()`` is true; fail with ``what`` after ``deadline_s`` seconds."""
    end = time.monotonic() + deadline_s
    while not predicate():
        if time.monotonic() > end:
            raise AssertionError(f"not within {deadline_s:g} s: {what or predicate}")
        time.sleep(0.005)


def free_port(host: str = "127.0.0.1") -> int:
    """A port that is free for TCP and UDP on ``host``.

    From below the range that the kernel takes for outgoing connections (32768 and up): a port that
    was free a moment ago is not taken by one of the thousands that the tests themselves make.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    while True:
        port = random.randrange(10240, 32768)
        with (
            socket.socket(family, socket.SOCK_STREAM) as stream,
            socket.socket(family, socket.SOCK_DGRAM) as datagram,
            contextlib.suppress(OSError),
        ):
            stream.bind((host, port))
            datagram.bind((host, port))
            return port
