"""One round of resolution: ask what is due, join the answers, leave out ourselves, check TLS.

Everything that is decided on the way is decided in ``core``; this module asks and passes on.
"""

from __future__ import annotations

import asyncio
import dataclasses
import ipaddress
import os
import random
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gateway.core.address import HostPort
from gateway.core.log import Log
from supervisor.core.config import Config
from supervisor.core.discovery import endpoints as discovery
from supervisor.core.discovery.admission import Admission, Candidate
from supervisor.core.discovery.answers import CONFIRM_S, Answers, Refresh
from supervisor.core.discovery.endpoints import Discovered, Problem, Question, literal
from supervisor.core.discovery.loop_guard import without_own
from supervisor.core.discovery.system_names import Files
from supervisor.discovery.tls_gate import Gate

if TYPE_CHECKING:
    from supervisor.discovery.resolver import Resolver

EARLY_S = 0.5
"""What is found and may be used waits no longer than this for names that are still asked for, and
for endpoints whose TLS is still being checked."""

MAX_QUESTIONS = 64
"""Under way at once. A nameserver that is dead costs each its time, but starting the questions of
thousands of targets in one go stops the loop for half a second."""

MAX_ERRORS = 5
"""So many errors are spelled out in one line, the others counted."""


class BadTargetError(Exception):
    """A target that can never work as configured; the text names the flag (exit code 2)."""


@dataclass(frozen=True, slots=True)
class Resolution:
    """What a round found. ``endpoints`` may be used; ``refused`` and ``waiting`` may not.

    ``loops``: endpoints with an address that is our own listen address (the value).
    ``stale``: failures behind answers that stay in use.
    ``srv``: the endpoints were found by SRV, not by the static list.
    ``ok``: DNS answered what was asked, None if nothing was asked.
    ``final`` is False for a round published before the TLS check ended.
    """

    endpoints: tuple[Discovered, ...] = ()
    problems: tuple[Problem, ...] = ()
    refused: dict[str, str] = field(default_factory=dict)
    waiting: dict[str, str] = field(default_factory=dict)
    loops: dict[str, str] = field(default_factory=dict)
    stale: tuple[str, ...] = ()
    srv: bool = False
    ok: bool | None = None
    final: bool = True

    @property
    def definite(self) -> bool:
        """Whether trying again is pointless."""
        return not self.waiting and all(problem.definite for problem in self.problems)

    @property
    def left_out(self) -> dict[str, str]:
        """Endpoints that are not used although DNS names them, with the reason."""
        loops = {
            name: f"is the gateway's own listen address {hit}" for name, hit in self.loops.items()
        }
        waiting = {name: f"TLS check: {error}" for name, error in self.waiting.items()}
        return self.refused | waiting | loops

    @property
    def error(self) -> str:
        """What went wrong, in one line; "" if nothing did."""
        texts = [problem.error for problem in self.problems]
        texts += self.stale
        texts += [f"{name}: {reason}" for name, reason in self.left_out.items()]
        return _in_one_line(texts)

    @property
    def incomplete(self) -> str:
        """The part of ``error`` that is about DNS; "" if it answered everything."""
        return _in_one_line([*(problem.error for problem in self.problems), *self.stale])


