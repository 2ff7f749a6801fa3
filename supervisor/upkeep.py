"""The upkeep: what the master does about once a second, beside what events make it do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.core import messages
from supervisor.core.admin.turned_away import TurnedAway
from supervisor.parts import Parts
from supervisor.workers.pool import WorkerPool

TICK_S = 1.0
"""Loads to the workers, the roster's expiries, the status line, more time for a long stop."""


class Upkeep:
    """Owns its timer, from :meth:`start` to :meth:`close`.

    ``record()`` brings what the next master will know up to date.
    """

    def __init__(self, parts: Parts, record: Callable[[], None]) -> None:
        self._parts = parts
        self._record = record
        self._turned_away = TurnedAway(parts.totals.turned_away())
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Do what is due now, and again once a second."""
        parts = self._parts
        self._timer = parts.loop.call_later(TICK_S, self.start)
        parts.totals.count_dropped(parts.log.dropped)
        if parts.shutdown.draining or not parts.ready:
            parts.service_notifier.ask_patience()
        if parts.tls.contexts.look():
            parts.discovery_loop.check_tls_again()
            parts.endpoints.health.prober.look_again()
        if parts.tls.certificates.warned:  # seldom, but often for many endpoints at the same moment
            parts.tls.certificates.warned = False
            self._record()
        if parts.admin.has_lost_files:
            parts.tasks.start(parts.admin.renew_lost(), "admin socket")
        if parts.pool is not None:
            self._watch_listeners(parts.pool)
            self._tell_turned_away()
            self._tell_workers(parts.pool)
            parts.service_notifier.show_status()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _watch_listeners(self, pool: WorkerPool) -> None:
        """Look whether other programs listen on our addresses, or took the files of our sockets."""
        port_monitor = self._parts.port_monitor
        if port_monitor is not None and not self._parts.shutdown.draining:
            port_monitor.tick(pool.listener_inodes())
            port_monitor.look_at_files(self._parts.shared.missing_files())

    def _tell_turned_away(self) -> None:
        """Log the clients that were turned away, as often as such lines are due."""
        totals = self._parts.totals
        counts, last = totals.turned_away(), totals.last_turned_away
        for told in self._turned_away.tell(counts, last, self._parts.loop.time()):
            self._parts.log.warn(told.msg, clients=told.clients, last=told.last)

    def _tell_workers(self, pool: WorkerPool) -> None:
        """Bring the endpoints up to date, and tell workers what only all reports together say."""
        parts = self._parts
        sessions = parts.endpoints.on_tick()
        parts.discovery_loop.set_any_active(parts.endpoints.any_active)
        if parts.config.balance == "least-sessions":
            pool.push_loads(messages.Loads(sessions, parts.totals.sessions_by_address()))
        for who, order in parts.endpoints.rebalance():
            pool.give_up(who, order)
