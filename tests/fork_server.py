"""Starts gateways for tests by a fork of a process that has imported the program already.

The tests start some six hundred gateways, and nine tenths of what a start costs are the imports.
``python -m tests.fork_server FD`` imports once, and then forks a gateway for each order that comes
over the socket FD. The gateway is a process like any other, with its own arguments, environment,
descriptors and title. An upgrade of it executes the program as always.

``GATEWAY_TESTS_FORK=no`` starts every gateway as a user does, with an interpreter of its own.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import os
import resource
import select
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, NoReturn

import etcd_gateway  # type: ignore[import-untyped] # a module of the installed distribution
import setproctitle

ROOT = Path(__file__).parent.parent

MOST_BYTES = 128 * 1024
"""Of an order; a longer command line gets an interpreter of its own."""

READ_BY_THE_INTERPRETER = ("PYTHON", "LC_", "LANG", "LD_", "MALLOC_", "GLIBC_", "TZ", "OPENSSL_")
"""So begin the variables that are read at its start, or by libraries when they are loaded."""

LIMITS = [getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")]


class ForkedProcess:
    """A gateway that a :class:`ForkServer` started; as much of ``subprocess.Popen`` as tests use.

    Owns the pipe on which the server, its parent, tells its exit code.
    """

    def __init__(self, pid: int, argv: Sequence[str], status_r: int) -> None:
        self.pid = pid
        self.args = list(argv)
        self.returncode: int | None = None
        self._status_r = status_r

    def poll(self) -> int | None:
        """Its exit code if it has ended; the negative number of the signal that ended it."""
        return self._read_status(0.0)

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code; raises TimeoutExpired after ``timeout`` seconds."""
        code = self._read_status(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        return code

    def _read_status(self, timeout_s: float | None) -> int | None:
        if self.returncode is None and select.select([self._status_r], [], [], timeout_s)[0]:
            told = os.read(self._status_r, 32)
            os.close(self._status_r)
            assert told, "the fork server has ended"
            self.returncode = int(told)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class ForkServer:
    """Owns the server's process and the socket to it; it ends when the socket is closed."""

    def __init__(self) -> None:
        self._inherited = _what_children_inherit()
        self._environment = dict(os.environ)
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            number = theirs.fileno()
            argv = [sys.executable, "-m", "tests.fork_server", str(number)]
            self._server = subprocess.Popen(argv, pass_fds=[number], cwd=ROOT)
        atexit.register(self.close)

    def close(self) -> None:
        """End the server, not the gateways."""
        self._socket.close()
        self._server.wait()

    def can_start(self, argv: Sequence[str], environment: Mapping[str, str]) -> bool:
        """Whether the gateway would be the same as with an interpreter of its own."""
        changed = [
            name
            for name in environment.keys() | self._environment.keys()
            if environment.get(name) != self._environment.get(name)
        ]
        return (
            not any(name.startswith(READ_BY_THE_INTERPRETER) for name in changed)
            and self._inherited == _what_children_inherit()
            and len(_write_order(argv, environment)) < MOST_BYTES
        )

    def start(
        self, argv: Sequence[str], environment: Mapping[str, str], output: IO[bytes]
    ) -> ForkedProcess:
        """Start the console script ``argv[0]`` with its output to the caller's file."""
        status_r, status_w = os.pipe()
        order = _write_order(argv, environment)
        socket.send_fds(self._socket, [order], [output.fileno(), status_w])
        os.close(status_w)
        pid = int(self._socket.recv(32) or b"0")
        assert pid, "the fork server has ended"
        return ForkedProcess(pid, argv, status_r)


_servers: dict[int, ForkServer] = {}
"""By the pid of their owner: a process that runs tests may be a fork of another."""


def start(
    argv: Sequence[str], environment: Mapping[str, str], output: IO[bytes]
) -> ForkedProcess | None:
    """Start the console script ``argv[0]``; None where it needs an interpreter of its own."""
    if os.environ.get("GATEWAY_TESTS_FORK") == "no":
        return None
    if os.getpid() not in _servers:
        _servers[os.getpid()] = ForkServer()
    server = _servers[os.getpid()]
    return server.start(argv, environment, output) if server.can_start(argv, environment) else None


def _write_order(argv: Sequence[str], environment: Mapping[str, str]) -> bytes:
    return json.dumps([list(argv), dict(environment)]).encode()


def _what_children_inherit() -> object:
    """What a test may have changed for the gateways that it starts."""
    limits = [resource.getrlimit(number) for number in LIMITS]
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    ignored = [n for n in signal.valid_signals() if signal.getsignal(n) is signal.SIG_IGN]
    return (limits, blocked, ignored, os.sched_getaffinity(0), os.getcwd(), os.getuid())


# -- the server -------------------------------------------------------------------------------


def serve(orders: socket.socket) -> None:
    """Fork a gateway for each order and answer with its pid; tell the exit code of each.

    Ends when nobody is left to give orders.
    """
    with selectors.DefaultSelector() as selector:
        selector.register(orders, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.data is not None:
                    selector.unregister(key.fd)
                    os.close(key.fd)
                    tell_exit_code(*key.data)
                    continue
                order, fds, _, _ = socket.recv_fds(orders, MOST_BYTES, 2)
                if not order:
                    return
                output, status_w = fds
                pid = os.fork()
                if not pid:
                    run_gateway(order, output)
                os.close(output)
                selector.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, status_w))
                orders.send(b"%d" % pid)


def tell_exit_code(pid: int, status_w: int) -> None:
    _, status = os.waitpid(pid, 0)
    with contextlib.suppress(BrokenPipeError):
        os.write(status_w, b"%d" % os.waitstatus_to_exitcode(status))
    os.close(status_w)


def run_gateway(order: bytes, output: int) -> NoReturn:
    """This process is the gateway from now on; ends it as the console script does."""
    argv, environment = json.loads(order)
    null = os.open(os.devnull, os.O_RDONLY)
    for fd, standard in ((null, 0), (output, 1), (output, 2)):
        os.dup2(fd, standard)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = argv
    sys.orig_argv = [sys.executable, *argv]
    sys.path[0] = str(Path(argv[0]).parent)
    sys.exit(etcd_gateway.main())


def main() -> None:
    """What a gateway imports, and the title's place behind the arguments, before it is needed."""
    import supervisor.cli.main
    import supervisor.cli.start
    import supervisor.master  # noqa: F401

    setproctitle.setproctitle("tests: fork server of gateways")
    gc.collect()
    gc.freeze()
    serve(socket.socket(fileno=int(sys.argv[1])))


if __name__ == "__main__":
    main()
