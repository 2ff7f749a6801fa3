"""Asking etcd members how they are, for the command ``check``.

An endpoint is asked more than ``/version`` only once it has answered that as etcd does, and nothing
at all if it speaks first: HTTP is no greeting for a database.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace

from gateway.core.address import Address, HostPort, literal_ip
from supervisor.cli.dials import Checked
from supervisor.core.certificates import find_end
from supervisor.core.config import Config
from supervisor.core.discovery.cluster_report import (
    ClusterReport,
    MemberAnswer,
    make_report,
    read_quota,
    read_status,
)
from supervisor.core.discovery.loop_guard import describe_own, own_listen_address
from supervisor.core.discovery.member_list import is_loopback, parse_list, targets_of
from supervisor.core.discovery.questions import Answer
from supervisor.core.discovery.targets import host_question, owners
from supervisor.core.json_object import read_object
from supervisor.discovery.local_addresses import is_local
from supervisor.discovery.member_questions import AskDns, peer_of
from supervisor.system.etcd_client import (
    MEMBER_LIST,
    STATUS,
    EtcdConnection,
    EtcdError,
    Peer,
    SpeaksFirstError,
)
from supervisor.system.tls_contexts import TlsContexts

GREETING_S = 0.1
"""How long an endpoint may take to speak first, as mail servers and databases do."""

MAX_CONCURRENT = 16
MAX_METRICS_BYTES = 8 * 1024 * 1024


class NoEtcdError(Exception):
    """The endpoint is something else than etcd."""


class Examiner:
    """Asks each endpoint, and the members that those name beside themselves."""

    def __init__(self, config: Config, listen: Sequence[Address], look_up: AskDns) -> None:
        self._config = config
        self._listen = listen
        self._look_up = look_up
        self._contexts = TlsContexts()
        self._slots = asyncio.Semaphore(MAX_CONCURRENT)

    async def examine(self, checked: Iterable[Checked]) -> ClusterReport | None:
        """The report on the cluster; None if no endpoint is etcd."""
        if any(not owner.name.startswith("_etcd-") for owner in owners(self._config)):
            return None  # the records of another service
        answers = [each for each in await asyncio.gather(*map(self._ask_endpoint, checked)) if each]
        if not any(each.status or each.listed for each in answers):
            return None
        return make_report([*answers, *await self._ask_others(answers)], time.time())

    async def _ask_endpoint(self, checked: Checked) -> MemberAnswer | None:
        """None if it is not etcd; one that cannot be dialed may be."""
        endpoint = checked.endpoint
        first = next((dial for dial in checked.dials if not dial.error), None)
        if first is None:
            (dial, *_) = checked.dials
            return MemberAnswer(
                endpoint=endpoint.name, address=dial.address, error=dial.error or "no address"
            )
        peer = peer_of(
            self._config,
            endpoint.host,
            first.address,
            endpoint.port,
            tls=endpoint.tls or None,
            srv=endpoint.srv,
        )
        try:
            return await self._ask(endpoint.name, peer)
        except NoEtcdError:
            return None

    async def _ask_others(self, answers: Sequence[MemberAnswer]) -> list[MemberAnswer]:
        """The members that are on a list and have not answered, by their client URLs."""
        seen = {each.status.member_id for each in answers if each.status}
        tried = {each.endpoint for each in answers}
        jobs: dict[HostPort, bool] = {}
        for each in answers:
            if each.listed is None:
                continue
            unseen = replace(
                each.listed, members=tuple(m for m in each.listed.members if m.id not in seen)
            )
            afar = not is_loopback(each.address)
            for target in targets_of(unseen, from_elsewhere=afar, learners=True)[0]:
                if str(target.address) not in tried:
                    jobs.setdefault(target.address, target.tls)
        return list(await asyncio.gather(*(self._ask_url(a, tls=t) for a, t in jobs.items())))

    async def _ask_url(self, url: HostPort, *, tls: bool) -> MemberAnswer:
        literal = literal_ip(url.host)
        outcome = None if literal else await self._look_up(host_question(url))
        found = outcome.addresses if isinstance(outcome, Answer) else ()
        address = literal or next(iter(found), "")
        if not address:
            error = getattr(outcome, "error", "") or "no address"
            return MemberAnswer(endpoint=str(url), address="", error=error)
        if own := own_listen_address(address, url.port, self._listen, is_local):
            return MemberAnswer(endpoint=str(url), address=address, error=describe_own(own))
        srv = bool(owners(self._config))
        peer = peer_of(self._config, url.host, address, url.port, tls=tls, srv=srv)
        try:
            return await self._ask(str(url), peer)
        except NoEtcdError as error:
            return MemberAnswer(endpoint=str(url), address=address, error=str(error))

    async def _ask(self, endpoint: str, peer: Peer) -> MemberAnswer:
        """Everything that one member says."""
        async with self._slots:
            answer = await self._converse(
                MemberAnswer(endpoint=endpoint, address=peer.address),
                replace(peer, greeting_s=GREETING_S),
            )
        if peer.guess and answer.certificate_end is not None:
            hint = f"speaks TLS, expected https://{endpoint} to say so"
            return replace(answer, error="; ".join(filter(None, [answer.error, hint])))
        return answer

    async def _converse(self, answer: MemberAnswer, peer: Peer) -> MemberAnswer:
        timeout_s = self._config.health_timeout_s
        connection = EtcdConnection(peer, self._contexts)
        try:
            async with asyncio.timeout(timeout_s), connection as member:
                answer = replace(
                    answer,
                    round_trip_s=member.round_trip_s,
                    certificate_end=_end(member),
                )
                await _identify(member)
                status = read_status(await member.ask(STATUS))
                answer = replace(answer, status=status)
                try:
                    answer = replace(answer, listed=parse_list(await member.ask(MEMBER_LIST)))
                except EtcdError:
                    if not status.learner:  # learners tell of themselves alone
                        raise
                if not status.quota_bytes:
                    page = await member.get("/metrics", last=True, max_body_bytes=MAX_METRICS_BYTES)
                    quota = read_quota(page.body.decode(errors="replace"))
                    answer = replace(answer, status=replace(status, quota_bytes=quota))
        except SpeaksFirstError as error:
            raise NoEtcdError(str(error)) from None
        except TimeoutError:
            return replace(answer, error=f"timeout: no answer within {timeout_s:g} s")
        except EtcdError as error:
            return replace(answer, error=str(error), certificate_end=_end(connection))
        except ValueError as error:
            return replace(answer, error=str(error))
        return answer


async def _identify(member: EtcdConnection) -> None:
    """Raises NoEtcdError unless the endpoint says what version of etcd it is."""
    try:
        answer = await member.get("/version")
    except EtcdError as error:
        raise NoEtcdError(str(error)) from None
    if "etcdserver" not in read_object(answer.body):
        raise NoEtcdError("is not etcd")


def _end(member: EtcdConnection) -> float | None:
    certificate = member.tls.certificate if member.tls is not None else None
    return find_end(certificate) if certificate is not None else None
