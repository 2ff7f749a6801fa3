"""Starts the command under test by a fork of a process that has imported the program already.

The tests start some seven hundred gateways, and nine tenths of what a start costs are the imports.
``python -m tests.fork_server FD`` imports once, and then forks a process for each order that comes
over the socket FD: the console script, or the double of an admin address, which imports the same.
It is a process like any other, with its own arguments, environment, descriptors and title. An
upgrade of a gateway executes the program as always.

``GATEWAY_TESTS_FORK=no`` starts every gateway as a user does, with an interpreter of its own.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import gc
import importlib
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
from typing import IO, NoReturn, Self

import etcd_gateway  # type: ignore[import-untyped] # a module of the installed distribution
import setproctitle

ROOT = Path(__file__).parent.parent

MOST_BYTES = 128 * 1024
"""Of an order; a longer command line gets an interpreter of its own."""

READ_BY_THE_INTERPRETER = ("PYTHON", "LC_", "LANG", "LD_", "MALLOC_", "GLIBC_", "TZ", "OPENSSL_")
"""So begin the variables that are read at its start, or by libraries when they are loaded."""

MOST_DESCRIPTORS = 64
"""That a service manager hands over; more get an interpreter of their own."""

ADMIN_DOUBLE = (sys.executable, "-m", "tests.admin_double")
"""How :mod:`tests.admin_double` is started where it is executed."""

IMPORTED = (
    "supervisor.cli.main",
    "supervisor.cli.start",
    "supervisor.cli.commands",
    "supervisor.cli.check",
    "supervisor.cli.sessions",
    "supervisor.cli.status",
    "supervisor.master",
    "supervisor.admin.sessions_answer",
    "tomllib",
    ADMIN_DOUBLE[-1],
)
"""What the commands import, besides what a running gateway imports when it needs it."""

LIMITS = [getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")]


class ForkedProcess:
    """A command that a :class:`ForkServer` started; as much of ``subprocess.Popen`` as tests use.

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
    """Owns the socket to the server, which ends when the socket is closed."""

    def __init__(
        self,
        orders: socket.socket,
        server: subprocess.Popen[bytes] | None,
        environment: Mapping[str, str],
        inherited: object,
    ) -> None:
        """``server``: its process, if it is a child of ours; owned too."""
        self._socket = orders
        self._server = server
        self._environment = dict(environment)
        self._inherited = inherited
        atexit.register(self.close)

    @classmethod
    def execute(cls) -> Self:
        """A server with an interpreter of its own."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            number = theirs.fileno()
            argv = [sys.executable, "-m", "tests.fork_server", str(number)]
            # In a group of its own, for the reason that tests.suite_processes gives.
            server = subprocess.Popen(argv, pass_fds=[number], cwd=ROOT, process_group=0)
        return cls(ours, server, os.environ, _what_children_inherit())

    def fork(self) -> ForkServer:
        """Another server, for a process that inherited this one: a fork of it."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            socket.send_fds(self._socket, [FORK], [theirs.fileno()])
        return ForkServer(ours, None, self._environment, self._inherited)

    def close(self) -> None:
        """End the server, not what it has started."""
        self._socket.close()
        if self._server is not None:
            self._server.wait()

    def can_start(
        self, argv: Sequence[str], environment: Mapping[str, str], descriptors: Sequence[int]
    ) -> bool:
        """Whether the command would be the same as with an interpreter of its own."""
        changed = [
            name
            for name in environment.keys() | self._environment.keys()
            if environment.get(name) != self._environment.get(name)
        ]
        return (
            not any(name.startswith(READ_BY_THE_INTERPRETER) for name in changed)
            and self._inherited == _what_children_inherit()
            and len(descriptors) <= MOST_DESCRIPTORS
            and len(_write_order(argv, environment)) < MOST_BYTES
        )

    def start(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str],
        streams: Sequence[int],
        descriptors: Sequence[int],
    ) -> ForkedProcess:
        """``streams``: its input, output and errors; the rest as the function :func:`start`."""
        status_r, status_w = os.pipe()
        order = _write_order(argv, environment)
        socket.send_fds(self._socket, [order], [*streams, status_w, *descriptors])
        os.close(status_w)
        pid = int(self._socket.recv(32) or b"0")
        assert pid, "the fork server has ended"
        return ForkedProcess(pid, argv, status_r)


_servers: dict[int, ForkServer] = {}
"""By the pid of their owner: a process that runs tests may be a fork of another."""


def prepare() -> None:
    """Have a server for this process, and for those that fork from it, which fork the server too.

    They would import the program once each. Nothing where each command is to be executed.
    """
    if _is_wanted() and os.getpid() not in _servers:
        inherited = _servers.get(os.getppid())
        _servers[os.getpid()] = inherited.fork() if inherited else ForkServer.execute()


