"""The health of all endpoints: the prober's verdicts on addresses, joined to those on endpoints."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace

from gateway.core.log import Log
from gateway.core.records import dataclass
from supervisor.core.config import Config
from supervisor.core.discovery.endpoints import Discovered
from supervisor.core.health.addresses import (
    add_counts,
    endpoint_of,
    inactive_addresses,
    is_active,
    is_place,
    joined,
    place_name,
    places,
)
from supervisor.core.health.health_view import HealthView
from supervisor.health.prober import Prober
from supervisor.system.shared_tls import SharedTls

NOTHING_COUNTED = HealthView(active=True, since=None)

OnChange = Callable[[str, bool, tuple[str, ...]], None]
"""Endpoint, whether it is active, and which of its several addresses are not."""


@dataclass(slots=True)
class _Several:
    """An endpoint with several addresses: the places that the prober watches for it."""

    found: Discovered
    places: tuple[Discovered, ...]
    since: float
    active: bool = True


class EndpointHealth:
    """Owns the prober. An endpoint with a single address costs nothing here.

    ``on_change`` is called when an endpoint, or one of its several addresses, turned active or
    inactive.
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
        self.prober = Prober(config, log, self._on_change, wall=wall, shared_tls=shared_tls)
        self._tell = on_change
        self._wall = wall
        self._several: dict[str, _Several] = {}
        self._past: dict[str, HealthView] = {}
        """By endpoint: what was counted at addresses that it has no more. Counters never fall."""

    def set_endpoints(
        self, endpoints: Iterable[Discovered], *, retired: Collection[str] = ()
    ) -> None:
        """Watch exactly these; ``retired`` get no new sessions and do not count as active.

        Other addresses of a known endpoint are judged anew, so what is held of it is told again.
        One that was active stays so, for as long as it has been.
        """
        before, self._several = self._several, {}
        watched: list[Discovered] = []
        readdressed: list[str] = []
        single_since: dict[str, float] = {}
        for found in endpoints:
            several = before.get(found.name)
            if len(found.addresses) > 1:
                several, others = self._spread(found, several)
                self._several[found.name] = several
                watched.extend(several.places)
                readdressed += [found.name] * others
                continue
            watched.append(found)
            if several is not None:
                readdressed.append(found.name)
                self._keep_counts(found.name, [place.name for place in several.places])
                if several.active:
                    single_since[found.name] = several.since
        if self._past:
            present = {endpoint_of(each.name) for each in watched}
            self._past = {name: each for name, each in self._past.items() if name in present}
        self.prober.set_endpoints(watched, retired=retired)
        for name, since in single_since.items():
            self.prober.was_active_since(name, since)
        for name in readdressed:
            self.tell(name)

    def _spread(self, found: Discovered, before: _Several | None) -> tuple[_Several, bool]:
        """The places of one that has several addresses; and whether it had others before."""
        if before is not None and before.found == found:
            return before, False
        if before is not None:
            gone = {place.name for place in before.places}
            before.found, before.places = found, places(found)
            self._keep_counts(found.name, gone - {place.name for place in before.places})
            return before, True
        several, view = _Several(found, places(found), self._wall()), self.prober.view(found.name)
        if view is None:
            return several, False
        if view.active and view.since is not None:
            several.since = view.since
        self._keep_counts(found.name, [found.name])
        return several, True

    def reconfigure(self, config: Config) -> None:
        """New kind, intervals or files of probes; the endpoints keep their state."""
        self.prober.reconfigure(config)

    def remember(self, views: Mapping[str, HealthView]) -> None:
        """Go on from what :meth:`export` gave in an earlier master."""
        self.prober.remember(views)
        for name, view in views.items():
            endpoint = endpoint_of(name)
            watched = endpoint in self._several or self.prober.view(endpoint) is not None
            if watched and self.prober.view(name) is None:
                self._add_past(endpoint, [view])
        for name, several in self._several.items():
            since = [each.since for each in self._views(several).values() if each.since is not None]
            if not several.active:
                several.since = max(since, default=several.since)  # the last one turned it inactive
            elif name in views:
                several.since = views[name].since or several.since

    def export(self, names: Iterable[str]) -> dict[str, HealthView]:
        """What is held of these endpoints, by what the prober watches, for the next master."""
        views: dict[str, HealthView] = {}
        for name in names:
            several = self._several.get(name)
            watched = [place.name for place in several.places] if several else [name]
            for each in watched:
                if (view := self.prober.view(each)) is not None:
                    views[each] = view
            if several is not None and several.active:
                views[name] = replace(NOTHING_COUNTED, since=several.since)
            if (past := self._past.get(name)) is not None:
                views[name] = add_counts(views.get(name, NOTHING_COUNTED), [past])
        return views

    def view(self, name: str) -> HealthView | None:
        """None for an endpoint that is not watched."""
        several = self._several.get(name)
        if several is None:
            view = self.prober.view(name)
        else:
            view = joined(self._views(several), several.since)
        past = self._past.get(name)
        return view if view is None or past is None else add_counts(view, [past])

    def address_views(self, name: str) -> dict[str, HealthView]:
        """By address; of an endpoint with one address it has that one."""
        several = self._several.get(name)
        return {} if several is None else self._views(several)

    def dial_failed(self, name: str, address: str, error: str, result: str = "") -> None:
        """A worker could not dial this address; see Prober."""
        self.prober.dial_failed(self._watched(name, address), error, result)

    def dial_succeeded(self, name: str, address: str) -> None:
        """A worker reached an endpoint or address that it held for inactive or suspect."""
        self.prober.dial_succeeded(self._watched(name, address))

    def take_traffic(
        self,
        name: str,
        *,
        sessions: int,
        dials: int,
        bytes_out: int,
        by_address: Mapping[str, int],
    ) -> None:
        """What all workers together counted; ``by_address``: sessions.

        Dials and bytes are not counted by address, so they prove nothing of one.
        """
        several = self._several.get(name)
        if several is None:
            self.prober.take_traffic(name, sessions=sessions, dials=dials, bytes_out=bytes_out)
            return
        for place in several.places:
            here = by_address.get(place.addresses[0], 0)
            self.prober.take_traffic(place.name, sessions=here, dials=0, bytes_out=0)

    async def close(self) -> None:
        await self.prober.close()

    def _keep_counts(self, name: str, gone: Iterable[str]) -> None:
        """The endpoint loses what is watched under these names; what was counted stays."""
        views = [view for each in gone if (view := self.prober.view(each)) is not None]
        if views:
            self._add_past(name, views)

    def _add_past(self, name: str, views: Iterable[HealthView]) -> None:
        self._past[name] = add_counts(self._past.get(name, NOTHING_COUNTED), views)

    def _watched(self, name: str, address: str) -> str:
        return place_name(name, address) if name in self._several else name

    def _views(self, several: _Several) -> dict[str, HealthView]:
        views = {place.addresses[0]: self.prober.view(place.name) for place in several.places}
        return {address: view for address, view in views.items() if view is not None}

    def _on_change(self, watched: str, view: HealthView) -> None:
        if not is_place(watched):
            self._tell(watched, view.active, ())
        elif (name := endpoint_of(watched)) in self._several:
            self.tell(name)

    def tell(self, name: str) -> None:
        """Call ``on_change`` with the judgement of an endpoint and its addresses as it is now."""
        several = self._several.get(name)
        if several is None:
            view = self.prober.view(name)
            self._tell(name, view is None or view.active, ())
            return
        views = self._views(several)
        active = is_active(views.values())
        if active != several.active:
            several.active, several.since = active, self._wall()
        self._tell(name, active, inactive_addresses(views))
