"""What the log says of a stop."""

from __future__ import annotations

import asyncio
import signal

from supervisor.core.handover_state import HandoverState
from supervisor.handover.systemd import Notify
from supervisor.shutdown import Shutdown
from supervisor.system.tasks import Tasks
from supervisor.workers.pool import WorkerPool
from tests.logbook import Logbook


class DrainingPool(WorkerPool):
    """Does nothing when it is told to drain."""

    def __init__(self) -> None:
        pass

    def drain(self, deadline_s: float) -> None:
        pass


def make_shutdown(log: Logbook, loop: asyncio.AbstractEventLoop, ended: list[int]) -> Shutdown:
    """One that notes in ``ended`` with which codes the gateway was to end."""
    return Shutdown(
        log,
        Notify(None),
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
