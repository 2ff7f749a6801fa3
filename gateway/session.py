"""Sessions: from an accepted client to its end, and the worker's register of them all."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Iterator
from os import read
from random import random
from time import monotonic
from typing import Any

from gateway.core.counters import End, EndpointCounters, WorkerCounters
from gateway.core.endpoint import Endpoint, EndpointState
from gateway.core.log import Log
from gateway.core.messages import Settings, Snapshot
from gateway.core.stall import step_s
from gateway.dialer import Dial, Dialer, OnDialFailed, Table
from gateway.poller import ERR, HUP, OUT, RDHUP, Poller
from gateway.relay import READ_BYTES, Leg, Relay
from gateway.stalls import Stalls
from gateway.tcp import arm_reset, borrowed, disarm_reset, tune

TUNE_S = 1.0
"""A session that lives this long gets its keepalive; shorter ones save five system calls."""

SPREAD_S = 1.0
"""Sessions of an endpoint that is gone are closed over this long, not all at once.

Each at a time of its own by chance: workers that each hold a few do not close them together.
"""

SPREAD_STEP_S = 0.02

OUR_ERRORS = (errno.ENOMEM, errno.ENOBUFS, errno.EBADF, errno.EINVAL)
"""Errors of a connection that are no news from its other end: of memory, or of our own making."""


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
        self._kept: frozenset[str] = frozenset()
        self._inactive: frozenset[str] = frozenset()
        self._doomed: dict[Session, tuple[float, End]] = {}
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
        session.open()

    def apply(self, snapshot: Snapshot) -> None:
        """Act on a new snapshot; the caller has given it to the table already.

        Sessions of endpoints that are gone end with ``removed``, those of inactive ones with
        ``inactive`` if the settings say so; spread over a second.
        """
        settings = snapshot.settings
        self.settings = self.dialer.settings = settings
        self._kept = frozenset(endpoint.name for endpoint in snapshot.endpoints)
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
        doomed, self._doomed = self._doomed, {}
        for session in self._all:
            name = session.endpoint
            if name and name not in self._kept:
                end = End.REMOVED
            elif name in turned or (name in inactive and session in doomed):
                end = End.INACTIVE
            else:
                continue
            # Who is doomed already keeps its time, or snapshot after snapshot would put it off.
            at, _ = doomed.get(session) or (now + random() * SPREAD_S, end)  # noqa: S311 (no secret)
            self._doomed[session] = (at, end)
        if self._doomed and "spread" not in self._timers:
            self._schedule("spread", 0.0, self._cut_some)
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
        stirred = self.relay.stirred
        for session in stirred:
            session.settle(self.stalls)
        stirred.clear()

    def reported(self) -> None:
        """The counters were read: those of endpoints that left, and have no session, may go.

        Not before, or what they counted since the report before would be lost; and for good only
        when a report without them was sent, so that one that comes back meanwhile counts on from
        where it was. The reader tells neither from a counter that began anew.
        """
        self._leaving.clear()
        endpoints = self.counters.endpoints
        if self._kept:
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

    def established(self, name: str) -> None:
        table = self.table
        table.session_started(name)
        if not table.is_trusted(name):
            table.trust(name)
            self._on_dial_succeeded(name)
        if not self._tuning:
            self._tuning = True
            self._schedule("tune", TUNE_S, self._tune_some)

    def ended(self, session: Session, end: End) -> None:
        del self._all[session]
        self._doomed.pop(session, None)
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

    def _cut_some(self) -> None:
        """Cut those of the doomed whose time has come."""
        del self._timers["spread"]
        now = monotonic()
        for session, (at, end) in tuple(self._doomed.items()):
            if at <= now:
                session.cut(end)
        if self._doomed:
            self._schedule("spread", SPREAD_STEP_S, self._cut_some)

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


class Session:
    """One client connection and its upstream connection, accept to close.

    Owns both descriptors through its legs. While dialing it is itself the client's watcher and
    only remembers what happened; then the legs take over.
    """

    __slots__ = (
        "client", "counted_in", "counted_out", "counters", "dial", "end", "endpoint", "first_end",
        "moved_at", "peer", "pending", "seen", "sessions", "started_at", "tuned",
        "upstream",
    )  # fmt: skip

    def __init__(self, sessions: Sessions, fd: int, peer: Any) -> None:
        self.sessions = sessions
        self.peer = peer
        self.started_at = self.moved_at = monotonic()
        self.client = Leg(fd, self, sessions.relay)
        self.upstream: Leg | None = None
        self.dial: Dial | None = None
        self.endpoint = ""
        self.counters: EndpointCounters | None = None
        self.counted_in = self.counted_out = self.seen = 0
        self.pending = 0
        self.tuned = False
        self.first_end: End | None = None
        self.end: End | None = None

    def open(self) -> None:
        """Dial, with what the client said already: most speak first, and at once."""
        client = self.client
        early: bytes | None = None
        try:
            early = read(client.fd, READ_BYTES)
        except BlockingIOError:
            pass
        except OSError:
            self._finish(End.RESET)
            return
        if early == b"":
            self.pending = RDHUP
            early = None
        sessions = self.sessions
        sessions.poller.add(client.fd, self)
        self.dial = sessions.dialer.call(self, early, self.started_at)
        if early is not None and client.moved < len(early) and self.end is None:
            client.held = memoryview(early)[client.moved :]
            client.plain = False
            if self.upstream is not None:
                self.upstream.arm()

    # The client's watcher, while dialing.

    def on_event(self, mask: int) -> None:
        self.pending |= mask
        if mask & (ERR | HUP):
            self._finish(End.RESET)

    def on_crash(self, error: Exception) -> None:
        self.crashed(error)

    # The dial's caller.

    def connected(
        self, fd: int, endpoint: Endpoint, mask: int, sent: int, dialed_at: float
    ) -> None:
        self.dial = None
        sessions = self.sessions
        client = self.client
        self.upstream = upstream = Leg(fd, self, sessions.relay, mask != 0)
        client.peer = upstream
        upstream.peer = client
        poller = sessions.poller
        poller.replace(client.fd, client)
        if mask:
            poller.replace(fd, upstream)
        else:
            poller.add(fd, upstream)
            client.moved = sent
        self.endpoint = name = endpoint.name
        self.counters = counters = sessions.counters_of(name)
        counters.sessions += 1
        counters.sessions_total += 1
        counters.dials["connected"] = counters.dials.get("connected", 0) + 1
        counters.dial_seconds.observe(monotonic() - dialed_at)
        sessions.relay.stirred.add(self)
        sessions.established(name)
        if self.tuned:  # dialed for so long that its turn is over
            self.tune(sessions.settings)
        if mask & ~OUT or client.held is not None:
            upstream.on_event(mask)
        if self.pending and self.end is None:
            client.on_event(self.pending)

    def gave_up(self, end: End) -> None:
        arm_reset(self.client.fd)
        self._finish(end)

    # The legs' session.

    def first_ended(self, leg: Leg) -> None:
        self.first_end = End.CLIENT if leg is self.client else End.ENDPOINT

    def completed(self) -> None:
        """Both streams ended and everything was passed on: an orderly close."""
        if self.tuned and self.upstream is not None:
            disarm_reset(self.client.fd)
            disarm_reset(self.upstream.fd)
        self._finish(self.first_end or End.CLIENT)

    def broken(self, leg: Leg, error: OSError | None) -> None:
        """``leg``'s connection was reset or timed out: the other side gets a reset."""
        if self.end is None:
            leg.last_words()
            arm_reset(leg.peer.fd)
            ours = error is not None and error.errno in OUR_ERRORS
            self._finish(End.ERROR if ours else End.RESET)

    def crashed(self, error: Exception) -> None:
        """A bug, or memory ran out: this session alone pays for it."""
        self.sessions.log.error("session failed", error=repr(error), endpoint=self.endpoint)
        self.cut(End.ERROR)

    # The register's session.

    def cut(self, end: End) -> None:
        """End it from our side: resets, so that neither side takes its stream for complete."""
        if self.end is None:
            arm_reset(self.client.fd)
            if self.upstream is not None:
                arm_reset(self.upstream.fd)
            self._finish(end)

    def settle(self, stalls: Stalls | None = None) -> None:
        """Count what moved; the legs' next bytes take the road that enters us as stirred.

        ``stalls`` is told of the legs that bytes were written to.
        """
        counters, upstream = self.counters, self.upstream
        if counters is not None and upstream is not None:
            moved_in, moved_out = self.client.moved, upstream.moved
            if moved_in != self.counted_in:
                counters.bytes_in += moved_in - self.counted_in
                self.counted_in = moved_in
                if stalls is not None:
                    stalls.moved(upstream)
            if moved_out != self.counted_out:
                counters.bytes_out += moved_out - self.counted_out
                self.counted_out = moved_out
                if stalls is not None:
                    stalls.moved(self.client)
            self.client.plain = upstream.plain = False

    def tune(self, settings: Settings) -> None:
        """Find peers that vanished; and should this process be killed, let the kernel reset both
        sides, so that neither takes its stream for complete."""
        self.tuned = True
        if self.upstream is not None:
            with borrowed(self.upstream.fd) as sock:
                tune(sock, settings)
            arm_reset(self.client.fd)
            arm_reset(self.upstream.fd)

    def idle_for(self, now: float) -> float:
        """Seconds without a byte, seen at the grain of the calls; 0 while dialing."""
        if self.upstream is None:
            return 0.0
        moved = self.client.moved + self.upstream.moved
        if moved != self.seen:
            self.seen = moved
            self.moved_at = now
        return now - self.moved_at

    def facts(self) -> dict[str, Any]:
        """The access log's fields, but for the duration and the end."""
        return {
            "client": _address_text(self.peer),
            "endpoint": self.endpoint,
            "bytes_in": self.client.moved,
            "bytes_out": self.upstream.moved if self.upstream is not None else 0,
        }

    def _finish(self, end: End) -> None:
        if self.end is not None:
            return
        self.end = end
        if self.dial is not None:
            self.dial.cancel()
            self.dial = None
        stalls = self.sessions.stalls
        if stalls and self.upstream is not None and end in (End.CLIENT, End.ENDPOINT):
            stalls.deliver(self.client)
            stalls.deliver(self.upstream)
        self.client.let_go()
        if self.upstream is not None and self.counters is not None:
            self.upstream.let_go()
            self.settle()
            self.sessions.relay.stirred.discard(self)
            self.counters.sessions -= 1
            self.sessions.table.session_ended(self.endpoint)
            del self.client.peer, self.upstream.peer
        self.sessions.ended(self, end)
        # The legs know us: without this every session would be a cycle, half a kilobyte that waits
        # for the collector.
        del self.client
        self.upstream = None


def _address_text(peer: Any) -> str:
    if not peer:
        return ""
    host, port = peer[0], peer[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
