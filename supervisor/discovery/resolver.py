"""Looks names up: in ``/etc/hosts`` first, then in DNS, on the running asyncio loop.

The C library's resolver would block the loop or need a thread. This one follows it where operators
rely on it (hosts file, resolv.conf, search list) and goes on where the C library or other
resolvers give up; each such decision is made in ``core.discovery``.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Sequence
from dataclasses import replace

from gateway.core.address import HostPort, literal_ip
from gateway.core.log import Log
from gateway.core.records import dataclass
from supervisor.core.discovery.inquiry import GaveUp, Patience
from supervisor.core.discovery.outcomes import is_decisive, join_families, srv_outcome
from supervisor.core.discovery.questions import (
    Answer,
    Failure,
    Negative,
    Outcome,
    Question,
    QuestionKind,
)
from supervisor.core.discovery.replies import MAX_ALIASES, Meaning, ReplyKind
from supervisor.core.discovery.search import HURRIED_S, SearchMemory
from supervisor.core.discovery.system_names import (
    Files,
    ResolvConf,
    names_to_try,
    parse_resolv_conf,
)
from supervisor.core.discovery.trace import FromHosts, Step
from supervisor.discovery.dns_message import BadNameError
from supervisor.discovery.dns_transport import ServerAddress
from supervisor.discovery.hosts_file import HostsFile
from supervisor.discovery.inquirer import Inquirer

HOSTS_TTL_S = 5.0
"""How long an entry of the hosts file is believed; looking whether the file changed is cheap."""

MAX_LIFETIME_S = 20.0
"""One question about one name at most, all tries and all aliases together."""

NAMESERVER_TIMEOUT_S = 2.0
"""One query to one ``--nameserver``; resolv.conf has an option for its own."""

OTHER_FAMILY_S = 1.0
"""How long to wait for AAAA once A is answered, and the other way round: a nameserver that never
answers one of them must not hold up the other."""

MAX_CONCURRENT = 32
"""Questions under way at once, for the sake of the nameserver and of our descriptors."""

MAX_RESOLV_CONF_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Looked:
    """The outcome of a question, and what was done to find it."""

    outcome: Outcome
    steps: tuple[Step, ...]


class Resolver:
    """Remembers what it learned of nameservers and search domains; make a new one to read
    resolv.conf again."""

    def __init__(
        self,
        nameservers: Sequence[HostPort] = (),
        files: Files | None = None,
        log: Log | None = None,
        *,
        max_concurrent: int = MAX_CONCURRENT,
        search_memory: SearchMemory | None = None,
    ) -> None:
        """``nameservers``: literal addresses, asked in order; none: those of resolv.conf.

        ``search_memory``: what a resolver before this one learned of search domains.
        ``max_concurrent``: for how many questions at once there are descriptors.
        """
        files = files or Files()
        self._conf = conf = _read_conf(files)
        self._servers = [ServerAddress(each.host, each.port) for each in nameservers]
        timeout_s, rotate = NAMESERVER_TIMEOUT_S, False
        if not nameservers:
            self._servers = [ServerAddress(host, files.port) for host in conf.nameservers]
            timeout_s, rotate = conf.timeout_s, conf.rotate
        # The question ends after MAX_LIFETIME_S, and each nameserver has to have its turn before.
        timeout_s = min(timeout_s, MAX_LIFETIME_S / len(self._servers))
        tries_s = timeout_s * conf.attempts * len(self._servers)
        self._patience = Patience(
            timeout_s=timeout_s,
            attempts=conf.attempts,
            lifetime_s=min(2 * tries_s, MAX_LIFETIME_S),  # twice: with and without EDNS
            tcp=conf.use_tcp,
        )
        self._inquirer = Inquirer(self._servers, rotate=rotate)
        self._search_memory = search_memory or SearchMemory()
        self._hosts_file = HostsFile(files.hosts, log)
        # Each question has a socket for each nameserver that it waits for. Few are answered over
        # TCP, with up to two connections; where a descriptor is missing, they are asked again.
        most = max(max_concurrent // len(self._servers), 1)
        self._slots = asyncio.Semaphore(min(most, MAX_CONCURRENT))

    @property
    def nameservers(self) -> tuple[str, ...]:
        return tuple(map(str, self._servers))

    async def ask(self, question: Question) -> Outcome:
        """The outcome of one question; no failure of network or nameserver is raised."""
        return (await self.look_up(question)).outcome

    async def look_up(self, question: Question) -> Looked:
        """The same with the steps on the way."""
        steps: list[Step] = []
        if question.kind is QuestionKind.SRV:
            outcome = await self._srv(question.name, steps)
        else:
            found = await self._from_hosts(question.name, steps)
            if found is not None:
                outcome = found
            elif question.kind is QuestionKind.HOST:
                outcome = await self._host(question.name, self._patience, steps)
            else:
                outcome = await self._search(question.name, steps)
        return Looked(outcome, tuple(steps))

    async def _srv(self, name: str, steps: list[Step]) -> Outcome:
        meaning = await self._resolve(name, "SRV", self._patience, steps)
        if not isinstance(meaning, Meaning):
            return meaning
        return srv_outcome(meaning)

    async def _from_hosts(self, name: str, steps: list[Step]) -> Outcome | None:
        """The addresses of the hosts file; ``localhost`` needs no entry (RFC 6761, 6.3)."""
        addresses = await self._hosts_file.addresses(name)
        if not addresses and (name == "localhost" or name.endswith(".localhost")):
            addresses = ("127.0.0.1", "::1")
        if not addresses:
            return None
        steps.append(FromHosts(name, self._hosts_file.path, addresses))
        return Answer(HOSTS_TTL_S, addresses=addresses)

    async def _search(self, name: str, steps: list[Step]) -> Outcome:
        """The addresses of the first name of the search list that has some."""
        search = self._search_memory.search(name, names_to_try(name, self._conf))
        lookup = next(search)
        try:
            while True:
                patience = self._patience.within(lookup.within_s, len(self._servers))
                lookup = search.send(await self._host(lookup.name, patience, steps))
        except StopIteration as end:
            outcome: Outcome = end.value
            return outcome

    async def _host(self, name: str, patience: Patience, steps: list[Step]) -> Outcome:
        """The addresses of an absolute name; A and AAAA are asked for at the same time."""

        async def resolve(kind: str) -> Meaning | Negative | Failure:
            return await self._resolve(name, kind, patience, steps)

        if self._conf.no_aaaa:
            return join_families({4: await resolve("A")})
        if self._conf.single_request:
            return await self._one_by_one(name, patience, steps)
        v4 = asyncio.create_task(resolve("A"), name=f"A {name}")
        v6 = asyncio.create_task(resolve("AAAA"), name=f"AAAA {name}")
        try:
            done, late = await asyncio.wait({v4, v6}, return_when=asyncio.FIRST_COMPLETED)
            if late:
                answered = any(isinstance(task.result(), Meaning) for task in done)
                decided = answered or (v4 in done and is_decisive(v4.result()))
                await asyncio.wait(late, timeout=OTHER_FAMILY_S if decided else None)
        finally:
            v4.cancel()
            v6.cancel()
        return join_families(
            {
                version: task.result() if task.done() else Failure("timeout", silent=True)
                for version, task in ((4, v4), (6, v6))
            }
        )

    async def _one_by_one(self, name: str, patience: Patience, steps: list[Step]) -> Outcome:
        """A, then AAAA: both in the time of one question."""
        now = asyncio.get_running_loop().time
        end_at = now() + patience.lifetime_s
        first_s = max(patience.lifetime_s - OTHER_FAMILY_S, patience.lifetime_s / 2)
        v4 = await self._resolve(name, "A", replace(patience, lifetime_s=first_s), steps)
        left_s = max(end_at - now(), patience.lifetime_s - first_s)
        if is_decisive(v4):
            left_s = min(left_s, OTHER_FAMILY_S)
        v6 = await self._resolve(name, "AAAA", replace(patience, lifetime_s=left_s), steps)
        return join_families({4: v4, 6: v6})

    async def _resolve(
        self, name: str, kind: str, patience: Patience, steps: list[Step]
    ) -> Meaning | Negative | Failure:
        """One record type of one absolute name, aliases followed; a Meaning has the records."""
        ttl_s = float("inf")
        now = asyncio.get_running_loop().time
        waited = self._slots.locked()
        async with self._slots:
            if waited and self._inquirer.all_silent(now()):
                # Thousands of questions to nameservers that are dead must not take hours.
                patience = patience.within(HURRIED_S, len(self._servers))
            end_at = now() + patience.lifetime_s
            for _ in range(MAX_ALIASES + 1):
                left_s = end_at - now()
                if left_s <= 0:
                    return Failure("timeout, with aliases left to follow")
                try:
                    left = replace(patience, lifetime_s=left_s)
                    meaning = await self._inquirer.inquire(name, kind, left, steps)
                except BadNameError as error:
                    return Failure(str(error))
                if isinstance(meaning, GaveUp):
                    return Failure(self._inquirer.describe(meaning), silent=meaning.silent)
                ttl_s = min(ttl_s, meaning.ttl_s)
                if meaning.kind is ReplyKind.RECORDS:
                    return Meaning(meaning.kind, records=meaning.records, ttl_s=ttl_s)
                if meaning.kind is not ReplyKind.ALIAS:
                    no_name = meaning.kind is ReplyKind.NO_NAME
                    return Negative(meaning.text, ttl_s, no_name)
                name = meaning.alias  # the nameserver does not follow aliases itself
        return Failure("a chain of aliases that does not end")


def _read_conf(files: Files) -> ResolvConf:
    """resolv.conf as it is now, with what the C library adds to it from elsewhere."""
    text = ""
    if os.path.isfile(files.resolv_conf):  # opening a pipe would block
        try:
            with open(files.resolv_conf, encoding="utf-8", errors="replace") as file:
                text = file.read(MAX_RESOLV_CONF_BYTES)
        except OSError:
            pass  # as the C library: a file that cannot be read is an empty one
    domain = files.domain
    if domain is None:
        domain = socket.gethostname().partition(".")[2]
        domain = "" if literal_ip(domain) else domain.lower().removesuffix(".")
    return parse_resolv_conf(
        text,
        domain=domain,
        local_domain=os.environ.get("LOCALDOMAIN", ""),
        extra_options=os.environ.get("RES_OPTIONS", ""),
    )
