"""The master's probing in virtual time: the real machine of each endpoint or address."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING

from gateway.core.counters import DialResult
from supervisor.core.discovery.endpoints import Discovered
from supervisor.core.health.active_endpoints import ActiveEndpoints
from supervisor.core.health.addresses import (
    endpoint_of,
    inactive_addresses,
    joined,
    place_name,
    places,
)
from supervisor.core.health.health_view import HealthView
from supervisor.core.health.host_failures import HostFailures
from supervisor.core.health.machine import Health, HealthChange
from supervisor.core.health.probing import Plan, ProbeKind, Verdict, plan, rules
from tests.simulation.clock import Violation
from tests.simulation.network import RTT_S, Mode
from tests.simulation.oracles import HealthOracle, expected_keep

if TYPE_CHECKING:
    from tests.simulation.master import Master

LATE_PART = 0.25


class Watch:
    """One place under observation."""

    __slots__ = (
        "armed_at", "bytes_out", "dials", "found", "health", "oracle", "plan",
        "probes", "since", "transitions",
    )  # fmt: skip

    def __init__(self, found: Discovered, how: Plan, health: Health, since: float) -> None:
        self.found = found
        self.plan = how
        self.health = health
        self.since = since
        self.armed_at = math.inf
        self.dials = self.bytes_out = 0
        self.probes: Counter[str] = Counter()
        self.transitions: Counter[str] = Counter()
        self.oracle = HealthOracle(health)


class Prober:
    """Watches places; ``on_change`` gets endpoint, whether it is active, inactive addresses."""

    def __init__(
        self, master: Master, on_change: Callable[[str, bool, tuple[str, ...]], None]
    ) -> None:
        self._master = master
        self._world = master.world
        self._tell = on_change
        self._watches: dict[str, Watch] = {}
        self._several: dict[str, tuple[Discovered, ...]] = {}
        self._active = ActiveEndpoints()
        self._retired: frozenset[str] = frozenset()
        self._host_failures = HostFailures()

    def set_endpoints(self, found: Iterable[Discovered], retired: Collection[str]) -> None:
        before, self._several = self._several, {}
        wanted: dict[str, Discovered] = {}
        readdressed: list[str] = []
        for each in found:
            parts = places(each)
            known = before.get(each.name) or ((each,) if each.name in self._watches else ())
            if known and {p.name for p in known} != {p.name for p in parts}:
                readdressed.append(parts[0].name)
            if len(parts) > 1:
                self._several[each.name] = parts
            wanted.update((part.name, part) for part in parts)
        for name in self._watches.keys() - wanted.keys():
            del self._watches[name]
        now = self._world.clock.now
        config = self._master.config
        for name, part in wanted.items():
            watch = self._watches.get(name)
            if watch is None:
                how = plan(config, part)
                health = Health(rules(config, how.kind), now)
                watch = self._watches[name] = Watch(part, how, health, self._world.wall())
                self._arm(watch)
            elif watch.found != part:
                self._change(watch, part)
        states = {name: watch.health.active for name, watch in self._watches.items()}
        self._retired = frozenset(retired)
        self._active.replace(states, self._retired)
        for name in readdressed:
            self._tell_place(self._watches[name])

    def reconfigure(self) -> None:
        for watch in self._watches.values():
            self._change(watch, watch.found)

    def _change(self, watch: Watch, found: Discovered) -> None:
        how = plan(self._master.config, found)
        new = rules(self._master.config, how.kind)
        before = (watch.found.addresses, watch.found.port, watch.plan, watch.health.rules)
        watch.found = found
        if (found.addresses, found.port, how, new) != before:
            watch.plan = how
            watch.health.follow(new, self._world.clock.now)
            watch.oracle.followed()
            self._arm(watch)

    # -- evidence -----------------------------------------------------------------------------

    def dial_failed(self, name: str, address: str, result: str) -> None:
        watch = self._watches.get(self._watched(name, address))
        if watch is None:
            return
        now = self._world.clock.now
        self._host_failures.reached(watch.found.name)
        if result == DialResult.ABANDONED:
            watch.health.note("slow", now)
            watch.health.hint(now)
            self._arm(watch)
            return
        ago_s = self._master.config.dial_timeout_s if result == DialResult.TIMEOUT else 0.0
        before = watch.health.active
        change = watch.health.dial_failed(result, now, began_at=now - ago_s)
        watch.oracle.dial_failed(now - ago_s, was_active=before)
        self._took(watch, change)

    def dial_succeeded(self, name: str, address: str) -> None:
        watch = self._watches.get(self._watched(name, address))
        if watch is not None:
            now = self._world.clock.now
            change = watch.health.dial_succeeded(now, self._world.randrange)
            watch.oracle.dial_succeeded(now)
            self._took(watch, change)

    def take_traffic(
        self, name: str, sessions: int, dials: int, bytes_out: int, by_address: Mapping[str, int]
    ) -> None:
        now = self._world.clock.now
        for part in self._several.get(name, ()):
            here = by_address.get(part.addresses[0], 0)
            self._traffic(self._watches[part.name], now, here, 0, 0)
        watch = self._watches.get(name)
        if watch is not None:
            self._traffic(watch, now, sessions, dials, bytes_out)

    def _traffic(self, watch: Watch, now: float, sessions: int, dials: int, sent: int) -> None:
        due_at = watch.health.next_probe_at
        watch.health.take_traffic(
            now,
            self._world.randrange,
            sessions=sessions,
            dialed=dials > watch.dials,
            answered=sent > watch.bytes_out,
        )
        watch.dials, watch.bytes_out = dials, sent
        if watch.health.next_probe_at != due_at:
            self._arm(watch)

    # -- probes -------------------------------------------------------------------------------

    def _arm(self, watch: Watch) -> None:
        due_at = watch.health.next_probe_at
        if due_at < math.inf and due_at != watch.armed_at:
            watch.armed_at = due_at
            self._master.at(due_at, self._probe, watch, due_at)

    def _probe(self, watch: Watch, due_at: float) -> None:
        health = watch.health
        if self._watches.get(watch.found.name) is not watch or health.next_probe_at != due_at:
            return
        watch.armed_at = math.inf
        if not health.is_due(self._world.clock.now, self._world.randrange):
            self._arm(watch)
            return
        watch.oracle.probe_started()
        health.probe_started()
        mode = self._world.network.modes[watch.found.addresses[0]]
        timeout_s = self._master.config.health_timeout_s
        wait_s = timeout_s if mode is Mode.SILENT else RTT_S * 2
        end_at = self._world.clock.now + wait_s
        self._master.at(end_at, self._judge, watch, watch.plan, watch.found.addresses, mode, end_at)

    def _judge(
        self, watch: Watch, how: Plan, addresses: tuple[str, ...], mode: Mode, end_at: float
    ) -> None:
        if self._watches.get(watch.found.name) is not watch:
            return
        now = self._world.clock.now
        health, draw = watch.health, self._world.randrange
        moved = watch.plan != how or watch.found.addresses != addresses
        failed = mode in (Mode.SILENT, Mode.REFUSING) or (
            mode is Mode.SICK and how.kind is not ProbeKind.TCP
        )
        late = now - end_at >= LATE_PART * self._master.config.health_timeout_s
        undecided = moved or now < self._world.no_sockets_until or (failed and late)
        change = None
        if undecided:
            health.probe_undecided(now, draw)
            watch.oracle.probe_undecided()
            if moved:
                health.follow(health.rules, now)
                watch.oracle.followed()
        elif failed:
            keep = self._active.must_keep(watch.found.name, self._master.config.health_min_active)
            self._check_keep(watch, keep)
            change = health.probe_failed("failed", now, draw, keep=keep)
            watch.oracle.probe_failed(now, keep)
        else:
            change = health.probe_passed(now, draw)
            watch.oracle.probe_passed(now)
        if not moved:
            watch.probes[Verdict.UNDECIDED if undecided else
                         Verdict.FAILED if failed else Verdict.PASSED] += 1  # fmt: skip
        self._took(watch, change)

    def _took(self, watch: Watch, change: HealthChange | None) -> None:
        self._active.note(watch.found.name, watch.health.active)
        self._arm(watch)
        watch.oracle.check(self._world.clock.now, change)
        if change is None:
            return
        watch.since = self._world.wall()
        watch.transitions["active" if watch.health.active else "inactive"] += 1
        name = endpoint_of(watch.found.name)
        if name == watch.found.name:
            self._tell(name, watch.health.active, ())
        else:
            views = self.address_views(name)
            active = any(view.active for view in views.values())
            self._tell(name, active, inactive_addresses(views))

    def _check_keep(self, watch: Watch, keep: bool) -> None:
        states = {name: each.health.active for name, each in self._watches.items()}
        percent = self._master.config.health_min_active
        if expected_keep(states, self._retired, watch.found.name, percent) is not keep:
            raise Violation("--health-min-active", f"keep is {keep} with {states}")

    # -- views --------------------------------------------------------------------------------

    def view(self, name: str) -> HealthView | None:
        if name in self._several:
            return joined(self.address_views(name), 0.0)
        return self.watched_view(name)

    def watched_view(self, watched: str) -> HealthView | None:
        watch = self._watches.get(watched)
        return None if watch is None else self._view(watch)

    def address_views(self, name: str) -> dict[str, HealthView]:
        return {
            part.addresses[0]: self._view(self._watches[part.name])
            for part in self._several.get(name, ())
            if part.name in self._watches
        }

    def _view(self, watch: Watch) -> HealthView:
        health = watch.health
        return HealthView(
            active=health.active,
            since=watch.since,
            last_error=health.last_error,
            probe_failures=watch.probes[Verdict.FAILED],
            probes=dict(watch.probes),
            transitions=dict(watch.transitions),
            hold_s=health.hold_s(self._world.clock.now),
            flaps=health.damping.flaps,
            kept=health.kept,
        )

    def export(self, names: Iterable[str]) -> dict[str, HealthView]:
        wanted = frozenset(names)
        return {
            name: self._view(watch)
            for name, watch in self._watches.items()
            if endpoint_of(name) in wanted
        }

    def remember(self, views: Mapping[str, HealthView]) -> None:
        """As ``supervisor.health.prober`` does: what was inactive is inactive."""
        for name, view in views.items():
            watch = self._watches.get(name)
            if watch is None:
                continue
            watch.probes = Counter(view.probes)
            watch.transitions = Counter(view.transitions)
            watch.health.last_error = view.last_error
            now = self._world.clock.now
            if view.since is not None and view.transitions:
                unchanged_s = max(0.0, self._world.wall() - view.since)
                watch.health.resume_damping(view.flaps, view.hold_s, unchanged_s, now)
            if not view.active:
                watch.health.start_inactive(view.last_error or "unknown", now)
                watch.oracle = HealthOracle(watch.health, since=now)
                self._active.note(name, watch.health.active)
                self._arm(watch)
                self._tell_place(watch)

    def _tell_place(self, watch: Watch) -> None:
        self.tell(endpoint_of(watch.found.name))

    def tell(self, name: str) -> None:
        if name not in self._several:
            self._tell(name, self._watches[name].health.active, ())
            return
        views = self.address_views(name)
        self._tell(name, any(v.active for v in views.values()), inactive_addresses(views))

    def _watched(self, name: str, address: str) -> str:
        return place_name(name, address) if name in self._several else name
