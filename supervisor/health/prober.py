"""The one prober: keeps every endpoint's health, in the master, whatever the number of workers.

What it watches has one address: an endpoint, or a place of an endpoint that has several. Each has
one timer, set to the instant that its machine asks for. What workers report of dials and traffic is
evidence too.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping
from functools import partial
from typing import Any

from gateway.core.counters import DialResult
from gateway.core.endpoint import EndpointState
from gateway.core.log import Log
from supervisor.core.backoff import Draw
from supervisor.core.config import Config
from supervisor.core.discovery.endpoints import Discovered
from supervisor.core.health.active_endpoints import ActiveEndpoints
from supervisor.core.health.addresses import endpoint_of, is_place
from supervisor.core.health.clusters import Clusters
from supervisor.core.health.health_view import HealthView
from supervisor.core.health.host_failures import HostFailures
from supervisor.core.health.machine import Health, HealthChange
from supervisor.core.health.probing import Plan, ProbeKind, Result, Verdict, plan, rules
from supervisor.health.etcd_inquiry import EtcdMemory
from supervisor.health.health_log import HealthLog
from supervisor.health.lateness import Lateness, Mark
from supervisor.health.probe import Probe
from supervisor.health.probe_queue import ProbeQueue
from supervisor.health.watch import Watch
from supervisor.system.shared_tls import SharedTls
from supervisor.system.tls import TlsClient
from supervisor.system.tls_sessions import TlsSessions

LATE_PART = 0.25
"""A probe failed for nothing if the loop stood still for this part of its timeout."""

TOLERATED_PART = 0.025
"""Standstills up to this part of the timeout are ordinary work of ours and do not add up.

