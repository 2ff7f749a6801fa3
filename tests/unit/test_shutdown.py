"""What the log says of a stop."""

from __future__ import annotations

import asyncio
import signal
import socket
from pathlib import Path

from gateway.descriptors import close_all, receive
from supervisor.core.handover_state import HandoverState
from supervisor.handover.systemd import Notify
from supervisor.shutdown import Shutdown
from supervisor.system.tasks import Tasks
from supervisor.workers.pool import WorkerPool
from tests.logbook import Logbook


class DrainingPool(WorkerPool):
    """Does nothing when it is told to drain, to stop or to leave, and notes the last two."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def drain(self, deadline_s: float) -> None:
        pass

    def stop_now(self) -> None:
        self.told.append("stop")

    def leave(self) -> None:
        self.told.append("leave")


def make_shutdown(
    log: Logbook,
    loop: asyncio.AbstractEventLoop,
    ended: list[int],
    notify: Notify | None = None,
) -> Shutdown:
    """One that notes in ``ended`` with which codes the gateway was to end."""
    return Shutdown(
        log,
        notify or Notify(None),
        Tasks(loop, lambda name, error: None),
        end=ended.append,
        state=HandoverState,
    )


def test_sessions_that_were_cut_before_the_stop_do_not_count() -> None:
    """Those of a worker that was replaced, or of an upgrade, are no part of this drain."""
    log, loop, ended = Logbook(), asyncio.new_event_loop(), list[int]()
    shutdown = make_shutdown(log, loop, ended)
    shutdown.on_drained(3)
    shutdown.on_signal(signal.SIGTERM, DrainingPool(), now=0.0, handover=False, drain_timeout_s=5.0)
    shutdown.on_drained(2)
    shutdown.close()
    assert [line["sessions_cut"] for line in log.said("drained")] == [2]
    assert shutdown.deadline_s(4.0) == 1.0
    assert ended == []
    loop.close()


def test_a_stop_before_there_are_workers_is_told() -> None:
    """Once, though two signals may come together."""
    log, loop, ended = Logbook(), asyncio.new_event_loop(), list[int]()
    shutdown = make_shutdown(log, loop, ended)
    for number in (signal.SIGTERM, signal.SIGINT):
        shutdown.on_signal(number, None, now=0.0, handover=True, drain_timeout_s=5.0)
    shutdown.close()
    assert [line["signal"] for line in log.said("stopped before it was ready")] == ["SIGTERM"]
    assert (log.said("drained"), ended) == ([], [0, 0])
    loop.close()


def test_a_second_signal_stops_also_who_leaves_for_the_next_master(tmp_path: Path) -> None:
    """The service manager may still be busy with what it keeps for that one."""
    log, pool = Logbook(), DrainingPool()
    shutdown = asyncio.run(stop_twice(log, pool, tmp_path / "notify"))
    assert pool.told == ["stop"]
    shutdown.close()
    assert log.said("drained")


async def stop_twice(log: Logbook, pool: WorkerPool, path: Path) -> Shutdown:
    """TERM, and INT before the service manager answers; the end of both."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        notify = Notify(str(path))
        shutdown = make_shutdown(log, asyncio.get_running_loop(), [], notify)
        for number in (signal.SIGTERM, signal.SIGINT):
            shutdown.on_signal(number, pool, now=0.0, handover=True, drain_timeout_s=5.0)
        (leaving,) = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.sleep(0)
        manager.settimeout(20)
        while (heard := receive(manager, 4096))[0] != b"BARRIER=1":
            close_all(heard[1])
        close_all(heard[1])
        await leaving
        notify.close()
    return shutdown
