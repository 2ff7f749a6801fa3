"""The register of a worker's sessions: their counters, their timers, and who of them has to go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from random import random
from time import monotonic
from typing import Any

from gateway.core.counters import End, EndpointCounters, WorkerCounters
from gateway.core.endpoint import EndpointState
from gateway.core.log import Log
from gateway.core.messages import Settings, Snapshot
from gateway.core.stall import step_s
from gateway.poller import Poller
from gateway.sessions.dial import OnDialFailed, Table
from gateway.sessions.dialer import Dialer
from gateway.sessions.relay import Relay
from gateway.sessions.session import Session
from gateway.sessions.stalls import Stalls

TUNE_S = 1.0
"""A session that lives this long gets its keepalive; shorter ones save five system calls."""

SPREAD_S = 1.0
"""Sessions of an endpoint that is gone are closed over this long, not all at once.

Each at a time of its own by chance: workers that each hold a few do not close them together.
"""

SPREAD_STEP_S = 0.02


class Sessions:
    """All sessions of one worker. Single-threaded; every method returns at once.

    ``counters`` are kept exact to the byte; call :meth:`settle` before reading them.
    ``on_dial_failed(endpoint, address, result, error)``: evidence for the master, never for
    local failures; result ABANDONED is only a hint that the endpoint is slow to answer.
    ``on_dial_succeeded(endpoint)``: of an endpoint that the table does not trust.
    ``on_end()``: a session is over, its place is free.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        poller: Poller,
        table: Table,
        counters: WorkerCounters,
        log: Log,
        *,
        settings: Settings,
        on_dial_failed: OnDialFailed = lambda *_: None,
        on_dial_succeeded: Callable[[str], None] = lambda _: None,
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        self.counters = counters
        self.log = log
        self.settings = settings
        self.table = table
        self.poller = poller
        self.relay = Relay(poller)
        self.on_end = on_end
        self.dialer = Dialer(
            loop,
            poller,
            table,
            settings=settings,
            count=self.counters_of,
            on_failed=on_dial_failed,
        )
        self._on_dial_succeeded = on_dial_succeeded
        self._loop = loop
        self._all: dict[Session, None] = {}
        self._tuning = False
        self._kept: frozenset[str] | None = None
        self._inactive: frozenset[str] = frozenset()
        self._scheduled_cuts: dict[Session, tuple[float, End]] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._leaving: dict[str, EndpointCounters] = {}
        self.stalls = Stalls(lambda leg: leg.session.cut(End.RESET))
        self._settled_at = 0.0

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Session]:
        return iter(tuple(self._all))

    def serve(self, fd: int, peer: Any) -> None:
        """Take over an accepted, non-blocking client; ``peer`` is its socket address."""
        session = Session(self, fd, peer if self.settings.access_log else None)
        self._all[session] = None
        self.counters.sessions += 1
        try:
            session.open()
        except Exception as error:  # noqa: BLE001 - a session's boundary
            session.crashed(error)

    def apply(self, snapshot: Snapshot) -> None:
        """Act on a new snapshot; the caller has given it to the table already.

        Sessions of endpoints that are gone end with ``removed``, those of inactive ones with
        ``inactive`` if the settings say so; spread over a second.
        """
        settings = snapshot.settings
        self.settings = self.dialer.settings = settings
        self._kept = kept = frozenset(endpoint.name for endpoint in snapshot.endpoints)
        inactive: frozenset[str] = frozenset()
        if settings.on_inactive == "close":
            inactive = frozenset(
                endpoint.name
                for endpoint in snapshot.endpoints
                if endpoint.state is EndpointState.INACTIVE
            )
        turned = inactive - self._inactive
        self._inactive = inactive
        now = monotonic()
        before, self._scheduled_cuts = self._scheduled_cuts, {}
        for session in self._all:
            name = session.endpoint
            if name and name not in kept:
                end = End.REMOVED
            elif name in turned or (name in inactive and session in before):
                end = End.INACTIVE
            else:
                continue
            # A session whose cut is scheduled keeps its time: each new snapshot would put it off.
            at, _ = before.get(session) or _draw_cut(now, end)
            self._scheduled_cuts[session] = (at, end)
        self._schedule_cuts()
        # Timers under way stay: snapshots that follow each other closely must not put them off.
        if settings.idle_timeout_s and "idle" not in self._timers:
            self._schedule("idle", self._idle_step(), self._cut_idle)
        if settings.tcp_user_timeout_s and "stalls" not in self._timers:
            self._schedule("stalls", step_s(settings.tcp_user_timeout_s), self._look_for_stalls)

    def cut_all(self, end: End) -> int:
        """End every session now, with a reset on both sides; how many."""
        cut = tuple(self._all)
        for session in cut:
            session.cut(end)
        return len(cut)

    def settle(self) -> None:
        """Bring the counters up to date with the live sessions; before each reading.

        Costs by those that moved bytes since the last time: 0.5 us each, and nothing for the rest.
        """
        self._settled_at = monotonic()
        dirty = self.relay.dirty
        for session in dirty:
            session.settle()
        dirty.clear()

    def reported(self) -> None:
        """The counters were read: those of endpoints that left, and have no session, may go.

        Not before, or what they counted since the report before would be lost; and for good only
        when a report without them was sent, so that one that comes back meanwhile counts on from
        where it was. The reader tells neither from a counter that began anew.
        """
        self._leaving.clear()
        endpoints = self.counters.endpoints
        if self._kept is not None:
            for name in endpoints.keys() - self._kept:
                if endpoints[name].sessions == 0:
                    self._leaving[name] = endpoints.pop(name)

    def close(self) -> None:
        """Cut what is left and stop the timers."""
        self.cut_all(End.DRAINED)
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self.relay.close()

    def counters_of(self, name: str) -> EndpointCounters:
        counters = self.counters.endpoints.get(name)
        if counters is None:
            counters = self._leaving.pop(name, None) or EndpointCounters()
            self.counters.endpoints[name] = counters
        return counters

    def established(self, session: Session, name: str) -> None:
        table = self.table
        table.session_started(name)
        if not table.is_trusted(name):
            self._reached_untrusted(session, name)
        if not self._tuning:
            self._tuning = True
            self._schedule("tune", TUNE_S, self._tune_some)

    def ended(self, session: Session, end: End) -> None:
        del self._all[session]
        self._scheduled_cuts.pop(session, None)
        counters = self.counters
        counters.sessions -= 1
        reason = end._value_  # a third of the time that ``value`` takes
        counters.ended[reason] = counters.ended.get(reason, 0) + 1
        duration_s = monotonic() - session.started_at
        counters.session_seconds.observe(duration_s)
        if not session.endpoint and (end is End.NO_ENDPOINT or end is End.DIAL_FAILED):
            counters.refused[reason] = counters.refused.get(reason, 0) + 1
        if self.settings.access_log:
            self.log.info("session", duration_s=round(duration_s, 6), **session.facts(), end=end)
        self.on_end()

    def _reached_untrusted(self, session: Session, name: str) -> None:
        """News for the master; unless the endpoint left while it was dialed."""
        if self._kept is None or name in self._kept:
            self.table.trust(name)
            self._on_dial_succeeded(name)
        else:
            self._scheduled_cuts[session] = _draw_cut(monotonic(), End.REMOVED)
            self._schedule_cuts()

    def _schedule(self, name: str, delay_s: float, call: Callable[..., None], *args: Any) -> None:
        timer = self._timers.pop(name, None)
        if timer is not None:
            timer.cancel()
        self._timers[name] = self._loop.call_later(delay_s, call, *args)

    def _tune_some(self) -> None:
        """Give sessions their keepalive once they are a second old: most are over before that.

        The register keeps the order of arrival, so the newest are looked at and no others.
        """
        self._tuning = False
        due_at = monotonic() - TUNE_S
        for session in reversed(self._all):
            if session.tuned:
                break
            if session.started_at <= due_at:
                session.tune(self.settings)
            else:
                self._tuning = True
        if self._tuning:
            self._schedule("tune", TUNE_S, self._tune_some)

    def _schedule_cuts(self) -> None:
        """Start the timer of the scheduled cuts, unless it runs."""
        if self._scheduled_cuts and "spread" not in self._timers:
            self._schedule("spread", 0.0, self._cut_due)

    def _cut_due(self) -> None:
        """Cut the sessions whose scheduled time has come."""
        del self._timers["spread"]
        now = monotonic()
        for session, (at, end) in tuple(self._scheduled_cuts.items()):
            if at <= now:
                session.cut(end)
        if self._scheduled_cuts:
            self._schedule("spread", SPREAD_STEP_S, self._cut_due)

    def _look_for_stalls(self) -> None:
        """Tell peers that are paused or slow from those that vanished; see ``core.stall``."""
        del self._timers["stalls"]
        timeout_s = self.settings.tcp_user_timeout_s
        if not timeout_s:
            return
        now = monotonic()
        wait_s = step_s(timeout_s)
        if now - self._settled_at > wait_s * 1.25:  # reports do it every second, for nothing more
            self.settle()
        self._schedule("stalls", wait_s, self._look_for_stalls)
        self.stalls.look(now, timeout_s)

    def _idle_step(self) -> float:
        return min(max(self.settings.idle_timeout_s / 10, 0.01), 5.0)

    def _cut_idle(self) -> None:
        del self._timers["idle"]
        if not self.settings.idle_timeout_s:
            return
        now = monotonic()
        for session in tuple(self._all):
            if session.idle_for(now) >= self.settings.idle_timeout_s:
                session.cut(End.IDLE)
        self._schedule("idle", self._idle_step(), self._cut_idle)


def _draw_cut(now: float, end: End) -> tuple[float, End]:
    """When to cut a session, drawn at random, and with which end."""
    return now + random() * SPREAD_S, end  # noqa: S311 (no secret)
