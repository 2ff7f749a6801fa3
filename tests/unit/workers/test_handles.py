"""What the handles of the workers tell the fleet."""

from __future__ import annotations

import asyncio
import os
import socket

import pytest

from gateway.core import messages, wire
from gateway.scoreboard import Scoreboard
from supervisor.core.workers.worker_id import WorkerId
from supervisor.workers.descriptor_store import NO_DESCRIPTOR_STORE
from supervisor.workers.fork import Child
from supervisor.workers.handles import REPORT_HOLDS_S, WorkerHandles
from supervisor.workers.scoreboard_rows import ScoreboardRows
from tests.logbook import Logbook
from tests.support import eventually

WORKER = WorkerId(0, 1)


@pytest.mark.parametrize(("own", "holds_s"), [(True, 0.0), (False, REPORT_HOLDS_S)])
def test_a_report_holds_longer_where_it_is_the_only_sign_of_life(own: bool, holds_s: float) -> None:
    """A worker of another release may write its beats to a scoreboard that we cannot read."""

    async def play() -> None:
        loop = asyncio.get_running_loop()
        rows = ScoreboardRows(Scoreboard())
        heard: list[messages.Up] = []
        handles = WorkerHandles(
            Logbook(),
            rows,
            NO_DESCRIPTOR_STORE,
            on_message=lambda _who, message, _fds: heard.append(message),
            on_exit=lambda _who, _handle: None,
        )
        pid = os.getpid()
        if own:
            rows.scoreboard.enter(rows.give(WORKER), pid)
        else:
            rows.inherit(WORKER, pid)
        control, worker = socket.socketpair()
        pipe_r, pipe_w = os.pipe()
        begin = loop.time()
        handle = handles.take(WORKER, Child(pid, os.pidfd_open(pid), pipe_w, control))
        signs = handles.collect_signs()
        if own:
            assert signs == {}
        else:
            assert signs[WORKER] >= begin + holds_s
        worker.sendall(wire.encode(messages.Report(1, 0, 0.0, 1)))
        await eventually(lambda: heard)
        assert handle.heard_at is not None
        assert handles.collect_signs() == {WORKER: handle.heard_at + holds_s}
        assert handles.collect_signs() == {}
        handles.close()
        rows.close()
        worker.close()
        os.close(pipe_r)

    asyncio.run(play())
