"""What discovery makes known: endpoints that changed, and lines of the log that say why."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

from gateway.core.log import Log
from supervisor.core.admin.views import DiscoveryView
from supervisor.core.config import Config
from supervisor.core.discovery.adoption import AdoptedList
from supervisor.core.discovery.endpoints import Discovered, EndpointsChange, Source, compare
from supervisor.core.discovery.resolution import DnsResult, Resolution
from supervisor.core.discovery.tally import Tally

WARN_S = 30.0
"""A gateway that waits for its first answer logs a warning this often."""

WAITING_TEXT = "no endpoint found yet, trying again"
STAYING = "discovery failed, endpoints stay as they were"

OnFound = Callable[[tuple[Discovered, ...]], None]


class Publication:
    """Calls ``on_found`` with the endpoints when they changed, and counts the resolutions.

    ``on_list`` is called when another member list is followed and no endpoint changed. ``wall``
    gives seconds since the epoch.
    """

    def __init__(
        self,
        log: Log,
        *,
        on_found: OnFound,
        on_list: Callable[[], None],
        wall: Callable[[], float],
    ) -> None:
        self.last = Resolution()
        """The newest resolution."""
        self.last_success_at: float | None = None
        """When every name in use was last answered, in seconds since the epoch."""
        self.tally = Tally()
        self._log = log
        self._on_found = on_found
        self._on_list = on_list
        self._wall = wall
        self._found: tuple[Discovered, ...] = ()
        self._joined: AdoptedList | None = None
        """The member list that the last published endpoints follow."""
        self._warned = ("", -math.inf)

    @property
    def any_in_use(self) -> bool:
        """Whether there are endpoints, be they those of the image before us."""
        return bool(self._found)

    def remember(
        self,
        view: DiscoveryView,
        adopted: AdoptedList | None,
        found: tuple[Discovered, ...],
        *,
        source: Source,
    ) -> None:
        """Go on with what the image before us counted, and with the endpoints that it had."""
        self._joined = adopted
        self._found = found
        self.tally.restore(view.by_source, view.results, source)
        self.last_success_at = view.last_success_at

    def publish(
        self,
        config: Config,
        result: Resolution,
        *,
        adopted: AdoptedList | None,
        first: bool,
        keep: bool = False,
    ) -> bool:
        """Make a result known; whether it changed an endpoint, or is the first with endpoints.

        ``config`` has the targets that were resolved. ``adopted``: the member list that the result
        follows. ``first``: none with endpoints was made known before. ``keep``: the endpoints of
        the image before us stay, whatever the result.
        """
        targets = source_of(config)
        self._count(result, targets)
        self._log_problems(result)
        self.last = result
        before, self._found = self._found, self._found if keep else result.endpoints
        list_before, self._joined = self._joined, adopted
        change = compare(before, self._found)
        if not change and not (first and result.endpoints):
            if self._joined != list_before:
                self._on_list()
            return False
        by_list = self._joined is not None and self._joined != list_before
        source = Source.MEMBERS if by_list else targets
        self._log_change(config, result, change, source, first=not before and first)
        self._on_found(self._found)
        return True

    def warn_of_waiting(self, error: str, *, staying: bool) -> None:
        """Log that nothing was found yet: at once if the reason is new, else every WARN_S.

        ``staying``: endpoints of an earlier image are in use meanwhile.
        """
        now = asyncio.get_running_loop().time()
        if self._warned[0] != error or now - self._warned[1] >= WARN_S:
            self._warned = (error, now)
            if staying:
                self._log.error(STAYING, error=error)
            else:
                self._log.warn(WAITING_TEXT, error=error)

    def _count(self, result: Resolution, targets: Source) -> None:
        if result.dns in (DnsResult.SUCCESS, DnsResult.FAILURE):
            self.tally.add(targets, result.dns.value)
        first = result.dns is DnsResult.NO_NAMES and self.last_success_at is None
        if result.dns is DnsResult.SUCCESS or (first and result.endpoints):
            self.last_success_at = self._wall()

    def _log_problems(self, result: Resolution) -> None:
        """Log what is wrong with a result and was not with the one before."""
        left_out, partly_used = self.last.left_out, self.last.partly_used
        for name, reason in result.left_out.items():
            if left_out.get(name) != reason:
                self._log.warn("endpoint left out", endpoint=name, reason=reason)
        for name, reason in result.partly_used.items():
            if partly_used.get(name) != reason:
                self._log.warn("address left out", endpoint=name, reason=reason)
        if result.incomplete and result.incomplete != self.last.incomplete and result.endpoints:
            self._log.warn("discovery incomplete", error=result.incomplete)

    def _log_change(
        self,
        config: Config,
        result: Resolution,
        change: EndpointsChange,
        source: Source,
        *,
        first: bool,
    ) -> None:
        srv = config.discovery_srv
        names = [endpoint.name for endpoint in result.seeds]
        if result.srv and names and not config.insecure_discovery:
            self._log.info("using validated discovered SRV endpoints", srv=srv, endpoints=names)
        if srv and not result.srv and names:
            self._log.warn("using --endpoints instead of SRV", srv=srv, endpoints=names)
        if change and not first:
            self._log.info(
                "endpoints changed",
                added=change.added,
                removed=change.removed,
                changed=change.changed,
                source=source.value,
            )


def source_of(config: Config) -> Source:
    """Of which kind the targets are."""
    return Source.SRV if config.discovery_srv else Source.FLAG