class Targets:
    """The rounds of one configuration; ``answers`` may come from an earlier one's.

    Raises BadTargetError if a file that the TLS check needs cannot be used.
    """

    def __init__(
        self,
        config: Config,
        listen: tuple[HostPort, ...],
        *,
        log: Log | None = None,
        before: Targets | None = None,
        files: Files | None = None,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.config = config
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
        self._answers: Answers = before._answers.copy() if before else Answers()
        self._gate = self._make_gate()
        self._admission: Admission = Admission()
        if before is not None and _gate_key(before.config) == _gate_key(config):
            self._admission = before._admission.copy()
        self._resolver: Resolver | None = None
        self._resolver_stamp: object = None
        self._discovered: list[str] = before._discovered if before else []

    def next_at(self) -> float:
        """When the next round is due; infinity if none ever is."""
        return min(self._answers.next_at(), self._admission.next_at())

    async def close(self) -> None:
        """Let the TLS checks under way end in order; begin no more."""
        if self._gate is not None:
            await self._gate.close()

    async def run(
        self, *, force: bool, publish: Callable[[Resolution], None] | None = None
    ) -> Resolution:
        """One round; ``force`` asks everything, due or not.

        ``publish`` gets an early round if some names or the TLS check of some endpoints take long.
        """

        def tell(result: Resolution) -> None:
            if publish is not None and result.endpoints and not result.loops:
                publish(dataclasses.replace(result, final=False))

        owners = [owner.question for owner in self._owners]
        renewed = await self._ask(owners, force)
        hosts = discovery.targets(self._owners, self._answers.lookup)
        unchecked = self._gate is None
        asked = renewed + await self._ask(
            hosts, force, late=lambda: tell(self._find_srv()) if unchecked else None
        )
        result = self._find_srv()
        if self._gate is not None and result.endpoints:
            result = await self._check_tls(result, force or bool(renewed), publish)
        statics: tuple[Question, ...] = ()
        if not self._owners or self.config.endpoints_given:
            statics = discovery.static_questions(self.config)
        if not result.endpoints and (not self._owners or self.config.endpoints_given):
            by_srv = result
            asked += await self._ask(statics, force, late=lambda: tell(self._fall_back(by_srv)))
            result = self._fall_back(by_srv)
        self._answers.keep({*owners, *hosts, *statics})
        ok = all(map(self._answers.trusted, renewed)) if renewed else None
        if not renewed and asked:
            ok = any(map(self._answers.trusted, asked))
        return dataclasses.replace(result, stale=self._answers.errors(), ok=ok)

    def _find_srv(self) -> Resolution:
        """What the SRV records held name, but for ourselves; before the TLS check."""
        found = discovery.find_srv(self._owners, self._answers.lookup)
        self._log_discovered(found.endpoints)
        return self._guard(Resolution(found.endpoints, found.problems, srv=True))

    def _log_discovered(self, endpoints: tuple[Discovered, ...]) -> None:
        """What DNS says, before the TLS check; once for each different answer."""
        names = [endpoint.name for endpoint in endpoints]
        if self._log is None or not names or names == self._discovered:
            return
        self._discovered = names
        srv = self.config.discovery_srv
        self._log.info("discovered cluster from SRV", srv=srv, endpoints=names)
        if self._gate is not None:
            self._log.info("validating discovered SRV endpoints", srv=srv, endpoints=names)

    def _fall_back(self, result: Resolution) -> Resolution:
        """The static list, as the only target or as the explicit fallback of SRV."""
        found = discovery.find_static(self.config, self._answers.lookup)
        static = self._guard(Resolution(found.endpoints, found.problems))
        return dataclasses.replace(
            static,
            problems=result.problems + static.problems,
            refused=result.refused | static.refused,
            waiting=result.waiting,
        )

    async def _ask(
        self,
        questions: Iterable[Question],
        force: bool,
        late: Callable[[], None] | None = None,
    ) -> list[Question]:
        """Ask those that are due, MAX_QUESTIONS at once; returns them.

        ``late`` is called if some take long.
        """
        now = asyncio.get_running_loop().time
        asked = list(questions) if force else list(self._answers.due(questions, now()))
        if not asked:
            return []
        resolver = self._current_resolver()

        waiting = iter(asked)

        async def ask() -> None:
            for question in waiting:
                outcome = await resolver.ask(question)
                self._answers.take(
                    question, outcome, now=now(), refresh=self._refresh, draw=self._draw()
                )

        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(ask(), name=f"ask {number}")
                for number in range(min(len(asked), MAX_QUESTIONS))
            ]
            if late is not None and (await asyncio.wait(tasks, timeout=EARLY_S))[1]:
                late()
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
            self._resolver = Resolver(self.config.nameserver, self._files)
            self._resolver_stamp = stamp
        return self._resolver

    def _guard(self, result: Resolution) -> Resolution:
        """Leave out the addresses that are our own listen addresses."""
        kept, loops = [], dict(result.loops)
        for endpoint in result.endpoints:
            left, hit = without_own(endpoint, self._listen, is_local)
            if left is not None:
                kept.append(left)
            if hit is not None:
                loops[endpoint.name] = str(hit)
        return dataclasses.replace(result, endpoints=tuple(kept), loops=loops)

    async def _check_tls(
        self, result: Resolution, everything: bool, publish: Callable[[Resolution], None] | None
    ) -> Resolution:
        """Only those that passed the TLS check stay."""
        assert self._gate is not None  # noqa: S101 (for the type checker)
        now = asyncio.get_running_loop().time
        candidates = self._admission.to_check(result.endpoints, now(), everything=everything)

        async def check(gate: Gate, candidate: Candidate) -> None:
            self._admission.take(candidate, await gate.verify(candidate), now())

        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(check(self._gate, c), name=f"TLS check {c.address}:{c.port}")
                for c in candidates
            ]
            if tasks and publish is not None:
                _, late = await asyncio.wait(tasks, timeout=EARLY_S)
                if late:
                    publish(self._admit(result, final=False))
        return self._admit(result)

    def _admit(self, result: Resolution, *, final: bool = True) -> Resolution:
        return dataclasses.replace(
            result,
            endpoints=self._admission.admitted(result.endpoints),
            refused=self._admission.refused(),
            waiting=self._admission.waiting(),
            final=final,
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
            )
        except ValueError as error:
            raise BadTargetError(str(error)) from None


def _in_one_line(texts: list[str]) -> str:
    left = len(texts) - MAX_ERRORS
    return "; ".join(texts[:MAX_ERRORS]) + (f"; and {left} more" if left > 0 else "")


def is_local(address: str) -> bool:
    """Whether a literal IP is one of this host's own.

    The kernel is asked for a route: to itself it answers from the very address (and from loopback
    for all of 127.0.0.0/8). Nothing is sent, and no netlink socket is needed.
    """
    if ipaddress.ip_address(address).is_loopback or ipaddress.ip_address(address).is_unspecified:
        return True
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect((address, 9))
        except OSError:
            return False
        return literal(sock.getsockname()[0]) == literal(address)


def _gate_key(config: Config) -> tuple[object, ...]:
    """Verdicts are good for as long as this stays the same."""
    return (config.insecure_discovery, config.trusted_ca_file, discovery.tls_domain(config))
