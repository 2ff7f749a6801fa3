"""The service side of systemd 252, as far as it matters here: notify, store, start again.

For machines where a real systemd cannot boot in a namespace.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from gateway.descriptors import receive
from tests import fork_server
from tests.fork_server import ForkedProcess
from tests.gateway import COMMAND
from tests.support import wait_until

LAUNCH = (
    "import os,sys\n"
    "fds=[int(n) for n in sys.argv[1].split(',') if n]\n"
    "high=[os.dup2(fd, 500+i, True) for i,fd in enumerate(fds)]\n"
    "[os.dup2(fd, 3+i, True) for i,fd in enumerate(high)]\n"
    "os.closerange(3+len(fds), 1000)\n"
    "os.environ['LISTEN_PID']=str(os.getpid())\n"
    "os.execvp(sys.argv[2], sys.argv[2:])\n"
)


class Manager:
    """Owns the notify socket, the stored descriptors and the main process."""

    def __init__(
        self, folder: Path, argv: Sequence[str], log: Path, *, patience_s: float = 20.0
    ) -> None:
        """``patience_s``: how long a start or an end may take."""
        self.argv, self.log = argv, log
        self._patience_s = patience_s
        self.path = folder / "notify"
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(str(self.path))
        self.stored: list[tuple[str, int]] = []
        self.main: subprocess.Popen[bytes] | ForkedProcess | None = None
        self.ready = False
        self.heard: list[str] = []

    def start(self) -> None:
        """Start the main process with what is stored, and wait for READY=1."""
        main = self.launch()
        self.until(lambda: self.ready or main.poll() is not None, self._patience_s)
        assert self.ready, f"it ended with {main.returncode}"

    def launch(self) -> subprocess.Popen[bytes] | ForkedProcess:
        """Start the main process with what is stored."""
        self.ready = False
        self._forget_dead()
        fds = [fd for _, fd in self.stored]
        environ = {**os.environ, "NOTIFY_SOCKET": str(self.path)}
        if fds:
            environ["LISTEN_FDS"] = str(len(fds))
            environ["LISTEN_FDNAMES"] = ":".join(name for name, _ in self.stored)
        with self.log.open("ab") as log:
            if self.argv[0] == COMMAND[0]:
                self.main = fork_server.start(self.argv, environ, log, descriptors=fds)
                if self.main is not None:
                    return self.main
            self.main = subprocess.Popen(
                [sys.executable, "-c", LAUNCH, ",".join(map(str, fds)), *self.argv],
                env=environ,
                pass_fds=fds,
                stderr=log,
            )
        return self.main

    def until(self, predicate: Callable[[], object], deadline_s: float = 20.0) -> None:
        """Serve the socket until something is the case."""

        def serve() -> object:
            self.serve()
            return predicate()

        wait_until(serve, deadline_s)

    def serve(self) -> None:
        while select.select([self.sock], [], [], 0)[0]:
            data, fds = receive(self.sock, 65536, 253)
            text = data.decode()
            self.heard.append(text)
            fields = dict(line.partition("=")[::2] for line in text.split("\n"))
            self.ready = self.ready or "READY" in fields
            if "FDSTOREREMOVE" in fields:
                self._forget(partial(_is_named, fields["FDNAME"]))
            elif "FDSTORE" in fields:
                name = fields.get("FDNAME", "stored")
                self.stored[:0] = [(name, fd) for fd in fds]  # the newest comes first
                continue
            for fd in fds:
                os.close(fd)

    def end_main(self, number: signal.Signals) -> None:
        """Stop the main process as a restart, or a crash, would; the store stays."""
        assert self.main is not None
        main = self.main
        main.send_signal(number)
        self.until(lambda: main.poll() is not None, self._patience_s)
        self.serve()

    def forget(self, name: str) -> None:
        """Drop what is stored under the name, as a store does that was full."""
        self._forget(partial(_is_named, name))

    def forget_all(self) -> None:
        """Drop everything that is stored."""
        self._forget(lambda _name, _fd: True)

    def stop(self) -> None:
        """``systemctl stop``: the store is dropped once the main process is gone."""
        if self.main is not None and self.main.poll() is None:
            self.end_main(signal.SIGTERM)
        self.forget_all()
        self.sock.close()

    def _forget(self, which: Callable[[str, int], bool]) -> None:
        for name, fd in [each for each in self.stored if which(*each)]:
            self.stored.remove((name, fd))
            os.close(fd)

    def _forget_dead(self) -> None:
        """systemd drops what reports HUP or an error: ends of pipes to the dead."""
        poll = select.poll()
        for _, fd in self.stored:
            poll.register(fd, 0)
        dead = {fd for fd, _ in poll.poll(0)}
        # A listener reports HUP when it was shut down.
        self._forget(lambda _, fd: fd in dead)


def _is_named(wanted: str, name: str, _fd: int) -> bool:
    return name == wanted