A probe takes ten steps at most; if each is late by so much, they are late by LATE_PART together.
"""

OnChange = Callable[[str, HealthView], None]


class Prober:
    """Owns its probes' sockets and tasks until :meth:`close`; needs the running loop.

    Names are those of endpoints, or of places (see ``core/health/addresses``).
    ``on_change(name, view)`` is called when one of them turned active or inactive; inside
    :meth:`dial_failed` and :meth:`dial_succeeded`, if these made it so. Of one of several addresses
    it also tells when this host turns out to have no way to it, or to have one after all.
    """

    def __init__(
        self,
        config: Config,
        log: Log,
        on_change: OnChange,
        *,
        wall: Callable[[], float] = time.time,
        shared_tls: SharedTls | None = None,
    ) -> None:
        self._config = config
        self._log = HealthLog(log)
        self._on_change = on_change
        self._draw: Draw = random.randrange
        self._wall = wall
        self._loop = asyncio.get_running_loop()
        self._watches: dict[str, Watch] = {}
        self._host_failures = HostFailures()
        self._active = ActiveEndpoints()
        self._clusters = Clusters()
        self._lateness = Lateness(self._loop)
        self._shared = shared_tls or SharedTls()
        self._sessions = TlsSessions()
        self.queue = ProbeQueue(self._loop)

    def set_endpoints(
        self, endpoints: Iterable[Discovered], *, retired: Collection[str] = ()
    ) -> None:
        """Watch exactly these. New ones start active; new and changed ones are probed at once.

        ``retired``: the endpoints that get no new sessions; they do not count among the active.
        """
        wanted = {found.name: found for found in endpoints}
        for name in self._watches.keys() - wanted.keys():
            self._forget(name)
        for name, found in wanted.items():
            watch = self._watches.get(name)
            if watch is None:
                self._watches[name] = watch = self._begin(found)
                self._arm(watch)
            elif watch.found is not found and watch.found != found:
                self._change(watch, found)
        states = {name: watch.counts_as_active for name, watch in self._watches.items()}
        self._active.replace(states, frozenset(retired))
        for watch in self._watches.values():
            self._note_cluster(watch)

    def remember(self, views: Mapping[str, HealthView]) -> None:
        """Go on from what an earlier master held of the endpoints that are watched."""
        now = self._loop.time()
        for name, view in views.items():
            watch = self._watches.get(name)
            if watch is None:
                continue
            watch.remember(view, now=now, wall=self._wall())
            if not view.active:
                watch.health.start_inactive(view.last_error or "unknown", now)
                self._note_state(watch)
                self._arm(watch)
                self._on_change(name, self._view(watch))

    def was_active_since(self, name: str, since: float) -> None:
        """It was watched in another form before, and was active then, too."""
        self._watches[name].since = since

    def reconfigure(self, config: Config) -> None:
        """New kind, intervals or files of probes; the endpoints keep their state."""
        self._config = config
        for watch in self._watches.values():
            self._change(watch, watch.found)

    def dial_failed(self, name: str, error: str, result: str = "") -> None:
        """A worker could not dial it.

        ``result`` is the DialResult. Local means that this host could not dial it, which is no
        evidence. Abandoned means slower than another endpoint or address: a hint, no evidence. A
        timeout says how it was when the dial began.
        """
        watch = self._watches.get(name)
        if watch is None:
            return
        now = self._loop.time()
        if result == DialResult.LOCAL:
            self._host_failed(name, error)
            if is_place(name) and not watch.probes:  # probes are off: make one of it
                watch.health.hint(now)
                self._arm(watch)
            return
        self._host_failures.reached(name)
        if result == DialResult.ABANDONED:
            watch.health.note(error, now)
            watch.health.hint(now)
            self._arm(watch)
            return
        ago_s = self._config.dial_timeout_s if result == DialResult.TIMEOUT else 0.0
        self._took(watch, watch.health.dial_failed(error, now, began_at=now - ago_s))

    def dial_succeeded(self, name: str) -> None:
        """A worker reached an endpoint that it held for inactive or suspect."""
        watch = self._watches.get(name)
        if watch is not None:
            change = watch.health.dial_succeeded(self._loop.time(), self._draw)
            self._took(watch, change)

    def take_traffic(self, name: str, *, sessions: int, dials: int, bytes_out: int) -> None:
        """What all workers together counted: sessions now, dials that connected, bytes answered.

        About once a second. The counters go back when a worker ends; that is no news.
        """
        watch = self._watches.get(name)
        if watch is None:
            return
        if dials > watch.dials:
            self._host_failures.reached(name)
        due_at = watch.health.next_probe_at
        watch.health.take_traffic(
            self._loop.time(),
            self._draw,
            sessions=sessions,
            dialed=dials > watch.dials,
            answered=bytes_out > watch.bytes_out,
        )
        watch.dials, watch.bytes_out = dials, bytes_out
        if watch.health.next_probe_at != due_at:
            self._arm(watch)

    def view(self, name: str) -> HealthView | None:
        """None for an endpoint that is not watched."""
        watch = self._watches.get(name)
        return None if watch is None else self._view(watch)

    def look_again(self) -> None:
        """The TLS files changed: probe soon whatever is inactive, it may have been for them."""
        for watch in self._watches.values():
            if watch.plan.secure is not False and not watch.health.active:
                watch.health.hint(self._loop.time())
                self._arm(watch)

    async def close(self) -> None:
        """Begin no more probes, and let those under way leave in order."""
        for name in list(self._watches):
            self._forget(name)
        await self.queue.close()

    def _begin(self, found: Discovered) -> Watch:
        how = plan(self._config, found)
        health = Health(rules(self._config, how.kind), self._loop.time())
        return Watch(found, how, health, self._wall())

    def _change(self, watch: Watch, found: Discovered) -> None:
        """Probe differently, and at once; weight and priority are nothing to probe for."""
        how = plan(self._config, found)
        new_rules = rules(self._config, how.kind)
        before = (watch.found.addresses, watch.found.port, watch.plan)
        elsewhere = before != (found.addresses, found.port, how)
        watch.found, watch.plan = found, how
        if elsewhere:
            watch.memory = EtcdMemory()
            watch.degraded = watch.degraded if how.kind is ProbeKind.ETCD else ""
        if elsewhere or watch.health.rules != new_rules:
            watch.health.follow(new_rules, self._loop.time())
            self._note_state(watch)
            self._arm(watch)

    def _forget(self, name: str) -> None:
        watch = self._watches.pop(name)
        self._log.forget(name)
        self._clusters.forget(name)
        self.queue.drop(name)
        self._host_failures.reached(name)
        if watch.timer is not None:
            watch.timer.cancel()

    def _arm(self, watch: Watch) -> None:
        """Set the timer to what the machine asks for."""
        if watch.timer is not None:
            watch.timer.cancel()
            watch.timer = None
        due_at = watch.health.next_probe_at
        if due_at < float("inf") and watch.found.name not in self.queue:
            watch.timer = self._loop.call_at(due_at, self._enqueue, watch)

    def _enqueue(self, watch: Watch) -> None:
        watch.timer = None
        if not watch.health.is_due(self._loop.time(), self._draw):
            self._arm(watch)
            return
        self.queue.put(watch.found.name, partial(self._begin_probe, watch))

    def _begin_probe(self, watch: Watch) -> Coroutine[Any, Any, None]:
        watch.health.probe_started()
        return self._probe(watch)

    async def _probe(self, watch: Watch) -> None:
        """One probe, from the connection to its end."""
        found, how = watch.found, watch.plan
        probe = Probe(
            found.addresses[0],
            found.port,
            how,
            self._shared.contexts,
            self._sessions,
            memory=watch.memory,
            on_handshake=lambda client: self._on_handshake(found, how, client),
        )
        mark = self._lateness.begin(TOLERATED_PART * self._config.health_timeout_s)
        began_at = self._loop.time()
        try:
            try:
                result = self._weigh(await probe.run(self._config.health_timeout_s), mark)
            except Exception as error:  # noqa: BLE001 (the boundary: a bug must not end probing)
                result = Result(Verdict.UNDECIDED, f"{type(error).__name__}: {error}")
            finally:
                self.queue.free()
                self._lateness.end(mark)
            if self._watches.get(found.name) is watch:
                self._note_cluster(watch)
                if watch.plan != how or watch.found.addresses != found.addresses:
                    self._probe_anew(watch)
                else:
                    self._judge(watch, result, self._loop.time() - began_at)
            self.queue.begin_due()
        finally:
            try:
                await probe.leave()  # one that is cut, too: etcd logs a handshake that breaks off
            finally:
                probe.close()

    def _on_handshake(self, found: Discovered, how: Plan, client: TlsClient) -> None:
        place = (endpoint_of(found.name), found.addresses[0], how.port or found.port)
        self._shared.certificates.take(place, client)

    def _weigh(self, result: Result, mark: Mark) -> Result:
        """A failure is no evidence if it was our loop that stood still meanwhile.

        A host that did not answer at all needs a long standstill for an excuse: that of a frozen
        host of ours. The kernel hears an answer by itself, however seldom our loop goes round.
        """
        if result.verdict is not Verdict.FAILED:
            return result
        watched = self._lateness
        late_s = watched.longest(mark) if result.unanswered else watched.since(mark)
        if late_s < LATE_PART * self._config.health_timeout_s:
            return result
        error = f"the gateway got no CPU for {late_s:.1f} s meanwhile ({result.error})"
        return Result(Verdict.UNDECIDED, error)

    def _probe_anew(self, watch: Watch) -> None:
        """The probe was of another address, or of another kind than is wanted by now."""
        now = self._loop.time()
        watch.health.probe_undecided(now, self._draw)
        watch.health.follow(watch.health.rules, now)
        watch.undecided = False
        self._took(watch, None)

    def _judge(self, watch: Watch, result: Result, took_s: float) -> None:
        now = self._loop.time()
        change = None
        undecided = result.verdict is Verdict.UNDECIDED
        watch.probes[result.verdict] += 1
        if not undecided:
            watch.durations.observe(took_s)
        match result.verdict:
            case Verdict.PASSED:
                change = watch.health.probe_passed(now, self._draw)
                disagreement = self._clusters.describe_disagreement(watch.found.name)
                self._note_degraded(watch, result.degraded or disagreement, now)
            case Verdict.FAILED:
                least = 0 if result.told else self._config.health_min_active
                keep = self._active.must_keep(watch.found.name, least)
                change = watch.health.probe_failed(result.error, now, self._draw, keep=keep)
            case Verdict.UNDECIDED:
                watch.health.probe_undecided(now, self._draw)
        told = result.cut_off or not undecided
        news = told and watch.note_reach(cut_off=result.cut_off)
        if result.cut_off:
            self._host_failed(watch.found.name, result.error, quiet=watch.unreached)
        elif not undecided:
            self._host_failures.reached(watch.found.name)
        if undecided and not watch.undecided:
            self._log.tell_undecided(watch.found.name, result.error)
        watch.undecided = undecided
        self._took(watch, change)
        if news and change is None:
            self._on_change(watch.found.name, self._view(watch))

    def _note_cluster(self, watch: Watch) -> None:
        found = watch.found
        if self._active.counts(found.name):
            self._clusters.note(found.name, found.priority, watch.memory.known.cluster_id)
        else:  # it leaves, as that of the former cluster does when DNS names another one
            self._clusters.forget(found.name)

    def _note_degraded(self, watch: Watch, reason: str, now: float) -> None:
        """The endpoint is healthy, and ``reason`` says what is wrong with it all the same."""
        if reason:
            watch.health.note(reason, now)
        if reason == watch.degraded:
            return
        watch.degraded = reason
        self._log.tell_degraded(watch.found.name, reason)

    def _host_failed(self, name: str, error: str, *, quiet: bool = False) -> None:
        if self._host_failures.failed(name, error, self._loop.time(), quiet=quiet):
            self._log.tell_host_failed(name, error)

    def _note_state(self, watch: Watch) -> None:
        """Keep the count of the active in step with the machine."""
        self._active.note(watch.found.name, watch.counts_as_active)
        self._log.tell_kept(watch.found.name, watch.health, self._active)

    def _took(self, watch: Watch, change: HealthChange | None) -> None:
        """After any evidence: set the timer, and tell what changed."""
        self._note_state(watch)
        self._arm(watch)
        if change is None:
            return
        watch.since = self._wall()
        name, health = watch.found.name, watch.health
        if change is HealthChange.ACTIVATED:
            watch.transitions[EndpointState.ACTIVE] += 1
            self._log.tell_activated(name)
        else:
            watch.transitions[EndpointState.INACTIVE] += 1
            self._log.tell_deactivated(name, health, self._loop.time())
        self._on_change(name, self._view(watch))

    def _view(self, watch: Watch) -> HealthView:
        now = self._loop.time()
        cut_off = self._host_failures.error_of(watch.found.name, now)
        return watch.view(now=now, wall=self._wall(), cut_off=cut_off)
