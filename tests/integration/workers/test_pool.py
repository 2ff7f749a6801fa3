"""The pool with real processes, sockets and pipes; the workers are puppets."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import resource
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from gateway.core import messages
from gateway.core.address import HostPort
from gateway.worker import WorkerStart
from supervisor.core.admin.views import WorkerView
from supervisor.core.config import Config
from supervisor.core.workers.fleet import TICK_S
from supervisor.core.workers.worker_id import WorkerId
from supervisor.workers.inherited import InheritedDescriptors
from supervisor.workers.pool import Handlers, WorkerPool
from tests.logbook import Logbook
from tests.puppet import fails_at_start, mute, puppet
from tests.support import free_port, watch_nothing


class Stage:
    """A pool, what it told its handlers, and clients."""

    def __init__(self, config: Config, slots: int, entry: Callable[[WorkerStart], int]) -> None:
        self.address = HostPort("127.0.0.1", free_port())
        self.log = Logbook()
        self.messages: list[messages.Up] = []
        self.ready = 0
        self.gone: list[WorkerId] = []
        self.ended: int | None = None
        self.config, self.entry = config, entry
        self.pool = self.make(slots, None)

    def make(self, slots: int, inherited: InheritedDescriptors | None) -> WorkerPool:
        return WorkerPool(
            self.config,
            (self.address,),
            self.log,
            Handlers(
                on_message=lambda _who, message: self.messages.append(message),
                on_ready=self._on_ready,
                on_upgrade_failed=lambda: None,
                on_worker_gone=lambda who, _report: self.gone.append(who),
                on_workers=lambda: None,
                on_change=lambda: None,
                on_end=self._on_end,
            ),
            slots=slots,
            inherited=inherited,
            entry=self.entry,
        )

    def _on_ready(self) -> None:
        self.ready += 1

    def _on_end(self, code: int) -> None:
        self.ended = code

    def workers(self, state: str = "ready") -> list[WorkerView]:
        return [view for view in self.pool.view() if view.state == state]

    def pid(self, slot: int) -> int:
        """The process of a slot's worker, whatever its state just now."""
        (pid,) = [view.pid for view in self.pool.view() if view.slot == slot]
        assert pid is not None
        return pid

    async def until(self, predicate: Callable[[], object], deadline_s: float = 20.0) -> None:
        end = time.monotonic() + deadline_s
        while not predicate():
            assert time.monotonic() < end, self.log.lines
            await asyncio.sleep(0.005)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, str]:
        reader, writer = await asyncio.open_connection(self.address.host, self.address.port)
        who = (await asyncio.wait_for(reader.readline(), 60)).decode().strip()
        return reader, writer, who

    async def ask(self) -> str:
        _, writer, who = await self.connect()
        writer.close()
        return who


@contextlib.asynccontextmanager
async def staged(
    slots: int = 3, entry: Callable[[WorkerStart], int] = puppet, **options: Any
) -> AsyncIterator[Stage]:
    stage = Stage(Config(**options), slots, entry)
    stage.pool.start(messages.Snapshot(1, ()))
    try:
        yield stage
    except BaseException:
        print(*stage.log.lines, sep="\n")  # what happened, for whoever reads the failure
        raise
    finally:
        if stage.ended is None:
            stage.pool.stop_now()
            await stage.until(lambda: stage.ended is not None)


def test_start_push_and_drain() -> None:
    """All slots are filled, every worker gets every snapshot, and a drain ends with 0."""

    async def play() -> None:
        async with staged(3) as stage:
            await stage.until(lambda: stage.ready)
            assert [(v.slot, v.gen, v.state) for v in stage.pool.view()] == [
                (0, 1, "ready"),
                (1, 1, "ready"),
                (2, 1, "ready"),
            ]
            stage.pool.push(messages.Snapshot(2, ()))
            await stage.until(lambda: all(v.snapshot_version == 2 for v in stage.pool.view()))
            assert await stage.ask()
            stage.pool.drain(5.0)
            await stage.until(lambda: stage.ended is not None)
            assert stage.ended == 0
            assert sorted(stage.gone) == [WorkerId(slot, 1) for slot in range(3)]

    asyncio.run(play())


