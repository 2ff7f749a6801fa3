"""Each call of a gateway that makes a descriptor, or a process, fails once; and from there on.

The n-th one fails for every n, until what is tried ends without one that failed. A shorter run
takes some of the n where each costs a start; ``make stress`` takes all of them.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import random
import signal
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from supervisor.cli.admin_client import UnreachableError, fetch_status
from tests.backends import Backend, echo
from tests.clients import connect, echoes, talk
from tests.dns import NameServer
from tests.gateway import COMMAND, READY, Gateway, lives
from tests.long_tests import LONG, only_long
from tests.shortage import Call, Shortage, why_no_shortage
from tests.stress.manager import Manager
from tests.support import free_port, wait_until
from tests.unix_clients import connect as unix_connect

CODES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)
FOR_S = 1.0
"""How long a shortage that lasts, lasts."""

DRAIN = "--drain-timeout=2h"
"""Longer than the longest of these tests: workers of before an upgrade keep sessions to its end."""

WORKERS, SESSIONS = 2, 4
LAUNCHED = "/etcd_gateway."
"""The first file of ours that a start opens. What fails before is the interpreter's to report."""

NEVER = ("internal error", "worker breaks the protocol", "message not understood")

pytestmark = [
    pytest.mark.skipif(bool(why_no_shortage()), reason=why_no_shortage()),
    pytest.mark.timeout(1800 if LONG else 300),
    pytest.mark.slow(seconds=5),
]


def numbers(stride: int, *, lasting: bool = False) -> Iterator[int]:
    """Every n; of a shorter run one in ``stride``, from where chance will have it.

    A shortage that lasts takes in the calls that follow, so of these some are left out.
    """
    step = 1 if LONG else stride
    if lasting:
        step = max(2 * step, 4)
    first = random.randint(1, step)
    print("from", first)
    return itertools.count(first, step)


def is_whole(admin: str, children: Callable[[], Iterable[int]] = tuple) -> bool:
    """Whether a gateway is ready, with all its workers; ``children`` are all of them, or some."""
    try:
        document = fetch_status([admin])
    except (UnreachableError, OSError):
        return False
    states = [each["state"] for each in document["workers"]]
    pids = {each["pid"] for each in document["workers"]}
    whole = document["state"] == "ready" and states.count("ready") == WORKERS
    return whole and pids.issuperset(children())


class Subject:
    """A gateway whose calls can be refused; its endpoint has a name, so that DNS is asked."""

    def __init__(self, stack: ExitStack) -> None:
        self.admin = f"127.0.0.1:{free_port()}"
        backend = stack.enter_context(Backend(echo))
        nameserver = stack.enter_context(NameServer())
        nameserver.set("endpoint.test", "A", "127.0.0.1", ttl=300)
        self.shortage = stack.enter_context(Shortage())
        self.gateway = stack.enter_context(
            Gateway(
                f"--admin-addr={self.admin}",
                f"--nameserver={nameserver.address}",
                DRAIN,
                "--dial-timeout=60s",  # on a busy machine a second of shortage takes longer
                endpoints=[f"endpoint.test:{backend.port}"],
                workers=WORKERS,
                prefix=self.shortage.prefix,
            )
        )
        self.gateway.wait_ready(60)
        wait_until(self.is_whole, 30)
        self.sessions: list[socket.socket] = []
        stack.callback(self.close_sessions)
        self.renew_sessions()
        self.most_files = 0

    def is_whole(self) -> bool:
        """Whether it is ready, with all its workers and no others.

        During an upgrade, or a way back from one, a child of the master answers for it.
        """
        return is_whole(self.admin, self.gateway.workers)

    def worker(self, slot: int) -> int:
        """The pid of the slot's worker; one that got no CPU for a while is not ready just then."""
        pids: list[int] = []

        def is_ready() -> bool:
            workers = fetch_status([self.admin])["workers"]
            ready = (each for each in workers if each["state"] == "ready")
            pids.extend(int(each["pid"]) for each in ready if each["slot"] == slot)
            return bool(pids)

        wait_until(is_ready, 30, f"slot {slot} has a worker")
        return pids[0]

    def files(self) -> int:
        """Descriptors of the master."""
        return len(os.listdir(f"/proc/{self.gateway.pid}/fd"))

    def renew_sessions(self) -> None:
        self.close_sessions()
        self.sessions = [connect(self.gateway.address) for _ in range(SESSIONS)]
        for sock in self.sessions:
            assert is_alive(sock)

    def close_sessions(self) -> None:
        for sock in self.sessions:
            sock.close()

    def lines(self) -> list[dict[str, Any]]:
        """The log, without what an image says before it knows the format of the log."""
        whole = self.gateway.text().rpartition("\n")[0].splitlines()
        return [json.loads(line) for line in whole if not line.startswith("etcd-gateway: ")]

    def said(self, since: int, *messages: str) -> bool:
        return any(line["msg"] in messages for line in self.lines()[since:])

    def warm_up(self, act: Callable[[Subject], None]) -> None:
        """Once without a shortage: what is opened for good the first time, is open from then on."""
        act(self)
        wait_until(self.is_whole, 30)
        self.most_files = self.files()
        self.renew_sessions()

    def check(self, since: int, *, may_cut: bool) -> None:
        """Descriptors are back: it is as it was, and nothing is left open."""
        wait_until(self.is_whole, 30, "all workers are ready")
        assert all(echoes(self.gateway.address) for _ in range(2 * WORKERS))
        lines = self.lines()[since:]
        assert [line for line in lines if line["msg"] in NEVER] == []
        alive = [is_alive(sock) for sock in self.sessions]
        if may_cut:
            self.renew_sessions()
        else:
            assert all(alive), lines
        wait_until(lambda: self.files() <= self.most_files, 10, "no descriptor is left open")


