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
from typing import assert_never

from gateway.core.address import Address
from gateway.core.log import Log
from gateway.core.records import dataclass
from supervisor.core.admin.views import MemberSyncView
from supervisor.core.backoff import Draw, around_s
from supervisor.core.config import Config
from supervisor.core.discovery.adoption import (
    AdoptedList,
    Heard,
    Hearing,
    Proposal,
    Refusal,
    Unchanged,
    judge,
    order_to_ask,
)
from supervisor.core.discovery.joining import find_seeds
from supervisor.core.discovery.questions import Outcome, Question
from supervisor.core.discovery.resolution import Resolution
from supervisor.core.discovery.schedule import URGENT_S
from supervisor.core.discovery.seed_votes import SeedVotes
from supervisor.discovery.member_questions import MOST_AT_ONCE, MemberQuestions
from supervisor.discovery.member_sync_log import MemberSyncLog
from supervisor.system.connections import CLOSE_S
from supervisor.system.etcd_client import EtcdError
from supervisor.system.tls_contexts import TlsContexts

MOST_ASKED = 3
"""Members asked one after the other until one answers, while any endpoint is active."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the task is told when it asks.

    ``resolution``: the last one that was made known. ``active``: names of active endpoints.
    ``listen``: the gateway's own addresses as literals. ``on_change``: endpoints may differ now.
    """

    resolution: Callable[[], Resolution]
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
        contexts: TlsContexts,
    ) -> None:
        self._config = config
        self._log = log
        self._says = MemberSyncLog(log)
        self._around = around
        self._draw = draw
        self._wall = wall
        self._questions = MemberQuestions(
            config, contexts, listen=around.listen, look_up=around.look_up
        )
        self.adopted: AdoptedList | None = None
        self._votes = SeedVotes()
        self._outsiders: set[str] = set()
        """Who said last that it is a member of another cluster than the adopted one."""
        self._left_out: dict[str, str] = {}
        self._results: Counter[str] = Counter()
        self._last_success_at: float | None = None
        self._last_error = ""
        self._last_asked = ""
        self._by_operator = False
        self._forgotten = 0
        """How often the list was forgotten: what was asked before that is of no use any more."""
        self._any_active = True
        self._asked_everybody = False
        """Whether the last question was for everybody, as nobody was active when it began."""
        self._due_at = -math.inf
        self._kick = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._paused = False
        self._to_start = False
        """To be started when the pause is over."""

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
        if self.adopted is not None:
            self._votes.settle()
            self._outsiders = set(self.adopted.outsiders)
        if view is not None:
            self._last_success_at = view.last_success_at
            self._results = Counter(view.results)

    async def ask_once(self) -> Collection[str]:
        """Ask, and adopt what may be adopted; instead of :meth:`start`. Who was passed over."""
        await self._sync()
        return self._says.who_was_passed_over

    def find_doubt(self) -> str:
        """Why another cluster may still be adopted; "" if none may. While nobody is asked."""
        self._begin_votes()
        return self._votes.doubt

    def start(self) -> None:
        """Ask now and from now on, if the configuration says so; endpoints are known."""
        self._to_start = self._paused
        if self._config.member_sync_s and self._task is None and not self._paused:
            self._task = asyncio.create_task(self._run(), name="member sync")

    def begin_with(self, config: Config) -> None:
        """Use another configuration; only before :meth:`start`."""
        self._config = self._questions.config = config

    async def reconfigure(self, config: Config, *, same_targets: bool, ask: bool = True) -> None:
        """An operator reloaded: ask at once, and let another cluster be adopted.

        ``same_targets``: False forgets the list, which belongs to targets of before.
        ``ask``: False leaves the beginning to :meth:`start`, for there is nobody to ask yet.
        """
        self._config = self._questions.config = config
        if not config.member_sync_s:
            await self.close()
        if not (config.member_sync_s and same_targets):
            self.adopted, self._left_out, self._last_error = None, {}, ""
            self._votes.forget()
            self._outsiders.clear()
            self._says.forget()
            self._forgotten += 1
        self._by_operator = True
        self._kick.set()
        if ask:
            self.start()

    def set_any_active(self, any_active: bool) -> None:
        """Whether any endpoint is active; while none is, everybody is asked again and again."""
        if self._any_active and not any_active:
            self._kick.set()
        self._any_active = any_active

    async def close(self) -> None:
        """End the task; what is asked now may end in order for CLOSE_S."""
        task, self._task = self._task, None
        if task is not None:
            self._kick.set()
            await asyncio.wait({task}, timeout=CLOSE_S)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def pause(self) -> None:
        """Ask nobody until :meth:`resume`; what is asked now may end in order."""
        self._paused, self._to_start = True, self._task is not None
        await self.close()

    def resume(self) -> None:
        """Go on, if it was on, or is to be on now."""
        self._paused = False
        if self._to_start:
            self.start()

    async def _run(self) -> None:
        now = asyncio.get_running_loop().time
        while self._task is asyncio.current_task():  # until it is closed
            self._kick.clear()
            try:
                await self._sync()
            except Exception as error:  # noqa: BLE001 (the boundary of this task)
                reason = f"internal error: {type(error).__name__}: {error}"
                self._fail(reason, {reason})
            wait_s = self._config.member_sync_s
            if not self._any_active:
                wait_s = min(wait_s, URGENT_S)
            self._due_at = now() + around_s(wait_s, self._draw)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(self._due_at):
                    await self._kick.wait()

    async def _sync(self) -> None:
        by_operator, self._by_operator = self._by_operator, False
        used = False
        try:
            self._begin_votes(by_operator=by_operator)
            self._says.doubted(self._votes.doubt)
            used = await self._ask(Hearing(self.adopted, self._votes, by_operator=by_operator))
        finally:
            self._by_operator |= by_operator and not used

    def _begin_votes(self, *, by_operator: bool = False) -> None:
        seeds = find_seeds(self._around.resolution(), self.adopted)
        followed = self.adopted.cluster_id if self.adopted else None
        self._votes.begin(seeds.names, seeds.members, followed, by_operator=by_operator)
        self._outsiders &= seeds.names

    async def _ask(self, hearing: Hearing) -> bool:
        """Ask, and follow what may be followed.

        Whether an answer was: also one that says nothing new, or that can never be followed.
        """
        errors: list[EtcdError] = []
        forgotten = self._forgotten
        await self._ask_around(hearing, errors)
        if forgotten != self._forgotten:
            return False
        self._outsiders = hearing.outsiders(self._outsiders)
        if hearing.outcome is None:
            if refusals := hearing.refusals:
                self._fail(refusals[0], refusals)
            else:
                errors = errors or [EtcdError("there is nobody to ask")]
                self._fail("; ".join(sorted(map(str, errors))), {each.kind for each in errors})
            return hearing.is_decided
        self._says.passed_over(hearing.refusals)
        heard, judged = hearing.outcome
        self._last_asked = heard.endpoint
        match judged:
            case Unchanged(left_out):
                self._succeed(left_out)
                self._confirm(True)
            case Proposal():
                failures = await self._questions.dial_all(judged, srv=self._any_srv)
                if forgotten != self._forgotten:
                    return False
                match judge(judged, failures):
                    case Refusal(reason):
                        self._fail(f"{heard.endpoint}: {reason}", {reason})
                        return False
                    case adopted:
                        self._adopt(adopted, judged, heard, by_reload=hearing.by_operator)
            case other:
                assert_never(other)
        return hearing.is_decided

    # -- what comes of it -------------------------------------------------------------------

    def _adopt(
        self, adopted: AdoptedList, proposal: Proposal, heard: Heard, *, by_reload: bool
    ) -> None:
        before, self.adopted = self.adopted, adopted
        if before is not None and before.cluster_id != adopted.cluster_id:
            self._outsiders.clear()
            self._says.another_adopted(adopted.cluster_id, before.cluster_id, by_reload=by_reload)
        self._log.info(
            "member list adopted",
            cluster_id=f"{adopted.cluster_id:x}",
            endpoints=[str(each.address) for each in adopted.targets],
            asked=heard.endpoint,
        )
        self._succeed(proposal.left_out)
        self._around.on_change()

    def _succeed(self, left_out: dict[str, str]) -> None:
        self._left_out = left_out
        self._says.succeeded(left_out, self._last_asked)
        self._last_error = ""
        self._last_success_at = self._wall()
        self._results["success"] += 1

    def _fail(self, text: str, reasons: Collection[str]) -> None:
        self._says.failed(text, reasons)
        self._last_error = text
        self._results["failure"] += 1
        # While seeds are used, one of them may be active, and say that it does not belong here.
        seeds_used = self.adopted is not None and not self.adopted.confirmed
        if seeds_used or (self._asked_everybody and not self._any_active):
            self._confirm(False)

    def _confirm(self, confirmed: bool) -> None:
        if (before := self.adopted) is None:
            return
        outsiders = frozenset() if confirmed else frozenset(self._outsiders)
        self.adopted = dataclasses.replace(before, confirmed=confirmed, outsiders=outsiders)
        if self.adopted != before:
            self._around.on_change()

    async def _ask_around(self, hearing: Hearing, errors: list[EtcdError]) -> None:
        """Ask until an answer may be followed; each failure goes into ``errors``."""
        known = {each.name: each for each in self._around.resolution().known}
        self._questions.retain(known.values())
        # One that is active only because too few others are need not be a member that answers.
        self._asked_everybody = not self._any_active
        active = [each for each in self._around.active() if each in known and self._any_active]
        order = order_to_ask(
            tuple(known),
            active,
            last=self._last_asked,
            draw=self._draw,
            most=MOST_AT_ONCE if hearing.any_cluster else MOST_ASKED,
        )
        at_once = 1 if active and not hearing.any_cluster else MOST_AT_ONCE
        for start in range(0, len(order), at_once):
            some = [known[name] for name in order[start : start + at_once]]
            enough = await self._questions.first_answer(some, errors, hearing.take)
            if enough or (hearing.any_cluster and hearing.answers):
                hearing.put_in_order(order)
                return

    @property
    def _any_srv(self) -> bool:
        """Whether the targets are SRV records: members are then judged by the discovery domain."""
        return any(each.srv for each in self._around.resolution().known)