@pytest.mark.parametrize("number", [signal.SIGKILL, 40])
def test_a_killed_worker_is_replaced_and_its_queue_is_not_lost(number: int) -> None:
    """The next generation inherits the sockets and nobody is refused; 40 has no name."""

    async def play() -> None:
        async with staged(2) as stage:
            await stage.until(lambda: stage.ready)
            for round_number in range(5):
                os.kill(stage.pid(round_number % 2), number)
                answers = await asyncio.gather(*(stage.ask() for _ in range(50)))
                assert all(answers)
                await stage.until(lambda: len(stage.workers()) == 2)
            assert stage.pool.restarts["exit"] == 5

    asyncio.run(play())


def test_a_hung_workers_clients_are_served_by_a_survivor() -> None:
    """SIGSTOP: nobody waits for longer than half a second; it goes on when it wakes."""

    async def play() -> None:
        async with staged(2) as stage:
            await stage.until(lambda: stage.ready)
            victim = stage.pid(1)
            os.kill(victim, signal.SIGSTOP)
            answers = await asyncio.gather(*(stage.ask() for _ in range(40)))
            assert not any(each.startswith("1.") for each in answers)
            os.kill(victim, signal.SIGCONT)
            await stage.until(lambda: len(stage.workers()) == 2)
            assert {v.gen for v in stage.workers()} == {1}

    asyncio.run(play())


def test_an_event_in_a_settled_pool_brings_the_next_look_forward() -> None:
    """What it brings about need not wait for the tick that was due when nothing was on."""

    async def play() -> None:
        async with staged(2) as stage:
            await stage.until(lambda: stage.ready)
            loop, pool = asyncio.get_running_loop(), stage.pool

            def due_s() -> float:
                assert pool._ticker is not None
                return pool._ticker.when() - loop.time()

            await stage.until(lambda: due_s() > 2 * TICK_S)
            pool.resize(+1)
            assert due_s() <= TICK_S
            await stage.until(lambda: len(stage.workers()) == 3)

    asyncio.run(play())


def test_an_adoption_without_descriptors_is_made_up_for() -> None:
    """At the limit of open files neither the order nor a part of it is lost."""

    async def play() -> None:
        async with staged(2) as stage:
            await stage.until(lambda: stage.ready)
            survivor, victim = stage.pid(0), stage.pid(1)
            inode = os.fstat(stage.pool.hand_over().descriptors["listener.1.0"]).st_ino
            # A worker that took long to start had its clients accepted by the other one.
            await stage.until(lambda: inode not in _inodes(survivor))
            with no_descriptor_left():
                os.kill(victim, signal.SIGSTOP)
                await stage.until(lambda: stage.log.lines_of("command to a worker failed"))
            await stage.until(lambda: inode in _inodes(survivor))
            answers = await asyncio.gather(*(stage.ask() for _ in range(40)))
            assert all(each.startswith("0.") for each in answers)
            os.kill(victim, signal.SIGCONT)
            await stage.until(lambda: len(stage.workers()) == 2)

    asyncio.run(play())


