"""Pipes for splice, with the calls of the relay."""

from __future__ import annotations

import os
import socket
import sys

from gateway.sessions.pipes import Pipe

ATTEMPTS = 1000


def test_a_call_that_finds_nothing_leaves_nothing_behind() -> None:
    """However often there is nothing to move, the worker takes no more memory for it."""
    r, w = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    ours, theirs = socket.socketpair()
    with open(r, "rb"), open(w, "wb"), ours, theirs:
        pipe = Pipe(r, w)
        pipe.take_from(ours.fileno())
        before = sys.getallocatedblocks()
        moved = sum(pipe.take_from(ours.fileno()) for _ in range(ATTEMPTS))
        assert moved == 0
        assert sys.getallocatedblocks() - before < ATTEMPTS / 2
