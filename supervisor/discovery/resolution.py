"""One resolution: ask what is due, join the answers, leave out ourselves, check TLS.

The decisions are made in ``core``; this module asks the questions and passes the answers on.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import random
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from gateway.core.address import Address
from gateway.core.log import Log
from supervisor.core.backoff import Draw
from supervisor.core.config import Config
from supervisor.core.discovery import endpoints as discovery
from supervisor.core.discovery import joining
from supervisor.core.discovery.address_order import order_families
from supervisor.core.discovery.admission import Admission, Candidate
from supervisor.core.discovery.adoption import AdoptedList
from supervisor.core.discovery.answers import CONFIRM_S, Answers, Refresh
from supervisor.core.discovery.endpoints import Discovered, Findings, Outcome, Question
from supervisor.core.discovery.explanation import Branch, Story
from supervisor.core.discovery.loop_guard import without_own
from supervisor.core.discovery.resolution import Resolution, judge_dns
from supervisor.core.discovery.system_names import Files
from supervisor.core.discovery.trace import Step
from supervisor.discovery.local_addresses import has_route, is_local, is_same_socket
from supervisor.discovery.tls_gate import Gate
from supervisor.system.certificate_watch import CertificateWatch
from supervisor.system.tls import TlsContexts

if TYPE_CHECKING:
    from supervisor.discovery.resolver import Resolver

EARLY_S = 0.5
"""Endpoints that may be used are published after this time at the latest, though other names are
still being looked up, or the TLS of other endpoints is still being checked."""

MAX_QUESTIONS = 64
"""Questions under way at once. A dead nameserver costs each question its time, but starting the
questions of thousands of targets together stops the loop for half a second."""

Publish = Callable[[Resolution], None]


class BadTargetError(Exception):
    """A target that can never work as configured; the text names the flag (exit code 2)."""


UNLIMITED = 1 << 30


class Targets:
    """Resolves the targets of one configuration, again and again.

    ``before`` is the Targets of the configuration before: what it knows of DNS and of TLS is kept
    where it still holds. ``traced``: keep the steps for :meth:`explain`. ``max_lookups`` and
    ``max_handshakes``: for how many at once there are descriptors. ``contexts`` and
    ``certificates``: see Gate.
    Raises BadTargetError if a file that the TLS check needs cannot be used.
    """

    def __init__(
        self,
        config: Config,
        listen: tuple[Address, ...],
        *,
        log: Log | None = None,
        before: Targets | None = None,
        files: Files | None = None,
        draw: Draw = random.randrange,
        traced: bool = False,
        max_lookups: int = UNLIMITED,
        max_handshakes: int = UNLIMITED,
        contexts: TlsContexts | None = None,
        certificates: CertificateWatch | None = None,
    ) -> None:
        self.config = config
        self._max_lookups = max_lookups
        self._max_handshakes = max_handshakes
        self._steps: dict[Question, tuple[Step, ...]] | None = {} if traced else None
        self._contexts = contexts
        self._certificates = certificates
        self._listen = listen
        self._log = log
        self._files = files or Files()
        self._draw = draw
        self._owners = discovery.owners(config)
        self._refresh = Refresh(
            config.discovery_refresh,
            config.discovery_refresh_s,
            confirm_s=config.removal_grace_s or CONFIRM_S,
        )
        self._adopted: AdoptedList | None = None
        self._answers: Answers = before._answers.copy() if before else Answers()
        self._gate = self._make_gate()
        self._admission: Admission = Admission()
        if before is not None and _gate_key(before.config) == _gate_key(config):
            self._admission = before._admission.copy()
        self._resolver: Resolver | None = None
        self._resolver_stamp: object = None
        if before is not None and before.config.nameserver == config.nameserver:
            self._resolver = before._resolver
            self._resolver_stamp = before._resolver_stamp
        self._discovered: list[str] = before._discovered if before else []
        self._in_use: tuple[Question, ...] = ()
        """What the last resolution needed; nothing else is asked again when its time comes."""

    def remember(self, found: Sequence[Discovered]) -> None:
        """Begin with what a former master had in use: it stays until DNS and TLS say otherwise."""
        now = asyncio.get_running_loop().time()
        self._answers.remember(found, now)
        self._admission.remember(found, now)

    def next_at(self) -> float:
        """When the next question or TLS check is due; infinity if none ever is."""
        return min(self._answers.next_at(self._in_use), self._admission.next_at())

    def check_again(self) -> None:
        """The files of the TLS check changed: check now who did not pass with those before."""
        self._admission.hurry(asyncio.get_running_loop().time())

    async def close(self) -> None:
        """Let the TLS checks under way end in order; begin no more."""
        if self._gate is not None:
            await self._gate.close()

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
        asked_owners = await self._ask(owners, force)
        listed = joining.member_questions(adopted)
        hosts = (*discovery.targets(self._owners, self._answers.lookup), *listed)
        result, asked_hosts = await self._resolve_srv(
            hosts, force=force, recheck=recheck, renewed=bool(asked_owners), publish=publish
        )
        self._in_use = (*owners, *hosts)
        statics: tuple[Question, ...] = ()
        if self._uses_static_list():
            statics = (*discovery.static_questions(self.config), *listed)
            if not result.seeds:
                self._in_use += statics
                result, asked = await self._resolve_static(statics, result, force, publish)
                asked_hosts += asked
        self._answers.keep({*owners, *hosts, *statics})
        dns = judge_dns(asked_owners, asked_hosts, self._answers.trusted)
        return self._chosen(dataclasses.replace(result, stale=self._answers.errors(), dns=dns))

    async def look_up(self, question: Question) -> Outcome:
        """What DNS says now, whatever was asked before."""
        return (await self._current_resolver().look_up(question)).outcome

    @property
    def may_refresh(self) -> bool:
        """Whether there is something to ask DNS again and again for."""
        asks = self._owners or discovery.static_questions(self.config)
        return bool(asks) and self.config.discovery_refresh != "off"

    def explain(
        self, resolution: Resolution, dialed: Mapping[str, Mapping[str, str]]
    ) -> tuple[Branch, ...]:
        """The chain from each target to its addresses; ``traced`` must have been true.

        ``dialed``: by endpoint name, its addresses with what dialing them gave.
        """
        steps = self._steps or {}
        return Story(self.config, self._answers.lookup, steps, resolution, dialed).tell()

    def _uses_static_list(self) -> bool:
        """Whether --endpoints is the only target, or the fallback that the operator asked for."""
        return not self._owners or self.config.endpoints_given

    async def _resolve_srv(
        self,
        hosts: Sequence[Question],
        *,
        force: bool,
        recheck: bool,
        renewed: bool,
        publish: Publish | None,
    ) -> tuple[Resolution, list[Question]]:
        """The endpoints of the SRV records that may be used, and the hosts that were asked for.

        ``renewed``: the SRV records were asked for just now.
        """
        gate = self._gate
        if gate is None:
            asked = await self._ask(
                hosts, force, late=lambda: self._publish(self._find_srv(), publish)
            )
            return self._find_srv(), asked
        asked = await self._ask(hosts, force)
        result = self._find_srv()
        # Without endpoints, too: what is gone must not be waited for.
        candidates = self._admission.to_check(
            result.endpoints,
            asyncio.get_running_loop().time(),
            everything=recheck,
            renewed=renewed,
        )
        if result.endpoints:
            result = await self._check_tls(gate, result, candidates, publish)
        return result, asked

    async def _resolve_static(
        self,
        statics: Sequence[Question],
        by_srv: Resolution,
        force: bool,
        publish: Publish | None,
    ) -> tuple[Resolution, list[Question]]:
        """The endpoints of the static list, and the hosts that were asked for."""
        asked = await self._ask(
            statics, force, late=lambda: self._publish(self._find_static(by_srv), publish)
        )
        return self._find_static(by_srv), asked

    def _find_srv(self) -> Resolution:
        """What the SRV records held now name, without ourselves; before the TLS check."""
        found = discovery.find_srv(self._owners, self._answers.lookup)
        self._log_discovered(found.endpoints)
        joined = self._join(found, srv=True)
        return self._without_own(Resolution(joined.endpoints, joined.problems, srv=True))

    def _find_static(self, by_srv: Resolution) -> Resolution:
        """The static list, without ourselves; with what was wrong with the SRV records."""
        found = self._join(discovery.find_static(self.config, self._answers.lookup), srv=False)
        static = self._without_own(Resolution(found.endpoints, found.problems))
        return dataclasses.replace(
            static,
            problems=by_srv.problems + static.problems,
            refused=by_srv.refused | static.refused,
            waiting=by_srv.waiting,
        )

    def _join(self, seeds: Findings, *, srv: bool) -> Findings:
        return joining.join(seeds, self._adopted, self._answers.lookup, srv=srv)

    def _chosen(self, result: Resolution) -> Resolution:
        """The result with those endpoints alone that the member list wants, if there is one."""
        used = joining.choose(result.endpoints, self._adopted)
        return dataclasses.replace(result, endpoints=used, known=result.endpoints)

    def _publish(self, result: Resolution, publish: Publish | None) -> None:
        """Publish endpoints that may be used while others are not known yet.

        A static endpoint that is ourselves may fail the resolution: nothing is used before that.
        """
        if publish is not None and result.endpoints and (result.srv or not result.loops):
            publish(self._chosen(result))

    def _log_discovered(self, endpoints: tuple[Discovered, ...]) -> None:
        """Log what DNS says, before the TLS check; once for each different answer."""
        names = [endpoint.name for endpoint in endpoints]
        if self._log is None or not names or names == self._discovered:
            return
        self._discovered = names
        srv = self.config.discovery_srv
        self._log.info("discovered cluster from SRV", srv=srv, endpoints=names)
        if self._gate is not None:
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
        return dataclasses.replace(
            result, endpoints=tuple(kept), loops=loops, member_loops=member_loops
        )

    async def _ask(
        self,
        questions: Iterable[Question],
        force: bool,
        late: Callable[[], None] | None = None,
    ) -> list[Question]:
        """Ask those that are due, or all if ``force`` is true; returns those that were asked.

        ``late`` is called if some answers take longer than EARLY_S.
        """
        now = asyncio.get_running_loop().time
        asked = list(questions) if force else list(self._answers.due(questions, now()))
        if not asked:
            return []
        resolver = self._current_resolver()

        async def ask(question: Question) -> None:
            looked = await resolver.look_up(question)
            if self._steps is not None:
                self._steps[question] = looked.steps
            self._answers.take(
                question, looked.outcome, now=now(), refresh=self._refresh, draw=self._draw
            )

        await _in_parallel([partial(ask, each) for each in asked], late=late)
        return asked

    def _current_resolver(self) -> Resolver:
        """The resolver; a new one if resolv.conf was changed."""
        from supervisor.discovery.resolver import (
            Resolver,  # 40 ms to import: not for literal addresses
        )

        try:
            status = os.stat(self._files.resolv_conf)
            stamp = (status.st_mtime_ns, status.st_ino, status.st_size)
        except OSError:
            stamp = None
        if self._resolver is None or stamp != self._resolver_stamp:
            self._resolver = Resolver(
                self.config.nameserver,
                self._files,
                self._log,
                max_concurrent=self._max_lookups,
            )
            self._resolver_stamp = stamp
        return self._resolver

    async def _check_tls(
        self,
        gate: Gate,
        result: Resolution,
        candidates: Sequence[Candidate],
        publish: Publish | None,
    ) -> Resolution:
        """Check these, and leave out the endpoints that did not pass."""
        now = asyncio.get_running_loop().time

        async def check(candidate: Candidate) -> None:
            verdict = await gate.verify(candidate)
            self._admission.take(candidate, verdict, now())

        await _in_parallel(
            [partial(check, each) for each in candidates],
            late=lambda: self._publish(self._admitted(result), publish),
        )
        return self._admitted(result)

    def _admitted(self, result: Resolution) -> Resolution:
        return dataclasses.replace(
            result,
            endpoints=self._admission.admitted(result.endpoints),
            refused=self._admission.refused(),
            waiting=self._admission.waiting(),
        )

    def _make_gate(self) -> Gate | None:
        config = self.config
        if not self._owners or config.insecure_discovery:
            return None
        try:
            return Gate(
                discovery.tls_domain(config),
                ca_file=config.trusted_ca_file,
                cert_file=config.health_cert_file,
                key_file=config.health_key_file,
                timeout_s=config.health_timeout_s,
                max_concurrent=self._max_handshakes,
                contexts=self._contexts,
                certificates=self._certificates,
            )
        except ValueError as error:
            raise BadTargetError(str(error)) from None


async def _in_parallel(
    jobs: Sequence[Callable[[], Coroutine[Any, Any, None]]],
    *,
    late: Callable[[], None] | None,
) -> None:
    """Run the jobs, MAX_QUESTIONS at once; call ``late`` if they take longer than EARLY_S."""
    waiting = iter(jobs)

    async def work() -> None:
        for job in waiting:
            await job()

    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(work(), name=f"discovery {number}")
            for number in range(min(len(jobs), MAX_QUESTIONS))
        ]
        if tasks and late is not None and (await asyncio.wait(tasks, timeout=EARLY_S))[1]:
            late()


def _gate_key(config: Config) -> tuple[object, ...]:
    """What the verdicts of the TLS check depend on."""
    return (
        config.insecure_discovery,
        config.trusted_ca_file,
        discovery.tls_domain(config),
        config.source_addr,
        config.proxy_out,
    )
