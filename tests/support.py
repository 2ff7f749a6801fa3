"""What every test may use: waiting with a deadline, and ports."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import random
import resource
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

PATIENCE = 3.0
"""By how much deadlines are longer than a quiet machine needs: other tests run beside this one, and
other programs beside the tests. A deadline costs nothing unless it passes."""

MOST_PAUSE_S = 0.05
"""Whoever waits longer looks less often: what is asked has the CPU to get there meanwhile."""


def wait_until(predicate: Callable[[], object], deadline_s: float = 60.0, what: str = "") -> None:
    """Wait until ``predicate()`` is true; fail with ``what`` after ``deadline_s`` seconds."""
    end = time.monotonic() + deadline_s * PATIENCE
    pause_s = 0.002
    while not predicate():
        if time.monotonic() > end:
            raise AssertionError(f"not within {deadline_s:g} s: {what or predicate}")
        time.sleep(pause_s)
        pause_s = min(1.5 * pause_s, MOST_PAUSE_S)


async def eventually(predicate: Callable[[], object], deadline_s: float = 60.0) -> None:
    """The same for a test that runs in the loop of what it tests."""
    async with asyncio.timeout(deadline_s * PATIENCE):
        while not predicate():  # noqa: ASYNC110 (what is waited for tells no test)
            await asyncio.sleep(0.002)


class _Ports:
    """Ports that this process has taken, so that no other process of the tests takes them too.

    Each is a lock on one byte of a file that all test processes share. The kernel drops the locks
    when the process ends. Owns the file; never closes it, because a close drops all locks.
    """

    def __init__(self) -> None:
        path = Path(tempfile.gettempdir()) / f"etcd-gateway-ports-{os.getuid()}"
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._taken: set[int] = set()

    def take(self, port: int) -> bool:
        """Whether the port is this process's from now on; False if some test has it already."""
        if port in self._taken:
            return False
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
        except OSError:
            return False
        self._taken.add(port)
        return True


_ports = _Ports()
_random = random.SystemRandom()  # a fork has the state of every other one


def free_port(host: str = "127.0.0.1") -> int:
    """A port that is free for TCP and UDP on ``host``, and that no other test takes.

    From below the range that the kernel takes for outgoing connections (32768 and up): a port that
    was free a moment ago is not taken by one of the thousands that the tests themselves make.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    while True:
        port = _random.randrange(10240, 32768)
        if not _ports.take(port):
            continue
        with (
            socket.socket(family, socket.SOCK_STREAM) as stream,
            socket.socket(family, socket.SOCK_DGRAM) as datagram,
            contextlib.suppress(OSError),
        ):
            stream.bind((host, port))
            datagram.bind((host, port))
            return port


@contextlib.contextmanager
def no_descriptors_left() -> Iterator[None]:
    """This process can open nothing more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    spare = os.open(os.devnull, os.O_RDONLY)
    os.close(spare)
    resource.setrlimit(resource.RLIMIT_NOFILE, (spare, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def children() -> str:
    """The pids of this process's children."""
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text()


def watch_nothing(*_: object) -> None:
    """In place of a call that has no room: fs.epoll.max_user_watches is reached."""
    raise OSError(errno.ENOSPC, "No space left on device")


def note_timers(
    loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> list[asyncio.TimerHandle]:
    """The timers that are begun from now on; the list grows with them."""
    begun: list[asyncio.TimerHandle] = []
    really = loop.call_later

    def call_later(delay_s: float, call: Callable[[], object]) -> asyncio.TimerHandle:
        begun.append(really(delay_s, call))
        return begun[-1]

    monkeypatch.setattr(loop, "call_later", call_later)
    return begun
