"""Member sync: endpoints follow the member list that the etcd cluster itself keeps.

One task asks an active member, again and again, and proposes what it hears; ``core`` decides.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import assert_never

from gateway.core.address import Address, HostPort, literal_ip
from gateway.core.log import Log
from supervisor.core.admin.views import MemberSyncView
from supervisor.core.backoff import Draw, around_s
from supervisor.core.config import Config
from supervisor.core.discovery.adoption import (
    AdoptedList,
    Heard,
    Proposal,
    Refusal,
    Unchanged,
    judge,
    order_to_ask,
    weigh,
)
from supervisor.core.discovery.endpoints import (
    Answer,
    Discovered,
    Outcome,
    Question,
    host_question,
    tls_domain,
)
from supervisor.core.discovery.loop_guard import own_listen_address
from supervisor.core.discovery.member_list import MemberTarget, is_loopback, parse_list
from supervisor.core.discovery.schedule import URGENT_S
from supervisor.discovery.local_addresses import is_local
from supervisor.system.etcd_client import MEMBER_LIST, STATUS, EtcdConnection, EtcdError, Peer
from supervisor.system.tls import TlsContexts, TlsFiles

MOST_ASKED = 3
"""Members asked one after the other until one answers, while any endpoint is active."""

MOST_AT_ONCE = 16
"""Members asked, or dialed, at the same time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the task is told when it asks.

    ``known``: endpoints, and targets that are not used now. ``active``: names of active endpoints.
    ``listen``: the gateway's own addresses as literals. ``on_change``: endpoints may differ now.
    """

    known: Callable[[], Sequence[Discovered]]
    active: Callable[[], Collection[str]]
    listen: Callable[[], Sequence[Address]]
    look_up: Callable[[Question], Awaitable[Outcome]]
    on_change: Callable[[], None]


class MemberSync:
    """Keeps the adopted list. Owns one task while ``--member-sync`` is on, until ``close``."""

    def __init__(
        self,
        config: Config,
        log: Log,
        around: Surroundings,
        *,
        draw: Draw,
        wall: Callable[[], float],
        contexts: TlsContexts | None = None,
    ) -> None:
        self._config = config
        self._log = log
        self._around = around
        self._draw = draw
        self._wall = wall
        self._contexts = contexts or TlsContexts()
        self.adopted: AdoptedList | None = None
        self._left_out: dict[str, str] = {}
        self._results: Counter[str] = Counter()
        self._last_success_at: float | None = None
        self._last_error = ""
        self._last_asked = ""
        self._by_operator = False
        self._any_active = True
        self._due_at = -math.inf
        self._kick = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def view(self) -> MemberSyncView | None:
        """None if member sync is off."""
        interval_s = self._config.member_sync_s
        if not interval_s:
            return None
        adopted = self.adopted
        left_s = self._due_at - asyncio.get_running_loop().time()
        return MemberSyncView(
            interval_s=interval_s,
            last_success_at=self._last_success_at,
            last_error=self._last_error or None,
            last_asked=self._last_asked or None,
            next_ask_s=max(left_s, 0.0) if self._task else None,
            cluster_id=f"{adopted.cluster_id:x}" if adopted else None,
            confirmed=adopted.confirmed if adopted else False,
            members=tuple((each.member, str(each.address)) for each in adopted.targets)
            if adopted
            else (),
            left_out=dict(self._left_out),
            results=dict(self._results),
        )

    def remember(self, adopted: AdoptedList | None, view: MemberSyncView | None) -> None:
        """Go on with what the image before this one knew."""
        self.adopted = adopted if self._config.member_sync_s else None
        if view is not None:
            self._last_success_at = view.last_success_at
            self._results = Counter(view.results)

    async def ask_once(self) -> None:
        """Ask, and adopt what may be adopted; instead of :meth:`start`."""
        await self._sync()

    def start(self) -> None:
        """Ask now and from now on, if the configuration says so; endpoints are known."""
        if self._config.member_sync_s and self._task is None:
            self._task = asyncio.create_task(self._run(), name="member sync")

    async def reconfigure(self, config: Config, *, same_targets: bool) -> None:
        """An operator reloaded: ask at once, and let another cluster be adopted.

        ``same_targets``: False forgets the list, which belongs to targets of before.
        """
        self._config = config
        if not config.member_sync_s:
            await self.close()
        if not (config.member_sync_s and same_targets):
            self.adopted, self._left_out, self._last_error = None, {}, ""
        self._by_operator = True
        self._kick.set()
        self.start()

    def set_any_active(self, any_active: bool) -> None:
        """Whether any endpoint is active; while none is, everybody is asked again and again."""
        if self._any_active and not any_active:
            self._kick.set()
        self._any_active = any_active

    async def close(self) -> None:
        """End the task; what is asked now ends in order."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _run(self) -> None:
        now = asyncio.get_running_loop().time
        while True:
            self._kick.clear()
            try:
                await self._sync()
            except Exception as error:  # noqa: BLE001 (the boundary of this task)
                self._fail(f"internal error: {type(error).__name__}: {error}")
            wait_s = self._config.member_sync_s
            if not self._any_active:
                wait_s = min(wait_s, URGENT_S)
            self._due_at = now() + around_s(wait_s, self._draw)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(self._due_at):
                    await self._kick.wait()

    async def _sync(self) -> None:
        by_operator, self._by_operator = self._by_operator, False
        errors: list[str] = []
        heard = await self._ask_around(errors)
        if heard is None:
            self._fail("; ".join(sorted(errors)) or "there is nobody to ask")
            return
        self._last_asked = heard.endpoint
        match weigh(heard, self.adopted, by_operator=by_operator):
            case Refusal(reason):
                self._fail(reason)
            case Unchanged(left_out):
                self._succeed(left_out)
                self._confirm(True)
            case Proposal() as proposal:
                match judge(proposal, await self._dial_all(proposal)):
                    case Refusal(reason):
                        self._fail(f"{heard.endpoint}: {reason}")
                    case adopted:
                        self._adopt(adopted, proposal, heard)
            case other:
                assert_never(other)

    # -- what comes of it -------------------------------------------------------------------

    def _adopt(self, adopted: AdoptedList, proposal: Proposal, heard: Heard) -> None:
        before, self.adopted = self.adopted, adopted
        if before is not None and before.cluster_id != adopted.cluster_id:
            self._log.warn(
                "another cluster adopted, as a reload asks for it",
                cluster_id=f"{adopted.cluster_id:x}",
                before=f"{before.cluster_id:x}",
            )
        self._log.info(
            "member list adopted",
            cluster_id=f"{adopted.cluster_id:x}",
            endpoints=[str(each.address) for each in adopted.targets],
            asked=heard.endpoint,
        )
        self._succeed(proposal.left_out)
        self._around.on_change()

    def _succeed(self, left_out: dict[str, str]) -> None:
        for name, reason in left_out.items():
            if self._left_out.get(name) != reason:
                self._log.info("member left out", member=name, reason=reason)
        self._left_out = left_out
        if self._last_error:
            self._log.info("member sync works again", asked=self._last_asked)
        self._last_error = ""
        self._last_success_at = self._wall()
        self._results["success"] += 1

    def _fail(self, reason: str) -> None:
        if reason != self._last_error:
            self._log.warn("member sync failed, endpoints stay as they were", error=reason)
        self._last_error = reason
        self._results["failure"] += 1
        if not self._any_active:
            self._confirm(False)

    def _confirm(self, confirmed: bool) -> None:
        if self.adopted is not None and self.adopted.confirmed != confirmed:
            self.adopted = dataclasses.replace(self.adopted, confirmed=confirmed)
            self._around.on_change()

    # -- asking -----------------------------------------------------------------------------

    async def _ask_around(self, errors: list[str]) -> Heard | None:
        """The first answer; None, and each failure in ``errors``, if there is none."""
        known = {each.name: each for each in self._around.known()}
        active = [name for name in self._around.active() if name in known]
        order = order_to_ask(
            tuple(known), active, last=self._last_asked, draw=self._draw, most=MOST_ASKED
        )
        at_once = 1 if active else MOST_AT_ONCE
        for start in range(0, len(order), at_once):
            some = [known[name] for name in order[start : start + at_once]]
            if heard := await self._first_answer(some, errors):
                return heard
        return None

    async def _first_answer(self, some: Sequence[Discovered], errors: list[str]) -> Heard | None:
        tasks = [
            asyncio.create_task(self._ask(each), name=f"member sync {each.name}") for each in some
        ]
        try:
            for done in asyncio.as_completed(tasks):
                try:
                    return await done
                except EtcdError as error:
                    errors.append(str(error))
            return None
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask(self, endpoint: Discovered) -> Heard:
        """One endpoint's answer, by the first of its addresses that gives one."""
        error = "no address"
        for address in endpoint.addresses:
            try:
                return await self._ask_address(endpoint, address)
            except EtcdError as failure:
                error = str(failure)
        raise EtcdError(f"{endpoint.name}: {error}")

    async def _ask_address(self, endpoint: Discovered, address: str) -> Heard:
        peer = peer_of(
            self._config,
            endpoint.host,
            address,
            endpoint.port,
            tls=endpoint.tls,
            srv=endpoint.srv,
        )
        timeout_s = self._config.health_timeout_s
        try:
            async with (
                asyncio.timeout(timeout_s),
                EtcdConnection(peer, self._contexts) as member,
            ):
                # Not linearizable, a member that is cut off from the others tells an old list.
                # etcd 3.4 does not know the word, so the leader is asked for as well.
                listed = parse_list(await member.ask(MEMBER_LIST, {"linearizable": True}))
                leader = "unknown"
                with contextlib.suppress(EtcdError):
                    leader = (await member.ask(STATUS, last=True)).get("leader", "0")
        except TimeoutError:
            raise EtcdError(f"timeout: no answer within {timeout_s:g} s") from None
        except ValueError as error:
            raise EtcdError(str(error)) from None
        return Heard(
            listed=listed,
            endpoint=endpoint.name,
            from_elsewhere=not is_loopback(address),
            leaderless=leader == "0",
        )

    # -- dialing ----------------------------------------------------------------------------

    async def _dial_all(self, proposal: Proposal) -> dict[MemberTarget, str]:
        """The client URLs that cannot be dialed, with the reason."""
        slots = asyncio.Semaphore(MOST_AT_ONCE)
        srv = any(each.srv for each in self._around.known())
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
            if own := own_listen_address(address, port, self._around.listen(), is_local):
                error = f"is the gateway's own listen address {own}"
                continue
            peer = peer_of(self._config, host, address, port, tls=target.tls, srv=srv)
            try:
                async with asyncio.timeout(self._config.dial_timeout_s):
                    async with EtcdConnection(peer, self._contexts):
                        return
            except TimeoutError:
                error = f"timeout after {self._config.dial_timeout_s:g} s"
            except EtcdError as failure:
                error = str(failure)
        raise EtcdError(error)

    async def _addresses_of(self, address: HostPort) -> tuple[str, ...]:
        if literal := literal_ip(address.host):
            return (literal,)
        outcome = await self._around.look_up(host_question(address))
        if isinstance(outcome, Answer):
            return outcome.addresses
        raise EtcdError(outcome.error)


def peer_of(config: Config, host: str, address: str, port: int, *, tls: bool, srv: bool) -> Peer:
    """How to speak with a member: as a probe would.

    ``srv``: it is judged by the discovery domain, as what SRV records named.
    """
    files = TlsFiles(
        ca_file=config.trusted_ca_file,
        cert_file=config.health_cert_file,
        key_file=config.health_key_file,
        verify=not (srv and config.insecure_discovery),
    )
    return Peer(
        address=address,
        port=port,
        server_name=tls_domain(config) if srv else host,
        files=files if tls or config.health_check in ("tls", "https") else None,
    )
