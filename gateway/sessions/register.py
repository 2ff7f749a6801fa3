"""The register of a worker's sessions: which there are, what they count, and who has to go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from time import monotonic
from typing import Any

from gateway.core.client_rules import ClientRules
from gateway.core.counters import End, EndpointCounters, WorkerCounters
from gateway.core.descriptor_budget import DescriptorBudget
from gateway.core.log import Log
from gateway.core.messages import Settings, Snapshot
from gateway.core.proxy_protocol import Version
from gateway.poller import Poller
from gateway.sessions.age import SessionAge
from gateway.sessions.cuts import ScheduledCuts
from gateway.sessions.dial import Dial, OnDialFailed, Table
from gateway.sessions.dialer import Dialer
from gateway.sessions.due_ends import DueEnds
from gateway.sessions.idle import IdleTimeout
from gateway.sessions.keepalive import Keepalive
from gateway.sessions.leg import Leg
from gateway.sessions.lingering import Lingering
from gateway.sessions.proxy_in import HeadersIn
from gateway.sessions.proxy_out import HeadersOut
from gateway.sessions.relay import Relay
from gateway.sessions.session import Session
from gateway.sessions.stalls import Stalls
from gateway.sessions.tcp_sample import TcpSample
from gateway.sessions.unix_leg import UnixLeg
from gateway.tcp import turn_away
from gateway.unix import UNIX_PEER, name_peer
from gateway.unwatched import NO_MEMORY


class Sessions:
    """All sessions of one worker. Single-threaded; every method returns at once.

    ``counters`` are exact to the byte after :meth:`count_bytes`; call it before reading them.
    ``on_end()``: a session is over, its place is free.
    ``on_dial_failed(endpoint, address, result, error)``: evidence for the master, but for the
    results ABANDONED, a hint that the endpoint is slow to answer, and LOCAL, which is about us.
    ``on_dial_succeeded(endpoint, address)``: a dial reached what the table does not trust;
    ``address`` is "" for the only one of an endpoint.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        poller: Poller,
        table: Table,
        counters: WorkerCounters,
        budget: DescriptorBudget,
        log: Log,
        *,
        settings: Settings,
        on_end: Callable[[], None],
        on_dial_failed: OnDialFailed,
        on_dial_succeeded: Callable[[str, str], None],
    ) -> None:
        self.counters = counters
        self.log = log
        self.settings = settings
        self.table = table
        self.poller = poller
        self.relay = Relay(poller, budget)
        self.dialer = Dialer(
            loop,
            poller,
            table,
            settings=settings,
            count=self.counters_of,
            budget=budget,
            on_failed=on_dial_failed,
        )
        self.stalls = Stalls(
            loop,
            lingering=Lingering(poller, budget),
            count_bytes=self.count_bytes,
            counted_at=lambda: self._counted_at,
            on_vanished=lambda leg: leg.session.vanished(leg),
        )
        self.call: Callable[[Session, bytes | None, float], Dial | None] = self.dialer.call
        self.headers_in = HeadersIn(loop, counters)
        self._open: Callable[[Session, bool], None] = Session.open
        self._rules_of: tuple[tuple[str, ...], ...] = ((), ())
        """What the rules for clients were made of."""
        self._choose_paths(settings)
        self._on_end = on_end
        self._on_dial_succeeded = on_dial_succeeded
        self._all: dict[Session, None] = {}
        self._counted_at = 0.0
        self._keepalive = Keepalive(loop, self._all, settings)
        self._idle_timeout = IdleTimeout(loop, self._all)
        self._cuts = ScheduledCuts(loop)
        self._age = SessionAge(loop, self._all, self._cuts)
        self._tcp_sample = TcpSample()
        self._due_ends = DueEnds(self._age, self._cuts)
        self._several: frozenset[str] = frozenset()
        """Endpoints with several addresses."""
        self._dropped: dict[str, EndpointCounters] = {}
        """Counters of endpoints that left, until a report without them was sent."""

    def __len__(self) -> int:
        return len(self._all)

    def all(self) -> Iterable[Session]:
        """Every session, the oldest first."""
        return self._all

    def serve(self, fd: int, peer: Any) -> None:
        """Take over an accepted, non-blocking client, also if it raises.

        ``peer`` is its socket address; that of a UNIX socket is UNIX_PEER.
        """
        unix = peer is UNIX_PEER
        try:
            if unix and self.settings.access_log:
                peer = name_peer(fd)
            known = peer if self.settings.access_log else None
            session = Session(self, fd, known, UnixLeg if unix else Leg)
            self._all[session] = None
        except Exception as error:
            turn_away(fd)
            if not isinstance(error, MemoryError):
                raise
            self.poller.unwatched.run_short(NO_MEMORY)
            return
        self.counters.sessions += 1
        try:
            self._open(session, not unix)
        except Exception as error:  # noqa: BLE001 - a session's boundary
            if isinstance(error, MemoryError):
                self.poller.unwatched.run_short(NO_MEMORY)
            session.crashed(error)

    def deny(self, fd: int, peer: Any) -> None:
        """Take over an accepted client that may not come, and close it at once."""
        try:
            session = Session(self, fd, peer)
            self._all[session] = None
        except Exception:
            turn_away(fd)
            raise
        self.counters.sessions += 1
        self.headers_in.deny(session)

    def apply(self, snapshot: Snapshot) -> None:
        """Act on a new snapshot; the caller has given it to the table already.

        Sessions of endpoints that are gone end with ``removed``, those of endpoints that turned
        inactive with ``inactive`` if the settings say so, those whose time on a draining endpoint
        is over with ``drained``, and those that are too old by now with ``age``.
        """
        self._choose_paths(snapshot.settings)
        self.settings = self._keepalive.settings = snapshot.settings
        self._due_ends.apply(snapshot)
        self.dialer.apply(snapshot)
        self._note_addresses(
            frozenset(each.name for each in snapshot.endpoints if len(each.addresses) > 1)
        )
        if self._due_ends.of_all is None:
            self._cuts.spread_over(snapshot.settings.close_spread_s)
        self._age.set(snapshot.settings.max_session_age_s)
        self._cuts.replace(list(self._due_ends.find(self._all)))
        self._idle_timeout.set(snapshot.settings.idle_timeout_s, snapshot.settings.close_spread_s)
        self.stalls.set(snapshot.settings.tcp_user_timeout_s, self._legs())

    def _legs(self) -> Iterator[Leg]:
        for session in self._all:
            yield session.client
            if session.upstream is not None:
                yield session.upstream

    def _choose_paths(self, settings: Settings) -> None:
        """Choose the path of new sessions here, so that what is off costs them nothing."""
        rules_of = (settings.allow, settings.proxy_in)
        if rules_of != self._rules_of:  # a thousand networks take 6 ms
            self._rules_of = rules_of
            self.headers_in.rules = ClientRules(*rules_of)
        self._open = self.headers_in.open if settings.proxy_in else Session.open
        self.call = self.dialer.call
        if settings.proxy_out != "off":
            self.call = HeadersOut(self.dialer, Version(settings.proxy_out)).call

    def _note_addresses(self, several: frozenset[str]) -> None:
        """Count by address what has several from now on; with one nothing is asked and counted."""
        began = several - self._several
        self._several = several
        for session in self._all if began else ():
            if session.endpoint in began:
                session.note_address()

    def give_up(self, names: Sequence[str], older_than_s: Sequence[float]) -> None:
        """Close the oldest idle session of each of these endpoints, if there is one of that age."""
        self._age.give_up(names, older_than_s)

    def cut_over(self, spread_s: float, end: End) -> None:
        """End every session, each at a moment of its own, the last one ``spread_s`` from now."""
        self._due_ends.of_all = end
        self._cuts.spread_over(spread_s)
        self._cuts.replace(list(self._due_ends.find(self._all)))

    def cut_all(self, end: End) -> None:
        """End every session now, with a reset on both sides."""
        for session in tuple(self._all):
            session.cut(end)

    def count_bytes(self) -> None:
        """Bring the counters up to date with the live sessions; before each reading.

        Costs 0.5 us for each session that moved bytes since the last call, nothing for the rest.
        """
        self._counted_at = monotonic()
        dirty = self.relay.dirty
        self._tcp_sample.take(dirty)
        for session in dirty:
            session.count_bytes()
        dirty.clear()

    def reported(self) -> None:
        """The counters were read: those of endpoints that left, and have no session, may go.

        They stay until they were read once more, or what they counted since the report before
        would be lost. They are kept aside until a report without them was sent, so that an
        endpoint that comes back meanwhile counts on from where it was: the reader could not tell
        that from counters that began anew.
        """
        self._dropped.clear()
        endpoints = self.counters.endpoints
        if self._due_ends.kept is not None:
            for name in endpoints.keys() - self._due_ends.kept:
                if endpoints[name].sessions == 0:
                    self._dropped[name] = endpoints.pop(name)

    def close(self) -> None:
        """Cut what is left and stop the timers."""
        self.cut_all(End.DRAINED)
        for part in (
            self._keepalive,
            self._idle_timeout,
            self._age,
            self._cuts,
            self.stalls,
            self.headers_in,
            self.dialer,
        ):
            part.close()
        self.relay.close()

    def counters_of(self, name: str) -> EndpointCounters:
        counters = self.counters.endpoints.get(name)
        if counters is None:
            counters = self._dropped.pop(name, None) or EndpointCounters()
            self.counters.endpoints[name] = counters
        return counters

    def established(self, session: Session, name: str) -> None:
        """The session reached the endpoint ``name``."""
        table = self.table
        table.session_started(name, session.address)
        if not table.is_trusted(name, session.address):
            self._reached_untrusted(session, name)
        self._keepalive.expect()

    def ended(self, session: Session, end: End) -> None:
        """The session is over: count it, log it, give its place away."""
        del self._all[session]
        self._cuts.forget(session)
        counters = self.counters
        counters.sessions -= 1
        reason = end._value_  # a third of the time that ``value`` takes
        counters.ended[reason] = counters.ended.get(reason, 0) + 1
        of_endpoint = session.counters
        if of_endpoint is not None:
            of_endpoint.ended[reason] = of_endpoint.ended.get(reason, 0) + 1
        duration_s = monotonic() - session.started_at
        counters.session_seconds.observe(duration_s)
        if not session.endpoint and (end is End.NO_ENDPOINT or end is End.DIAL_FAILED):
            counters.refused[reason] = counters.refused.get(reason, 0) + 1
        if self.settings.access_log:
            self.log.info("session", duration_s=round(duration_s, 6), **session.facts(), end=end)
        self._on_end()

    def _reached_untrusted(self, session: Session, name: str) -> None:
        """Tell the master; or cut the session, if the endpoint left while it was dialed."""
        end = self._due_ends.find_end_at(name)
        if end is not End.REMOVED:
            self.table.trust(name)
            self._on_dial_succeeded(name, session.address)
        if end is not None:
            self._cuts.add(session, end)