@contextlib.contextmanager
def no_descriptor_left() -> Iterator[None]:
    """This process can open nothing more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    top = max(map(int, os.listdir("/proc/self/fd")))
    fillers: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (top + 8, hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                fillers.append(os.open(os.devnull, os.O_RDONLY))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in fillers:
            os.close(fd)


def test_a_worker_that_stays_hung_is_killed_and_replaced() -> None:
    """After --worker-timeout a worker without heartbeat is killed."""

    async def play() -> None:
        async with staged(2, worker_timeout_s=3.0) as stage:
            await stage.until(lambda: stage.ready)
            victim = stage.pid(1)
            os.kill(victim, signal.SIGSTOP)
            await stage.until(lambda: WorkerId(1, 1) in stage.gone)
            await stage.until(lambda: len(stage.workers()) == 2)
            assert stage.pool.restarts["timeout"] == 1

    asyncio.run(play())


def test_fewer_and_more_workers() -> None:
    """TTOU and TTIN: the leaving worker's session lives on, its sockets are accepted from."""

    async def play() -> None:
        async with staged(3) as stage:
            await stage.until(lambda: stage.ready)
            while True:
                reader, writer, who = await stage.connect()
                if who.startswith("2."):
                    break
                writer.close()
            assert stage.pool.resize(-2) == 1
            await stage.until(lambda: len(stage.workers()) == 1)
            answers = await asyncio.gather(*(stage.ask() for _ in range(40)))
            assert all(each.startswith("0.") for each in answers)
            writer.write(b"still here")
            assert await reader.readexactly(10) == b"still here"
            assert stage.pool.resize(+3) == 4
            await stage.until(lambda: len(stage.workers()) == 4)
            answers = await asyncio.gather(*(stage.ask() for _ in range(80)))
            assert {each[0] for each in answers} == {"0", "1", "2", "3"}
            writer.close()

    asyncio.run(play())


def test_renewal_keeps_sessions() -> None:
    """All workers are replaced; the old ones drain, new clients get new workers."""

    async def play() -> None:
        async with staged(2) as stage:
            await stage.until(lambda: stage.ready)
            reader, writer, _ = await stage.connect()
            stage.pool.reconfigure(dataclasses.replace(stage.config, worker_max_age_s=1.0))
            await stage.until(lambda: {v.gen for v in stage.workers()} == {2})
            stage.pool.reconfigure(stage.config)
            answers = await asyncio.gather(*(stage.ask() for _ in range(20)))
            assert all(".2." in each for each in answers)
            writer.write(b"hello")
            assert await reader.readexactly(5) == b"hello"
            writer.close()
            await stage.until(lambda: len(stage.gone) == 2)

    asyncio.run(play())


def test_workers_that_never_get_ready_end_the_gateway() -> None:
    """Five workers in a row that end before they are ready: exit code 70."""

    async def play() -> None:
        async with staged(2, fails_at_start) as stage:
            await stage.until(lambda: stage.ended is not None)
            assert stage.ended == 70

    asyncio.run(play())


def test_a_mute_worker_is_killed_before_it_is_ready() -> None:
    """A worker that does not get ready in --worker-timeout is replaced."""

    async def play() -> None:
        async with staged(1, mute, worker_timeout_s=0.2) as stage:
            await stage.until(lambda: stage.ended is not None)
            assert stage.ended == 70

    asyncio.run(play())


def test_a_taken_address_ends_with_1() -> None:
    """Another listener on the address, even one that allows sharing, is an error."""

    async def play() -> None:
        config = Config()
        stage = Stage(config, 2, puppet)
        with socket.socket() as holder:
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            holder.bind((stage.address.host, stage.address.port))
            holder.listen()
            stage.pool.start(messages.Snapshot(1, ()))
            await stage.until(lambda: stage.ended is not None)
        assert stage.ended == 1

    asyncio.run(play())


def test_a_worker_holds_its_own_descriptors_only() -> None:
    """No stray duplicate of a listener: each worker has its own listener's inode and no other."""

    async def play() -> None:
        async with staged(3) as stage:
            await stage.until(lambda: stage.ready)
            os.kill(stage.pid(0), signal.SIGKILL)
            await stage.until(lambda: {v.gen for v in stage.workers()} == {1, 2})

            def each_holds_its_own() -> bool:
                held = stage.pool.hand_over().descriptors
                own = [os.fstat(held[f"listener.{slot}.0"]).st_ino for slot in range(3)]
                return [_inodes(view.pid) & set(own) for view in stage.workers()] == [
                    {inode} for inode in own
                ]

            # Until the new one has a listener, another worker may hold that of the killed one.
            await stage.until(each_holds_its_own)

    asyncio.run(play())


