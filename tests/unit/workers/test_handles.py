"""What the handles of the workers tell the fleet."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
from collections.abc import Iterator

import pytest

from gateway.core import messages, wire
from gateway.scoreboard import Scoreboard
from supervisor.core.workers.worker_id import WorkerId
from supervisor.workers.descriptor_store import NO_DESCRIPTOR_STORE
from supervisor.workers.fork import Child
from supervisor.workers.handles import REPORT_HOLDS_S, WorkerHandles
from supervisor.workers.scoreboard_rows import ScoreboardRows
from tests.logbook import Logbook
from tests.support import eventually, watch_nothing

WORKER = WorkerId(0, 1)


class Stage:
    """Handles with one worker, which is another process, and our end of its channel."""

    def __init__(self, pid: int, *, own: bool = False) -> None:
        self.rows = ScoreboardRows(Scoreboard())
        self.heard: list[messages.Up] = []
        self.gone: list[WorkerId] = []
        self.handles = WorkerHandles(
            Logbook(),
            self.rows,
            NO_DESCRIPTOR_STORE,
            on_message=lambda _who, message, _fds: self.heard.append(message),
            on_exit=lambda who, _handle: self.gone.append(who),
        )
        if own:
            self.rows.scoreboard.enter(self.rows.give(WORKER), pid)
        else:
            self.rows.inherit(WORKER, pid)
        control, self.control = socket.socketpair()
        self.pipe_r, pipe_w = os.pipe()
        self.child = Child(pid, os.pidfd_open(pid), pipe_w, control)

    def report(self) -> None:
        self.control.sendall(wire.encode(messages.Report(1, 0, 0.0, 1)))

    def close(self) -> None:
        self.handles.close()
        self.rows.close()
        self.control.close()
        os.close(self.pipe_r)


@pytest.fixture(name="processes")
def two_processes() -> Iterator[list[subprocess.Popen[bytes]]]:
    processes = [subprocess.Popen(["sleep", "600"]) for _ in range(2)]
    yield processes
    for each in processes:
        each.kill()
        each.wait()


@pytest.mark.parametrize(("own", "holds_s"), [(True, 0.0), (False, REPORT_HOLDS_S)])
def test_a_report_holds_longer_where_it_is_the_only_sign_of_life(own: bool, holds_s: float) -> None:
    """A worker of another release may write its beats to a scoreboard that we cannot read."""

    async def play() -> None:
        begin = asyncio.get_running_loop().time()
        with contextlib.closing(Stage(os.getpid(), own=own)) as stage:
            handle = stage.handles.take(WORKER, stage.child, inherited=True)
            signs = stage.handles.collect_signs()
            if own:
                assert signs == {}
            else:
                assert signs[WORKER] >= begin + holds_s
            stage.report()
            await eventually(lambda: stage.heard)
            assert handle.heard_at is not None
            assert stage.handles.collect_signs() == {WORKER: handle.heard_at + holds_s}
            assert stage.handles.collect_signs() == {}

    asyncio.run(play())


def test_what_is_inherited_is_watched_once_there_is_room(
    monkeypatch: pytest.MonkeyPatch, processes: list[subprocess.Popen[bytes]]
) -> None:
    """fs.epoll.max_user_watches is reached: a worker that may serve is not killed for that."""
    serving, unready = processes

    async def play() -> None:
        with contextlib.closing(Stage(serving.pid)) as stage:
            handles = stage.handles
            with monkeypatch.context() as full:
                full.setattr(asyncio.get_running_loop(), "add_reader", watch_nothing)
                handles.take(WORKER, stage.child, inherited=True)
                handles.reap_unready(os.pidfd_open(unready.pid), unready.pid)
                handles.watch_again()
            stage.report()
            unready.kill()
            handles.watch_again()
            await eventually(lambda: stage.heard and not handles.owns(unready.pid))
            assert handles.owns(serving.pid)
            serving.kill()
            await eventually(lambda: stage.gone)

    asyncio.run(play())
