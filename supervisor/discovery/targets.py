"""The targets of a configuration, resolved: ask what is due, join the answers, check TLS.

The decisions are made in ``core``; this module asks the questions and passes the answers on.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Mapping, Sequence

from gateway.core.address import Address
from supervisor.core.config import Config
from supervisor.core.discovery import endpoints, joining, targets
from supervisor.core.discovery.address_order import order_families
from supervisor.core.discovery.adoption import AdoptedList
from supervisor.core.discovery.answers import Entry
from supervisor.core.discovery.endpoints import Discovered, Findings
from supervisor.core.discovery.explanation import Branch, Story
from supervisor.core.discovery.loop_guard import without_own
from supervisor.core.discovery.questions import Outcome, Question
from supervisor.core.discovery.resolution import Resolution, judge_dns
from supervisor.discovery.asker import Asker
from supervisor.discovery.local_addresses import has_route, is_local, is_same_socket
from supervisor.discovery.means import Means
from supervisor.discovery.tls_admission import TlsAdmission

Publish = Callable[[Resolution], None]


class BadTargetError(Exception):
    """A target that can never work as configured; the text names the flag (exit code 2)."""


class Targets:
    """Resolves the targets of one configuration, again and again.

    ``before`` is the Targets of the configuration before: what it knows of DNS and of TLS is kept
    where it still holds. ``traced``: keep the steps for :meth:`explain`.
    Raises BadTargetError if a file that the TLS check needs cannot be used.
    """

    def __init__(
        self,
        config: Config,
        listen: tuple[Address, ...],
        means: Means,
        *,
        before: Targets | None = None,
        traced: bool = False,
    ) -> None:
        self.config = config
        self._listen = listen
        self._log = means.log
        self._owners = targets.owners(config)
        self._adopted: AdoptedList | None = None
        self._asker: Asker = Asker(
            config, means, traced=traced, before=before._asker if before else None
        )
        self._answers = self._asker.answers
        try:
            self._tls: TlsAdmission = TlsAdmission(
                config, means, before=before._tls if before else None
            )
        except ValueError as error:
            raise BadTargetError(str(error)) from None
        self._discovered: list[str] = before._discovered if before else []
        self._in_use: tuple[Question, ...] = ()
        """What the last resolution needed; nothing else is asked again when its time comes."""

    def remember(
        self, found: Sequence[Discovered], adopted: AdoptedList | None, *, same_check: bool
    ) -> None:
        """Begin with what a former master had in use: it stays until DNS and TLS say otherwise.

        ``same_check``: it has passed the TLS check that this configuration asks for.
        """
        hosts = adopted.addresses if adopted else {}
        self._answers.remember(found, asyncio.get_running_loop().time(), hosts=hosts)
        if same_check:
            self._tls.remember(found)

    def tell(self, adopted: AdoptedList) -> AdoptedList:
        """The list as the next master is to have it."""
        return joining.with_addresses(adopted, self._answers.lookup)

    def learn_from(self, tried: Targets) -> bool:
        """Take over what the TLS check of a configuration that was not taken found, if it is the
        same check. Whether it is."""
        return self._tls.learn_from(tried._tls)

    @property
    def searched(self) -> frozenset[str]:
        """The hosts that the last resolution needed and for which the search list counts."""
        return self._answers.searched

    def next_at(self) -> float:
        """When the next question or TLS check is due; infinity if none ever is."""
        return min(self._answers.next_at(self._in_use), self._tls.next_at())

    def check_again(self) -> None:
        """The files of the TLS check changed: check now who did not pass with those before."""
        self._tls.check_again()

    async def close(self) -> None:
        """Let the TLS checks under way end in order; begin no more."""
        await self._tls.close()

    async def pause(self) -> None:
        """Let the TLS checks under way end in order; begin no more until :meth:`resume`."""
        await self._tls.pause()

    def resume(self) -> None:
        """Go on with the checks that wait."""
        self._tls.resume()

    async def resolve(
        self,
        *,
        force: bool,
        recheck: bool = False,
        publish: Publish | None = None,
        adopted: AdoptedList | None = None,
    ) -> Resolution:
        """Ask what is due, or everything if ``force`` is true, and return what follows from it.

        ``recheck``: check the TLS of every endpoint again, however fresh its check is.
        ``publish`` gets the endpoints found so far if the rest takes longer than EARLY_S.
        ``adopted``: the member list to follow.
        """
        self._adopted = adopted
        owners = [owner.question for owner in self._owners]
        before = self._answers.entries(owners)
        asked_owners = await self._asker.ask(owners, force=force)
        listed = joining.member_questions(adopted)
        hosts = (*endpoints.hosts_to_look_up(self._owners, self._answers.lookup), *listed)
        result, asked_hosts = await self._resolve_srv(
            hosts,
            before,
            force=force,
            recheck=recheck,
            renewed=bool(asked_owners),
            publish=publish,
        )
        hosts = (*endpoints.hosts_to_look_up(self._owners, self._answers.lookup), *listed)
        self._in_use = (*owners, *hosts)
        statics: tuple[Question, ...] = ()
        if self._uses_static_list():
            statics = (*targets.static_questions(self.config), *listed)
            if not result.seeds:
                self._in_use += statics
                result, asked = await self._resolve_static(statics, result, force, publish)
                asked_hosts += asked
        self._answers.keep({*owners, *hosts, *statics})
        asked_any = bool(asked_owners or asked_hosts)
        dns = judge_dns(self._in_use, self._answers.trusted, asked=asked_any)
        result = dataclasses.replace(result, stale=self._answers.errors(self._in_use), dns=dns)
        return joining.follow(result, adopted)

    async def look_up(self, question: Question) -> Outcome:
        """What DNS says now, whatever was asked before."""
        return await self._asker.look_up(question)

    @property
    def may_refresh(self) -> bool:
        """Whether there is something to ask DNS again and again for."""
        listed = joining.member_questions(self._adopted)
        asks = self._owners or targets.static_questions(self.config) or listed
        return bool(asks) and self.config.discovery_refresh != "off"

    def explain(
        self, resolution: Resolution, dialed: Mapping[str, Mapping[str, str]]
    ) -> tuple[Branch, ...]:
        """The chain from each target to its addresses; ``traced`` must have been true.

        ``dialed``: by endpoint name, its addresses with what dialing them gave.
        """
        steps = self._asker.steps or {}
        return Story(self.config, self._answers.lookup, steps, resolution, dialed).tell()

    def _uses_static_list(self) -> bool:
        """Whether --endpoints is the only target, or the fallback that the operator asked for."""
        return not self._owners or self.config.endpoints_given

    async def _resolve_srv(
        self,
        hosts: Sequence[Question],
        before: Mapping[Question, Entry],
        *,
        force: bool,
        recheck: bool,
        renewed: bool,
        publish: Publish | None,
    ) -> tuple[Resolution, list[Question]]:
        """The endpoints of the SRV records that may be used, and the hosts that were asked for.

        ``before``: what was held of the records before they were asked for. ``renewed``: they were
        asked for just now.
        """
        if not self._tls.required:
            asked = await self._asker.ask(
                hosts, force=force, late=lambda: self._publish(self._find_srv(), publish)
            )
            self._asker.leave_dead_end(self._owners, before)
            return self._find_srv(), asked
        asked = await self._asker.ask(hosts, force=force)
        self._asker.leave_dead_end(self._owners, before)
        result = await self._tls.check(
            joining.without_doubles(self._find_srv(), self._adopted),
            everything=recheck,
            renewed=renewed,
            late=lambda admitted: self._publish(admitted, publish),
        )
        return result, asked

    async def _resolve_static(
        self,
        statics: Sequence[Question],
        by_srv: Resolution,
        force: bool,
        publish: Publish | None,
    ) -> tuple[Resolution, list[Question]]:
        """The endpoints of the static list, and the hosts that were asked for."""
        asked = await self._asker.ask(
            statics, force=force, late=lambda: self._publish(self._find_static(by_srv), publish)
        )
        return self._find_static(by_srv), asked

    def _find_srv(self) -> Resolution:
        """What the SRV records held now name, without ourselves; before the TLS check."""
        found = endpoints.find_srv(self._owners, self._answers.lookup)
        self._log_discovered(found.endpoints)
        joined = self._join(found, srv=True)
        return self._without_own(
            Resolution(joined.endpoints, joined.problems, srv=True, absent=joined.absent)
        )

    def _find_static(self, by_srv: Resolution) -> Resolution:
        """The static list, without ourselves; with what was wrong with the SRV records."""
        found = self._join(endpoints.find_static(self.config, self._answers.lookup), srv=False)
        static = self._without_own(Resolution(found.endpoints, found.problems, absent=found.absent))
        return dataclasses.replace(
            static,
            problems=by_srv.problems + static.problems,
            refused=by_srv.refused | static.refused,
            waiting=by_srv.waiting,
        )

    def _join(self, seeds: Findings, *, srv: bool) -> Findings:
        return joining.join(seeds, self._adopted, self._answers.lookup, srv=srv)

    def _publish(self, result: Resolution, publish: Publish | None) -> None:
        """Publish endpoints that may be used while others are not known yet.

        A static endpoint that is ourselves may fail the resolution: nothing is used before that.
        """
        if publish is not None and result.endpoints and not result.names_itself:
            publish(joining.follow(result, self._adopted))

    def _log_discovered(self, found: tuple[Discovered, ...]) -> None:
        """Log what DNS says, before the TLS check; once for each different answer."""
        names = [endpoint.name for endpoint in found]
        if self._log is None or not names or names == self._discovered:
            return
        self._discovered = names
        srv = self.config.discovery_srv
        self._log.info("discovered cluster from SRV", srv=srv, endpoints=names)
        if self._tls.required:
            self._log.info("validating discovered SRV endpoints", srv=srv, endpoints=names)

    def _without_own(self, result: Resolution) -> Resolution:
        """Leave out our own listen addresses, and put the family first that is preferred here."""
        kept, loops, member_loops = [], dict(result.loops), dict(result.member_loops)
        for endpoint in result.endpoints:
            left, hit = without_own(endpoint, self._listen, is_local, is_same_socket)
            if left is not None:
                addresses = order_families(left.addresses, has_route)
                kept.append(dataclasses.replace(left, addresses=addresses))
            if hit is not None:
                (member_loops if endpoint.listed else loops)[endpoint.name] = str(hit)
        taken = tuple(kept)
        return dataclasses.replace(
            result, endpoints=taken, found=taken, loops=loops, member_loops=member_loops
        )
