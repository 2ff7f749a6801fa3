"""The end of the gateway that a signal asks for: drain, leave the workers, or stop at once."""

from __future__ import annotations

import signal
from collections.abc import Callable

from gateway.core.log import Log
from supervisor.core.handover_state import HandoverState
from supervisor.handover.record import HandoverRecord
from supervisor.handover.systemd import Notify
from supervisor.system.patience import try_until_done
from supervisor.system.tasks import Tasks
from supervisor.workers.pool import WorkerPool

CANNOT_LEAVE = "cannot leave now, trying again"


class Shutdown:
    """``draining`` is True from the first stop signal on.

    ``end(code)`` ends the master where there is no pool whose end would. ``state()`` is what the
    next master is to know; it is asked while there is a pool.
    """

    def __init__(
        self,
        log: Log,
        notify: Notify,
        tasks: Tasks,
        *,
        end: Callable[[int], None],
        state: Callable[[], HandoverState],
    ) -> None:
        self._log = log
        self._notify = notify
        self._tasks = tasks
        self._end = end
        self._state = state
        self.record: HandoverRecord | None = None
        self.draining = False
        self._left = False
        self._stopped = False
        """Whether a second signal came, so that nobody goes on for the next master."""
        self._unready = False
        """Whether the stop came when there were no workers yet, so that nothing drains."""
        self.sessions_cut = 0
        self._deadline_at: float | None = None

    def deadline_s(self, now: float) -> float | None:
        """How long the sessions still have; None if nothing will cut them."""
        return None if self._deadline_at is None else max(self._deadline_at - now, 0.0)

    def on_signal(
        self,
        number: signal.Signals,
        pool: WorkerPool | None,
        *,
        now: float,
        handover: bool,
        drain_timeout_s: float,
    ) -> None:
        """The first signal drains, the second one stops at once."""
        if pool is None:
            if not self._unready:
                self._unready = True
                self._log.info("stopped before it was ready", signal=number.name)
            self._end(0)
        elif self.draining:
            self._stopped = True
            self._log.info("stopping at once", signal=number.name)
            self._deadline_at = now
            pool.stop_now()
        else:
            leaving = handover and number is signal.SIGTERM and self._notify.enabled
            self._begin(leaving=leaving)
            if leaving:
                msg = "leaving, the workers go on for the next master"
                self._log.info(msg, signal=number.name)
                self._tasks.start(self._leave(pool), "leave")
                return
            self._deadline_at = now + drain_timeout_s
            self._log.info("draining", signal=number.name, drain_timeout_s=drain_timeout_s)
            pool.drain(drain_timeout_s)

    def _begin(self, *, leaving: bool) -> None:
        """Tell the next master, if there is to be one, and the service manager."""
        self.draining = True
        if self.record is not None and leaving:
            self.record.leave(self._state())
        elif self.record is not None:
            self.record.withdraw()
        self._notify.stopping()

    def on_drained(self, cut: int) -> None:
        """A worker left; ``cut`` of its sessions did not end by themselves."""
        self.sessions_cut += cut if self.draining else 0

    def close(self) -> None:
        """The gateway is over: say how the drain went, if there was one and nobody goes on."""
        if self.draining and not self._left:
            self._log.info("drained", sessions_cut=self.sessions_cut)

    async def _leave(self, pool: WorkerPool) -> None:
        await try_until_done(self._wait_for_store, self._log, msg=CANNOT_LEAVE)
        if self._stopped:
            return
        self._left = True
        pool.leave()

    async def _wait_for_store(self) -> None:
        """Until the service manager has everything that it keeps for the next master."""
        await self._notify.barrier()