def start(
    argv: Sequence[str],
    environment: Mapping[str, str],
    output: IO[bytes],
    errors: IO[bytes] | None = None,
    descriptors: Sequence[int] = (),
    *,
    stdin: int | None = None,
) -> ForkedProcess | None:
    """Start the console script ``argv[0]``; None where it needs an interpreter of its own.

    ``argv`` may also be :data:`ADMIN_DOUBLE` and its addresses.
    Its output goes to the caller's file, and its errors too unless they have one of their own; it
    reads the descriptor ``stdin``, or nothing.
    ``descriptors`` are its 3 and following, as a service manager hands them over: LISTEN_PID is
    set to its pid (sd_listen_fds(3)).
    """
    prepare()
    server = _servers.get(os.getpid())
    if server is None or not server.can_start(argv, environment, descriptors):
        return None
    with open(os.devnull, "rb") as nothing:
        begin = nothing.fileno() if stdin is None else stdin
        streams = (begin, output.fileno(), (errors or output).fileno())
        return server.start(argv, environment, streams, descriptors)


def _is_wanted() -> bool:
    return os.environ.get("GATEWAY_TESTS_FORK") != "no"


def _write_order(argv: Sequence[str], environment: Mapping[str, str]) -> bytes:
    return json.dumps([list(argv), dict(environment)]).encode()


def _what_children_inherit() -> object:
    """What a test may have changed for the gateways that it starts."""
    limits = [resource.getrlimit(number) for number in LIMITS]
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    ignored = [n for n in signal.valid_signals() if signal.getsignal(n) is signal.SIG_IGN]
    return (limits, blocked, ignored, os.sched_getaffinity(0), os.getcwd(), os.getuid())


# -- the server -------------------------------------------------------------------------------

FORK = b"fork"
"""An order that comes with a socket: fork a server that takes orders from there."""

ABOVE = 3 + MOST_DESCRIPTORS
"""Numbers of descriptors that no child has at its start."""


def serve(orders: socket.socket) -> socket.socket | None:
    """Fork a process for each order and answer with its pid; tell the exit code of each.

    Returns None when nobody is left to give orders; in a fork that is to be a server, the socket
    that its orders come from.
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
                order, fds, _, _ = socket.recv_fds(orders, MOST_BYTES, 4 + MOST_DESCRIPTORS)
                if not order:
                    return None
                pid = os.fork()
                if not pid and order == FORK:
                    orders.close()
                    return socket.socket(fileno=fds[0])
                if not pid:
                    run_command(order, fds)
                status_w = None if order == FORK else fds.pop(3)
                selector.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, status_w))
                for fd in fds:
                    os.close(fd)
                if order != FORK:
                    orders.send(b"%d" % pid)


def tell_exit_code(pid: int, status_w: int | None) -> None:
    """``status_w``: None if nobody wants to know it."""
    _, status = os.waitpid(pid, 0)
    if status_w is None:
        return
    with contextlib.suppress(BrokenPipeError):
        os.write(status_w, b"%d" % os.waitstatus_to_exitcode(status))
    os.close(status_w)


def run_command(order: bytes, fds: Sequence[int]) -> NoReturn:
    """This process is the command from now on.

    ``fds``: its input, output and errors, the status, and others.

    Ends it without taking the interpreter apart, which takes as long as half of a start.
    """
    argv, environment = json.loads(order)
    streams, others = fds[:3], fds[4:]
    moved = [fcntl.fcntl(fd, fcntl.F_DUPFD, ABOVE) for fd in (*streams, *others)]
    for number, fd in enumerate(moved):
        os.dup2(fd, number)
    os.closerange(len(moved), os.sysconf("SC_OPEN_MAX"))
    os.environ.clear()
    os.environ.update(environment)
    if "LISTEN_FDS" in environment:
        os.environ["LISTEN_PID"] = str(os.getpid())
    sys.argv = argv
    sys.orig_argv = [sys.executable, *argv]
    sys.path[0] = str(Path(argv[0]).parent)
    code = 1
    try:
        if tuple(argv[: len(ADMIN_DOUBLE)]) == ADMIN_DOUBLE:
            code = importlib.import_module(ADMIN_DOUBLE[-1]).main(argv[len(ADMIN_DOUBLE) :])
        else:
            code = etcd_gateway.main()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def main() -> None:
    """What a command imports, and the title's place behind the arguments, before it is needed."""
    # Not by the tests themselves: whoever measures coverage imports this module first.
    from gateway.core import records
    from supervisor.handover import trial_start

    for name in (*IMPORTED, *trial_start.LATE_MODULES):
        importlib.import_module(name)
    for package in ("gateway", "supervisor"):
        records.complete_all(package)
    setproctitle.setproctitle("tests: fork server of gateways")
    gc.collect()
    gc.freeze()
    orders: socket.socket | None = socket.socket(fileno=int(sys.argv[1]))
    while orders is not None:
        orders = serve(orders)


if __name__ == "__main__":
    main()
