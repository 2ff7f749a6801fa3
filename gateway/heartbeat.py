"""The heartbeat: a worker shows on the scoreboard that its loop runs, and sends its reports."""

from __future__ import annotations

import asyncio
import os
import time

from gateway.control import Control
from gateway.core.counters import WorkerCounters
from gateway.core.log import Log
from gateway.core.messages import Report
from gateway.core.reports import report_of
from gateway.core.table import Table
from gateway.ingress.ingress import Ingress
from gateway.sessions.register import Sessions

INTERVAL_S = 0.1
"""How often a worker shows on the scoreboard that its loop runs; a hang is noticed after three."""

REPORT_EVERY_BEATS = 10
"""A worker reports about once a second, if the master has taken its last report. Suspicions of
endpoints are counted in reports, so after one that came early the next is a second later, too."""

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Heartbeat:
    """Beats from :meth:`start` to :meth:`stop`; reports when it is due, and when it is asked."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        ingress: Ingress,
        sessions: Sessions,
        table: Table,
        counters: WorkerCounters,
        control: Control,
        log: Log,
    ) -> None:
        self._loop = loop
        self._ingress = ingress
        self._sessions = sessions
        self._table = table
        self._counters = counters
        self._control = control
        self._log = log
        self._due_at = 0.0
        self._lag_s = 0.0
        self._beats = 0
        """Since the last report."""
        self._stopped = False
        self._awaited = False
        """The master waits for what the next report says."""
        # Opened once: when descriptors are short, reports must go on.
        self._statm = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)

    def start(self) -> None:
        self._due_at = self._loop.time()
        self._beat()

    def stop(self) -> None:
        self._stopped = True

    def close(self) -> None:
        os.close(self._statm)

    def hasten(self) -> None:
        """Report with the next beat, and then about a second later."""
        self._awaited = True

    def report(self) -> None:
        """Tell the master what was counted so far."""
        self._awaited = False
        self._beats = 0
        self._sessions.count_bytes()
        self._table.reported()
        self._counters.log_dropped = self._log.dropped
        self._control.send(
            report_of(
                self._counters,
                snapshot_version=self._table.version,
                loop_lag_s=max(self._lag_s, 0.0),
                rss_bytes=self._rss_bytes(),
                cpu_s=time.process_time(),
            )
        )
        self._sessions.reported()
        self._lag_s = 0.0

    def _beat(self) -> None:
        if self._stopped:
            return
        now = self._loop.time()
        self._lag_s = max(self._lag_s, now - self._due_at)
        self._due_at = now + INTERVAL_S
        self._loop.call_at(self._due_at, self._beat)
        self._ingress.tick(INTERVAL_S)
        self._beats += 1
        # One that replaced a report that waits would lack what only that one says: the last
        # figures of endpoints that left.
        due = self._awaited or self._beats >= REPORT_EVERY_BEATS
        if due and Report not in self._control.waiting():
            self.report()

    def _rss_bytes(self) -> int:
        return int(os.pread(self._statm, 256, 0).split()[1]) * _PAGE_BYTES