def test_the_next_master_takes_over() -> None:
    """What one pool leaves, the next one starts from: sessions live, nobody is refused."""

    async def play() -> None:
        async with staged(2) as stage:
            await stage.until(lambda: stage.ready)
            reader, writer, _ = await stage.connect()
            named = {name: os.dup(fd) for name, fd in stage.pool.hand_over().descriptors.items()}
            stage.pool.leave()
            assert stage.ended == 0
            assert await stage.ask()
            stage.ended, stage.ready = None, 0
            inherited = InheritedDescriptors.from_names(named.items())
            inherited.identify()
            stage.pool = stage.make(2, inherited)
            stage.pool.start(messages.Snapshot(1, ()))
            answers = await asyncio.gather(*(stage.ask() for _ in range(20)))
            assert all(answers)
            await stage.until(lambda: stage.ready)
            assert {v.gen for v in stage.workers()} == {2}
            writer.write(b"hello")
            assert await reader.readexactly(5) == b"hello"
            writer.close()
            await stage.until(lambda: len(stage.gone) == 2)

    asyncio.run(play())


def test_the_next_master_keeps_workers_that_it_cannot_watch_yet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """fs.epoll.max_user_watches is reached: no session ends, and they are replaced in the end."""

    async def play() -> None:
        loop = asyncio.get_running_loop()
        async with staged(2) as stage:
            await stage.until(lambda: stage.ready)
            before = stage.pool.pids()
            reader, writer, _ = await stage.connect()
            named = {name: os.dup(fd) for name, fd in stage.pool.hand_over().descriptors.items()}
            stage.pool.leave()
            stage.ended, stage.ready = None, 0
            inherited = InheritedDescriptors.from_names(named.items())
            inherited.identify()
            stage.pool = stage.make(2, inherited)
            with monkeypatch.context() as full:
                full.setattr(loop, "add_reader", watch_nothing)
                stage.pool.start(messages.Snapshot(1, ()))
            assert stage.pool.pids() == before
            handed_over = stage.pool.hand_over().descriptors
            assert {"ctl.0.1", "ctl.1.1"} <= handed_over.keys()
            await stage.until(lambda: stage.ready)
            writer.write(b"hello")
            assert await reader.readexactly(5) == b"hello"
            writer.close()
            await stage.until(lambda: {WorkerId(0, 1), WorkerId(1, 1)} <= set(stage.gone))

    asyncio.run(play())


@pytest.mark.parametrize("upgrade", [False, True])
def test_a_worker_that_was_not_told_to_drain_yet_is_told_by_the_next_master(upgrade: bool) -> None:
    """The former one crashed between a successor's Ready and the order to its predecessor.

    Or it was replaced by an upgrade while the order waited, because the worker read nothing.
    """

    async def play() -> None:
        async with staged(2) as stage:
            await stage.until(lambda: stage.ready)
            named = {}
            for name, fd in stage.pool.hand_over().descriptors.items():
                kind, *numbers = name.split(".")
                # The worker of slot 1 appears as an older one of slot 0.
                known = (
                    f"{kind}.0.0" if kind in ("ctl", "pipe", "pid") and numbers[0] == "1" else name
                )
                if known != name or numbers[:1] != ["1"]:
                    named[known] = os.dup(fd)
            stage.pool.leave()
            stage.ended, stage.ready = None, 0
            leaving = WorkerId(0, 0)
            until = asyncio.get_running_loop().time() + 30.0
            inherited = InheritedDescriptors.from_names(
                named.items(),
                draining=[leaving] if upgrade else None,
                drains_until={leaving: until} if upgrade else None,
            )
            inherited.identify()
            stage.pool = stage.make(1, inherited)
            stage.pool.start(messages.Snapshot(1, ()))
            await stage.until(lambda: WorkerId(0, 0) in stage.gone)
            await stage.until(lambda: stage.ready)

    asyncio.run(play())


def _inodes(pid: int | None) -> set[int]:
    found = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            found.add(os.stat(f"/proc/{pid}/fd/{name}").st_ino)
    return found
