"""Looks names up: ``/etc/hosts`` first, then DNS, on the running asyncio loop and without a thread.

The C library's resolver would block the loop or need a thread, so names are resolved by dnspython.
Every question gets an outcome; nothing raises.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import dns.asyncbackend
import dns.asyncresolver
import dns.exception
import dns.flags
import dns.name
import dns.nameserver
import dns.rdatatype
import dns.resolver

from gateway.core.address import HostPort
from supervisor.core.discovery.endpoints import (
    Answer,
    Failure,
    Negative,
    Outcome,
    Question,
    QuestionKind,
    SrvRecord,
)
from supervisor.core.discovery.system_names import (
    Files,
    ResolvConf,
    names_to_try,
    parse_hosts,
    parse_resolv_conf,
)

HOSTS_TTL_S = 5.0
"""How long an entry of the hosts file is believed; reading it again costs nothing."""

HOSTS_AGE_S = 0.1
"""The hosts file is read once for the many questions of one round, not for each of them."""

EDNS_PAYLOAD_BYTES = 1232
"""Fits one unfragmented packet everywhere (DNS flag day 2020); longer answers come over TCP."""

MAX_LIFETIME_S = 20.0
"""One question at most, all its attempts together."""

NAMESERVER_TIMEOUT_S = 2.0
"""One question to one ``--nameserver``; resolv.conf has an option for its own."""

OTHER_FAMILY_S = 1.0
"""How long to wait for AAAA once A is there, and the other way round: a nameserver that never
answers one of them must not hold up the other."""

MAX_ALIASES = 8
MAX_FILE_BYTES = 4 * 1024 * 1024
MAX_CONCURRENT = 32
"""Questions under way at once: kind to the nameserver, and to our descriptors."""


class Resolver:
    """Stateless but for its configuration: make a new one to read resolv.conf again."""

    def __init__(self, nameservers: Sequence[HostPort] = (), files: Files | None = None) -> None:
        """``nameservers``: literal addresses, asked in order; none: those of resolv.conf."""
        self._files = files or Files()
        conf = parse_resolv_conf(_read(self._files.resolv_conf))
        if nameservers:
            conf = ResolvConf(
                search=conf.search,
                ndots=conf.ndots,
                timeout_s=NAMESERVER_TIMEOUT_S,
                attempts=conf.attempts,
            )
        self._conf = conf
        servers = nameservers or [HostPort(address, 53) for address in conf.nameservers]
        self.nameservers = tuple(map(str, servers))
        self._lifetime_s = min(conf.timeout_s * conf.attempts * len(servers), MAX_LIFETIME_S)
        self._dns = dns.asyncresolver.Resolver(configure=False)
        self._dns.nameservers = [dns.nameserver.Do53Nameserver(s.host, s.port) for s in servers]
        self._dns.timeout = conf.timeout_s
        self._dns.rotate = conf.rotate
        self._dns.use_edns(0, payload=EDNS_PAYLOAD_BYTES)
        self._backend: Any = _ConnectedBackend()
        self._slots = asyncio.Semaphore(MAX_CONCURRENT)
        self._hosts_read: tuple[float, dict[str, tuple[str, ...]]] = (float("-inf"), {})

    async def ask(self, question: Question) -> Outcome:
        """One question, one outcome; cancellation is the only way out without one."""
        match question.kind:
            case QuestionKind.SRV:
                return await self._srv(question.name)
            case QuestionKind.HOST:
                return self._hosts(question.name) or await self._host(question.name)
            case QuestionKind.SEARCH:
                return self._hosts(question.name) or await self._search(question.name)

    async def _srv(self, name: str) -> Outcome:
        answer = await self._query(name, dns.rdatatype.SRV)
        if not isinstance(answer, _Records):
            return answer
        records = tuple(
            SrvRecord(
                record.priority,
                record.weight,
                record.port,
                record.target.to_text(omit_final_dot=True).lower().removesuffix("."),
            )
            for record in answer.records
        )
        if all(not record.target for record in records):
            return Negative('target ".": the service is decidedly not available', answer.ttl_s)
        return Answer(answer.ttl_s, records=records)

    def _hosts(self, name: str) -> Outcome | None:
        """The hosts file; ``localhost`` needs no entry (RFC 6761, 6.3)."""
        now = asyncio.get_running_loop().time()
        if now - self._hosts_read[0] > HOSTS_AGE_S:
            self._hosts_read = (now, parse_hosts(_read(self._files.hosts)))
        addresses = self._hosts_read[1].get(name, ())
        if not addresses and (name == "localhost" or name.endswith(".localhost")):
            addresses = ("127.0.0.1", "::1")
        return Answer(HOSTS_TTL_S, addresses=addresses) if addresses else None

    async def _search(self, name: str) -> Outcome:
        """The first name of the search list that exists; a failure on the way ends the search.

        Going on after a failure could find another host of the same short name.
        """
        outcome: Outcome = Negative("no name to look up", HOSTS_TTL_S)
        for each in names_to_try(name, self._conf):
            outcome = await self._host(each)
            if not isinstance(outcome, Negative):
                break
        return outcome

    async def _host(self, name: str) -> Outcome:
        """A and AAAA of an absolute name, asked at the same time."""
        v4 = asyncio.create_task(self._query(name, dns.rdatatype.A), name=f"A {name}")
        v6 = asyncio.create_task(self._query(name, dns.rdatatype.AAAA), name=f"AAAA {name}")
        try:
            done, late = await asyncio.wait({v4, v6}, return_when=asyncio.FIRST_COMPLETED)
            if late:
                answered = any(isinstance(task.result(), _Records) for task in done)
                await asyncio.wait(late, timeout=OTHER_FAMILY_S if answered else None)
        finally:
            v4.cancel()
            v6.cancel()
        outcomes = {
            version: task.result() if task.done() else Failure("timeout")
            for version, task in ((4, v4), (6, v6))
        }
        return _join(outcomes)

    async def _query(self, name: str, kind: dns.rdatatype.RdataType) -> _Records | Outcome:
        """One record type of one absolute name, aliases followed."""
        ttl_s = float("inf")
        try:
            owner = dns.name.from_text(name)
            for _ in range(MAX_ALIASES):
                async with self._slots:
                    answer = await self._dns.resolve(
                        owner,
                        kind,
                        raise_on_no_answer=False,
                        lifetime=self._lifetime_s,
                        backend=self._backend,
                    )
                if answer.response.flags & dns.flags.TC:
                    return Failure("truncated answer over TCP")
                ttl_s = min(ttl_s, answer.chaining_result.minimum_ttl)
                if answer.rrset is not None:
                    return _Records(tuple(answer.rrset), ttl_s)
                if answer.canonical_name == owner:
                    return Negative(f"no {dns.rdatatype.to_text(kind)} records", ttl_s)
                owner = answer.canonical_name  # a server that does not follow aliases itself
            return Failure("a chain of aliases that does not end")
        except dns.resolver.NXDOMAIN as error:
            return Negative("NXDOMAIN", min(ttl_s, _negative_ttl(error)))
        except dns.resolver.LifetimeTimeout as error:
            return Failure(_describe(error.kwargs.get("errors", [])) or "timeout")
        except dns.resolver.NoNameservers as error:
            return Failure(_describe(error.kwargs.get("errors", [])) or "no nameserver left")
        except OSError as error:
            return Failure(os.strerror(error.errno) if error.errno else str(error))
        except (dns.exception.DNSException, ValueError) as error:
            return Failure(f"{type(error).__name__}: {error}")


class _ConnectedBackend:
    """dnspython's asyncio backend, but with connected datagram sockets.

    A nameserver that is not running is then known at once, by the refusal of its host, instead of
    after the timeout.
    """

    def __init__(self) -> None:
        self._real = dns.asyncbackend.get_backend("asyncio")

    def datagram_connection_required(self) -> bool:
        return True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


@dataclass(frozen=True, slots=True)
class _Records:
    """What dnspython found of one type; ``ttl_s``: the smallest, aliases included."""

    records: tuple[Any, ...]
    ttl_s: float


def _join(outcomes: dict[int, _Records | Outcome]) -> Outcome:
    """One outcome of A (4) and AAAA (6): what is there counts, whatever became of the other."""
    found = {v: each for v, each in outcomes.items() if isinstance(each, _Records)}
    failed = {v: each for v, each in outcomes.items() if isinstance(each, Failure)}
    if found:
        return Answer(
            min(each.ttl_s for each in found.values()),
            addresses=tuple(str(r) for each in found.values() for r in each.records),
            unanswered=frozenset(failed),
            error="; ".join(f"{_TYPES[v]}: {each.error}" for v, each in failed.items()),
        )
    if failed:
        return Failure("; ".join(dict.fromkeys(each.error for each in failed.values())))
    negatives = [each for each in outcomes.values() if isinstance(each, Negative)]
    same = len({each.error for each in negatives}) == 1
    error = negatives[0].error if same else "no addresses"
    return Negative(error, min(each.ttl_s for each in negatives))


_TYPES = {4: "A", 6: "AAAA"}


def _negative_ttl(error: dns.resolver.NXDOMAIN) -> float:
    """How long a name's absence may be believed (RFC 2308); a guess if the answer does not say."""
    responses = error.kwargs.get("responses", {})
    for response in responses.values():
        try:
            return float(response.resolve_chaining().minimum_ttl)
        except dns.exception.DNSException:
            continue
    return 60.0


def _describe(errors: Sequence[tuple[object, ...]]) -> str:
    """dnspython's trace of attempts, each nameserver with its newest error."""
    newest = {}
    for server, _tcp, _port, error, _response in errors:
        if isinstance(error, dns.exception.Timeout):
            newest[_spelled(server)] = "timeout"
        elif isinstance(error, OSError) and error.errno:
            newest[_spelled(server)] = os.strerror(error.errno)
        else:
            newest[_spelled(server)] = str(error) or type(error).__name__
    return "; ".join(f"{error} from {server}" for server, error in newest.items())


def _spelled(server: object) -> str:
    """A nameserver as operators write it; dnspython's way is ``Do53:127.0.0.1@53``."""
    address, at, port = str(server).removeprefix("Do53:").rpartition("@")
    return str(HostPort(address, int(port))) if at and port.isdecimal() else str(server)


def _read(path: str) -> str:
    """A small local file; one that is not there is an empty one."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(MAX_FILE_BYTES)
    except OSError:
        return ""
