"""What member sync asks and tries at the members: their list, and whether they can be dialed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection, Sequence

from gateway.core.address import Address, HostPort, literal_ip
from gateway.core.unix_address import is_unix
from supervisor.core.config import Config
from supervisor.core.discovery.adoption import AdoptedList, Heard, Proposal
from supervisor.core.discovery.endpoints import Discovered
from supervisor.core.discovery.loop_guard import describe_own, own_listen_address
from supervisor.core.discovery.member_list import MemberTarget, is_loopback, parse_list
from supervisor.core.discovery.questions import Answer, Outcome, Question
from supervisor.core.discovery.targets import host_question, tls_domain
from supervisor.discovery.local_addresses import is_local
from supervisor.system.etcd_client import MEMBER_LIST, STATUS, EtcdConnection, EtcdError, Peer
from supervisor.system.tls_contexts import TlsContexts, TlsFiles

MOST_AT_ONCE = 16
"""Members asked, or dialed, at the same time."""

AskDns = Callable[[Question], Awaitable[Outcome]]


class MemberQuestions:
    """Asks members and dials them, each time by the configuration of that moment.

    ``listen`` tells the gateway's own addresses as literals; ``look_up`` asks DNS.
    """

    def __init__(
        self,
        config: Config,
        contexts: TlsContexts,
        *,
        listen: Callable[[], Sequence[Address]],
        look_up: AskDns,
    ) -> None:
        self.config = config
        self._contexts = contexts
        self._spoke_tls: dict[tuple[str, str], bool] = {}
        """Whether an endpoint spoke TLS at an address, where that was to be found out."""
        self._listen = listen
        self._look_up = look_up

    async def first_answer(
        self, some: Sequence[Discovered], errors: list[EtcdError], suits: Callable[[Heard], bool]
    ) -> Heard | None:
        """The first answer of these, asked together, that ``suits``; None if there is none.

        Each failure goes into ``errors``.
        """
        tasks = [
            asyncio.create_task(self._ask(each), name=f"member sync {each.name}") for each in some
        ]
        try:
            for done in asyncio.as_completed(tasks):
                try:
                    heard = await done
                except EtcdError as error:
                    errors.append(error)
                    continue
                if suits(heard):
                    return heard
            return None
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def retain(self, known: Collection[Discovered]) -> None:
        """Forget what other places than those of these endpoints spoke."""
        places = {(each.name, address) for each in known for address in each.addresses}
        self._spoke_tls = {p: spoke for p, spoke in self._spoke_tls.items() if p in places}

    async def _ask(self, endpoint: Discovered) -> Heard:
        """One endpoint's answer, by the first of its addresses that gives one."""
        error = EtcdError("no address")
        for address in endpoint.addresses:
            try:
                return await self._ask_address(endpoint, address)
            except EtcdError as failure:
                error = failure
        raise EtcdError(f"{endpoint.name}: {error}", kind=f"{endpoint.name}: {error.kind}")

    async def _ask_address(self, endpoint: Discovered, address: str) -> Heard:
        place = (endpoint.name, address)
        known = endpoint.tls or endpoint.listed
        peer = peer_of(
            self.config,
            endpoint.host,
            address,
            endpoint.port,
            tls=endpoint.tls if known else self._spoke_tls.get(place),
            srv=endpoint.srv,
        )
        spoke_tls = self._spoke_tls.pop(place, None)
        timeout_s = self.config.health_timeout_s
        try:
            async with (
                asyncio.timeout(timeout_s),
                EtcdConnection(peer, self._contexts) as member,
            ):
                if member.tls is not None:
                    self._spoke_tls[place] = True
                # Not linearizable, a member that is cut off from the others tells an old list.
                # etcd 3.4 does not know the word, so the leader is asked for as well.
                listed = parse_list(await member.ask(MEMBER_LIST, {"linearizable": True}))
                leader = "unknown"
                with contextlib.suppress(EtcdError):
                    leader = (await member.ask(STATUS, last=True)).get("leader", "0")
        except TimeoutError:
            if spoke_tls is not None:  # a member that stood still must not be asked in plain text
                self._spoke_tls[place] = spoke_tls
            raise EtcdError(f"timeout: no answer within {timeout_s:g} s") from None
        except ValueError as error:
            raise EtcdError(str(error)) from None
        if member.tls is None:
            self._spoke_tls[place] = False
        return Heard(
            listed=listed,
            endpoint=endpoint.name,
            from_elsewhere=not is_loopback(address),
            leaderless=leader == "0",
        )

    async def dial_all(self, proposal: Proposal, *, srv: bool) -> dict[MemberTarget, str]:
        """The client URLs that cannot be dialed, with the reason.

        ``srv``: they are judged by the discovery domain.
        """
        slots = asyncio.Semaphore(MOST_AT_ONCE)
        failures: dict[MemberTarget, str] = {}

        async def dial(target: MemberTarget) -> None:
            async with slots:
                try:
                    await self._dial(target, proposal.adopted, srv=srv)
                except EtcdError as error:
                    failures[target] = str(error)

        await asyncio.gather(*map(dial, proposal.adopted.targets))
        return failures

    async def _dial(self, target: MemberTarget, adopted: AdoptedList, *, srv: bool) -> None:
        """Connect, with a handshake where TLS is spoken, to the first address that can be."""
        host, port = target.address.host, target.address.port
        error = "no address"
        for address in await self._addresses_of(target.address):
            if adopted.from_elsewhere and is_loopback(address):
                error = f"{address} is a loopback address, and the list came from elsewhere"
                continue
            if own := own_listen_address(address, port, self._listen(), is_local):
                error = describe_own(own)
                continue
            peer = peer_of(self.config, host, address, port, tls=target.tls, srv=srv)
            try:
                async with asyncio.timeout(self.config.dial_timeout_s):
                    async with EtcdConnection(peer, self._contexts):
                        return
            except TimeoutError:
                error = f"timeout after {self.config.dial_timeout_s:g} s"
            except EtcdError as failure:
                error = str(failure)
        raise EtcdError(error)

    async def _addresses_of(self, address: HostPort) -> tuple[str, ...]:
        if literal := literal_ip(address.host):
            return (literal,)
        outcome = await self._look_up(host_question(address))
        if isinstance(outcome, Answer):
            return outcome.addresses
        raise EtcdError(outcome.error)


def peer_of(
    config: Config, host: str, address: str, port: int, *, tls: bool | None, srv: bool
) -> Peer:
    """How to speak with a member: as a probe would.

    ``tls``: None if nobody knows whether it speaks TLS. ``srv``: it is judged by the discovery
    domain, as what SRV records named.
    """
    match config.health_check:
        case "tls" | "https":
            tls = True
        case "http":
            tls = bool(tls)
    files = TlsFiles(
        ca_file=config.trusted_ca_file,
        cert_file=config.health_cert_file,
        key_file=config.health_key_file,
        verify=not (srv and config.insecure_discovery),
    )
    named = "localhost" if is_unix(host) else host
    return Peer(
        address=address,
        port=port,
        server_name=tls_domain(config) if srv else named,
        files=None if tls is False else files,
        guess=tls is None,
    )
