"""Forking a worker, and what the child keeps of its parent."""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.core import messages, wire
from gateway.core.address import HostPort
from gateway.scoreboard import Scoreboard
from gateway.worker import WorkerStart
from gateway.worker_spec import WorkerSpec
from supervisor.workers.fork import Child, fork_workers
from tests.logbook import Logbook
from tests.support import children


def born(entry: Callable[[WorkerStart], int]) -> Child:
    """A child that runs ``entry``; the master's side of it is closed."""
    with specified() as spec:
        (child,) = fork_workers([spec], make_log=lambda _: Logbook(), entry=entry)
    assert isinstance(child, Child)
    return child


@contextlib.contextmanager
def specified() -> Iterator[WorkerSpec]:
    """What a worker is started with."""
    scoreboard = Scoreboard()
    inbox, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with inbox, other, contextlib.closing(scoreboard):
        yield WorkerSpec(
            slot=2,
            gen=3,
            slots=4,
            listen=(HostPort("127.0.0.1", 1),),
            listeners=(),
            exclusive=False,
            inbox=inbox,
            peers={1: other},
            scoreboard=scoreboard,
            row=scoreboard.open_row(2, 3),
            cpu=None,
            title="x",
        )


def last_words(child: Child) -> tuple[str, str]:
    """What the child said through its control socket, and how it ended."""
    with child.control:
        said = b""
        while data := child.control.recv(65536):
            said += data
    select.select([child.pidfd], [], [], 10)
    how = child.reap()
    os.close(child.pidfd)
    os.close(child.pipe_w)
    return said.decode(), how


def test_a_child_keeps_only_what_is_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No descriptor, no signal handler, no wake-up descriptor and no word of systemd."""
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/x")
    with (tmp_path / "stray").open("w") as stray:

        def look(start: WorkerStart) -> int:
            spec = start.spec
            known = {start.pipe_r, start.control.fileno(), spec.inbox.fileno(), spec.scoreboard.fd}
            known |= {sock.fileno() for sock in spec.peers.values()} | {0, 1, 2}
            strays = []
            for name in os.listdir("/proc/self/fd"):
                # One of them is the directory's own, closed by now.
                with contextlib.suppress(FileNotFoundError):
                    link = os.readlink(f"/proc/self/fd/{name}")
                    strays += [link] if int(name) not in known else []
            facts = [
                strays,
                signal.set_wakeup_fd(-1),
                "NOTIFY_SOCKET" in os.environ,
                signal.getsignal(signal.SIGTERM) is signal.SIG_IGN,
                sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
                (spec.slot, spec.gen, spec.slots),
            ]
            start.control.sendall(repr(facts).encode())
            return 7

        said, how = last_words(born(look))
        assert stray.name not in said
    assert said == "[[], -1, False, True, [], (2, 3, 4)]"
    assert how == "exit 7"


def test_an_exception_ends_in_the_child(capfd: pytest.CaptureFixture[str]) -> None:
    """It never reaches the master's stack: the master is told, exit status 70."""

    def fail(_: WorkerStart) -> int:
        raise ValueError("told so")

    said, how = last_words(born(fail))
    assert wire.decode(said.encode()) == messages.Failed("start", "ValueError('told so')")
    assert how == "exit 70"
    assert capfd.readouterr().err == ""


def test_an_exception_is_said_where_the_master_does_not_listen(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """One line on standard error."""

    def fail(start: WorkerStart) -> int:
        start.control.close()
        raise ValueError("told so")

    assert last_words(born(fail)) == ("", "exit 70")
    assert capfd.readouterr().err == ("etcd-gateway: worker slot=2 gen=3: ValueError('told so')\n")


@pytest.mark.parametrize(("number", "how"), [(signal.SIGKILL, "SIGKILL"), (40, "signal 40")])
def test_a_killed_child_is_reaped_by_its_signal(number: int, how: str) -> None:
    """The pidfd says which process is meant, also when it is gone already."""

    def wait(start: WorkerStart) -> int:
        start.control.sendall(wire.encode(messages.Ready(1)))
        signal.pause()
        return 0

    child = born(wait)
    assert child.control.recv(100)
    signal.pidfd_send_signal(child.pidfd, number)
    assert last_words(child) == ("", how)


def test_the_masters_signals_come_back_after_the_fork() -> None:
    """They are blocked around the fork only."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    assert last_words(born(lambda _: 0))[1] == "exit 0"
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before


def test_no_descriptor_for_a_worker_leaves_nothing_open_and_no_process() -> None:
    """Whichever descriptor is the one too many: the fork fails as a whole."""
    free = len(os.listdir("/proc/self/fd"))
    before = children()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    fillers: list[int] = []
    with specified() as spec:
        top = max(map(int, os.listdir("/proc/self/fd")))
        resource.setrlimit(resource.RLIMIT_NOFILE, (top + 8, hard))
        try:
            with contextlib.suppress(OSError):
                while True:
                    fillers.append(os.open(os.devnull, os.O_RDONLY))
            for _ in range(5):
                (error,) = fork_workers([spec], make_log=lambda _: Logbook())
                assert "Too many open files" in str(error)
                os.close(fillers.pop())
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for fd in fillers:
                os.close(fd)
    assert len(os.listdir("/proc/self/fd")) == free
    assert children() == before


REFUSED = """
import os, socket, sys
from gateway.scoreboard import Scoreboard
from gateway.worker_spec import WorkerSpec
from supervisor.interim_admin import InterimAdmin
from supervisor.workers.fork import fork_workers
from tests.refused_calls import refuse
inbox, other = socket.socketpair()
spec = WorkerSpec(slot=0, gen=1, slots=1, listen=(), listeners=(), exclusive=False,
                  inbox=inbox, peers={}, scoreboard=Scoreboard(), row=0, cpu=None, title="x")
before = len(os.listdir("/proc/self/fd"))
refuse(int(sys.argv[1]), "pidfd_open")
print(fork_workers([spec], make_log=None)[0])
interim_admin = InterimAdmin()
interim_admin.start((), None, None, names=())
print(interim_admin.named_descriptors())
print(len(os.listdir("/proc/self/fd")) - before)
print(open(f"/proc/self/task/{os.getpid()}/children").read() == "")
"""


@pytest.mark.parametrize(
    ("code", "text"), [(1, "Operation not permitted"), (38, "not implemented")]
)
def test_a_child_that_cannot_be_watched_is_not_left_behind(code: int, text: str) -> None:
    """pidfd_open refused after the fork: no child, no descriptor stays, the call is named.

    Neither of a worker, nor of the process that answers at the admin address during an upgrade.
    """
    done = subprocess.run(
        [sys.executable, "-c", REFUSED, str(code)], capture_output=True, text=True, timeout=120
    )
    error, interim_admin, opened, childless = done.stdout.splitlines()
    assert "pidfd_open" in error
    assert text in error
    assert (interim_admin, opened, childless) == ("{}", "0", "True")