def is_alive(sock: socket.socket) -> bool:
    try:
        sock.sendall(b"?")
        return sock.recv(1) == b"?"
    except OSError:
        return False


# What is tried. Each returns when it is over, well or not.


def serve_clients(subject: Subject) -> None:
    """Clients are accepted, handed over and dialed for; who is lost is in the log."""
    before = count_lost(subject)
    lost = sum(not echoes(subject.gateway.address) for _ in range(4))
    wait_until(lambda: lost == count_lost(subject) - before, what=f"{lost} are told of")


def count_lost(subject: Subject) -> int:
    return sum(line["sessions"] for line in subject.lines() if line["msg"] == "clients lost")


def reload(subject: Subject) -> None:
    since = len(subject.lines())
    subject.gateway.signal(signal.SIGHUP)
    wait_until(lambda: subject.said(since, "reload complete", "reload failed"), 20)


def adopt(subject: Subject) -> None:
    """A worker hangs: its listeners are adopted, and clients of its slot are served meanwhile."""
    victim = subject.worker(1)
    os.kill(victim, signal.SIGSTOP)
    try:
        serve_clients(subject)
    finally:
        os.kill(victim, signal.SIGCONT)


def killed(pid: int) -> bool:
    """Whether the worker was still there to be killed; an answer may be a tenth of a second old."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def replace(subject: Subject) -> None:
    since = len(subject.lines())
    wait_until(lambda: killed(subject.worker(1)), 30)
    wait_until(lambda: subject.said(since, "worker ready"), 20)


def scale(subject: Subject) -> None:
    since = len(subject.lines())
    subject.gateway.signal(signal.SIGTTIN)
    wait_until(lambda: subject.said(since, "worker ready"), 20)
    subject.gateway.signal(signal.SIGTTOU)
    wait_until(subject.is_whole, 20)


def ask(subject: Subject) -> None:
    wait_until(subject.is_whole, 20)


def upgrade(subject: Subject) -> None:
    since = len(subject.lines())
    subject.gateway.signal(signal.SIGUSR2)
    failed = ("upgrade failed, the old image goes on", "upgrade failed, the old workers go on")
    wait_until(lambda: subject.said(since, READY, *failed), 90)


TRIED: dict[str, tuple[Callable[[Subject], None], int, bool]] = {
    "an accept, a dial, a hand-over": (serve_clients, 1, False),
    "a reload": (reload, 1, False),
    "an adoption": (adopt, 3, False),
    "a replaced worker": (replace, 5, True),
    "more workers and fewer": (scale, 8, False),
    "a question": (ask, 1, False),
    "an upgrade": (upgrade, 60, False),
}
"""What, one n in how many, and whether sessions end by it."""

LONGEST = ("a replaced worker", "an upgrade")


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "lasting"])
@pytest.mark.parametrize(
    "name",
    [pytest.param(each, marks=only_long if each in LONGEST else ()) for each in TRIED],
)
def test_a_running_gateway(name: str, lasting: bool) -> None:
    """It goes on: no session ends, no client is lost unseen, and it recovers."""
    act, stride, may_cut = TRIED[name]
    with ExitStack() as stack:
        subject = Subject(stack)
        subject.warm_up(act)
        for n in numbers(stride, lasting=lasting):
            since = len(subject.lines())
            try:
                with refused(subject.shortage, n, lasting=lasting):
                    act(subject)
                subject.check(since, may_cut=may_cut)
            except AssertionError as error:
                calls = subject.shortage.refused
                text = json.dumps(subject.lines()[since:], indent=1)
                raise AssertionError(f"{n}, {calls[:3]}: {error}\n{text}") from None
            if not subject.shortage.refused:
                break


def test_an_upgrade_that_cannot_look_its_workers_up() -> None:
    """The new image has the admin socket open by then; the old one gets it back, and goes on."""
    with ExitStack() as stack:
        subject = Subject(stack)
        subject.warm_up(upgrade)
        since = len(subject.lines())
        subject.shortage.arm(1, errno.ENFILE, path="/proc/self/fdinfo/")
        upgrade(subject)
        assert subject.shortage.disarm()
        assert subject.said(since, "upgrade failed, the old image goes on")
        wait_until(subject.is_whole, 30)
        subject.check(since, may_cut=False)


@contextmanager
def refused(shortage: Shortage, n: int, *, lasting: bool) -> Iterator[None]:
    """The n-th call fails; if it lasts, all for FOR_S from then on, however late that is."""
    code = CODES[n % len(CODES)]
    shortage.arm(n, code, lasting=lasting, for_s=FOR_S)
    try:
        yield
        if lasting:
            wait_until(shortage.is_over, 60, "the shortage is over")
    finally:
        calls = shortage.disarm()
        print(n, errno.errorcode[code], calls[:1], len(calls))


def begin(n: int, *, lasting: bool, imports: bool, folder: Path | None = None) -> list[Call]:
    """A start, with the n-th call refused: it is ready, or it has said why not. What was refused.

    A shortage that lasts is over when the start has failed; else after five refusals.
    ``folder``: it listens on a UNIX socket there beside a TCP one, and has an admin socket.
    """
    with Backend(echo) as backend, Shortage() as shortage:
        shortage.arm(n, CODES[n % 2], lasting=lasting, after=LAUNCHED, imports=imports)
        flags, listen = [], None
        if folder is not None:
            flags = [f"--admin-addr=unix:{folder}/admin"]
            listen = f"unix:{folder}/clients,mode=0600,127.0.0.1:{free_port()}"
        with Gateway(
            *flags,
            endpoints=[backend.address],
            listen=listen,
            workers=WORKERS,
            prefix=shortage.prefix,
        ) as gateway:
            process = gateway.process

            def is_over() -> bool:
                if len(shortage.refused) >= 5:
                    shortage.disarm()
                return READY in gateway.text() or process.poll() is not None

            wait_until(is_over, 30)
            refused = shortage.disarm()
            print(n, refused[:1], len(refused))
            code, text = gateway.process.poll(), gateway.text()
            assert "Traceback" not in text, (n, refused[:2], text)
            if code is None and folder is not None:
                wait_until(lambda: is_served(folder), 30, f"{n}, {refused[:2]}: {text}")
            elif code is None:
                assert echoes(gateway.address), (n, refused[:2], text)
            else:
                assert code in ((1, 70) if lasting else (1,)), (n, refused[:2], text)
                last = text.splitlines()[-1]
                words = ("Too many open files", "Error 2", "temporarily unavailable")
                assert any(word in last for word in words), (n, refused[:2], text)
            assert [line for line in text.splitlines() if "internal error" in line] == []
        assert folder is None or os.listdir(folder) == [], (n, refused[:2], text)
    return refused


def is_served(folder: Path) -> bool:
    """Whether a client of the UNIX socket is served, and who asks the admin socket answered."""
    try:
        with unix_connect(f"{folder}/clients") as client:
            talk(client)
        return bool(fetch_status([f"unix:{folder}/admin"])["state"] == "ready")
    except (UnreachableError, OSError):
        return False


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "lasting"])
def test_a_start(lasting: bool) -> None:
    """It is ready after all, or ends with 1, or with 70 if no worker can be started; in words."""
    for n in numbers(60):
        if not begin(n, lasting=lasting, imports=False):
            break


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "lasting"])
def test_a_start_with_unix_sockets(lasting: bool, tmp_path: Path) -> None:
    """The same, and no file of a socket is left when it has ended."""
    for n in numbers(60):
        if not begin(n, lasting=lasting, imports=False, folder=tmp_path):
            break


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "lasting"])
def test_the_imports_of_a_start(lasting: bool) -> None:
    """Also where the interpreter cannot open a module or a library."""
    for n in numbers(450):
        if not begin(n, lasting=lasting, imports=True):
            break


class Managed:
    """A gateway under a service manager that keeps its descriptors."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        backend = stack.enter_context(Backend(echo))
        self.shortage = stack.enter_context(Shortage())
        self.address = ("127.0.0.1", free_port())
        self.admin = f"unix:{folder}/admin"
        flags = [f"--listen-addr=127.0.0.1:{self.address[1]}", f"--endpoints={backend.address}"]
        flags += [f"--admin-addr={self.admin}", "--workers=2", "--handover", "--log-format=json"]
        argv = [*self.shortage.prefix, *COMMAND, "start", *flags, DRAIN]
        self.log = folder / "log"
        self.manager = Manager(folder, argv, self.log, patience_s=90.0)
        stack.callback(self._stop)
        self.manager.start()

    def _stop(self) -> None:
        """Workers outlive their master for a moment; until then their calls want answers."""
        self.manager.stop()
        text = self.log.read_text()
        lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
        workers = {line["pid"] for line in lines if line["msg"] == "worker ready"}
        wait_until(lambda: not any(map(lives, workers)), 60, "no worker is left")

    def begin_sessions(self, stack: ExitStack) -> list[socket.socket]:
        self.manager.until(self.is_whole, 60)
        return [stack.enter_context(connect(self.address)) for _ in range(SESSIONS)]

    def restart(
        self,
        number: signal.Signals,
        sessions: list[socket.socket],
        n: int,
        *,
        after: str = "",
        path: str = "",
    ) -> list[Call]:
        """End the master and start the next one, whose n-th call fails; what was refused."""
        self.manager.end_main(number)
        self.shortage.arm(n, CODES[n % len(CODES)], after=after, path=path)
        try:
            self.manager.start()
        except AssertionError:
            assert self.manager.main is not None
            assert self.manager.main.poll() == 1, self.log.read_text()[-3000:]
            self.shortage.disarm()
            self.manager.start()  # as Restart=on-failure does
        self.manager.until(self.is_whole, 60)
        calls = self.shortage.disarm()
        print(n, calls)
        text = self.log.read_text()
        assert all(map(is_alive, sessions)), (calls, text[-3000:])
        assert echoes(self.address)
        assert "internal error" not in text, (calls, text[-3000:])
        assert "Traceback" not in text, (calls, text[-3000:])
        return calls

    def is_whole(self) -> bool:
        self.manager.serve()
        return is_whole(self.admin)


RESTARTS = pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGKILL], ids=["restart", "crash"]
)


@RESTARTS
def test_a_restart_under_a_service_manager(number: signal.Signals, tmp_path: Path) -> None:
    """Whatever fails once: the next master is ready or is started again, and no session ends."""
    with ExitStack() as stack:
        subject = Managed(stack, tmp_path)
        sessions = subject.begin_sessions(stack)
        for n in numbers(120):
            if not subject.restart(number, sessions, n, after=LAUNCHED):
                break


@only_long
@RESTARTS
def test_a_restart_that_cannot_look_its_workers_up(number: signal.Signals, tmp_path: Path) -> None:
    """It ends and is started again, rather than to go on with the workers that it got to."""
    with ExitStack() as stack:
        subject = Managed(stack, tmp_path)
        sessions = subject.begin_sessions(stack)
        for nth in (1, 2):
            assert subject.restart(number, sessions, nth, path="/proc/self/fdinfo")
