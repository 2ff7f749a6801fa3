"""Asks DNS what is due, and keeps what it said."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from supervisor.core.config import Config
from supervisor.core.discovery.answers import CONFIRM_S, Answers, Entry, Refresh
from supervisor.core.discovery.dead_end import find_dead_ends
from supervisor.core.discovery.questions import (
    Answer,
    Negative,
    Outcome,
    Question,
    QuestionKind,
)
from supervisor.core.discovery.targets import Owner
from supervisor.core.discovery.trace import Step
from supervisor.discovery.local_addresses import has_route
from supervisor.discovery.means import Means
from supervisor.discovery.parallel import run_in_parallel

if TYPE_CHECKING:
    from supervisor.discovery.resolver import Resolver


class Asker:
    """The questions of one configuration; ``answers`` are what is held of them.

    ``before`` is the Asker of the configuration before: its answers are kept, and its resolver if
    the nameservers are the same.
    """

    def __init__(self, config: Config, means: Means, *, traced: bool, before: Asker | None) -> None:
        self.answers: Answers = before.answers.copy() if before else Answers()
        self._means = means
        self.steps: dict[Question, tuple[Step, ...]] | None = {} if traced else None
        """How each answer was found, if ``traced``."""
        self._nameserver = config.nameserver
        self._refresh = Refresh(
            config.discovery_refresh,
            config.discovery_refresh_s,
            confirm_s=config.removal_grace_s or CONFIRM_S,
        )
        self._resolver: Resolver | None = None
        self._resolver_stamp: object = None
        if before is not None and before._nameserver == config.nameserver:
            self._resolver = before._resolver
            self._resolver_stamp = before._resolver_stamp

    async def ask(
        self,
        questions: Iterable[Question],
        *,
        force: bool,
        late: Callable[[], None] | None = None,
    ) -> list[Question]:
        """Ask those that are due, or all if ``force`` is true; returns those that were asked.

        ``late`` is called if some answers take longer than EARLY_S.
        """
        now = asyncio.get_running_loop().time
        asked = list(questions) if force else list(self.answers.due(questions, now()))
        if not asked:
            return []
        resolver = self._current_resolver()

        async def ask(question: Question) -> None:
            looked = await resolver.look_up(question)
            if self.steps is not None:
                self.steps[question] = looked.steps
            self.answers.take(
                question,
                looked.outcome,
                now=now(),
                refresh=self._refresh,
                draw=self._means.draw,
                useless=_is_useless(looked.outcome),
            )
            believed = isinstance(self.answers.lookup(question), Negative)
            searched = question.kind is QuestionKind.SEARCH
            if believed and searched and self._means.search_memory.forget(question.name):
                await ask(question)  # now a later name of the search list may take the place

        await run_in_parallel([partial(ask, each) for each in asked], late=late)
        return asked

    def leave_dead_end(self, owners: Sequence[Owner], before: Mapping[Question, Entry]) -> None:
        """Go back to the SRV records held before, if those of now lead nowhere."""
        held = {question: entry.held for question, entry in before.items()}
        dead_ends = find_dead_ends(owners, self.answers.lookup, held)
        for question, outcome in dead_ends.items():
            self.answers.go_back(
                question,
                before[question],
                outcome,
                now=asyncio.get_running_loop().time(),
                refresh=self._refresh,
                draw=self._means.draw,
            )

    async def look_up(self, question: Question) -> Outcome:
        """What DNS says now, whatever was asked before; it is not kept."""
        return (await self._current_resolver().look_up(question)).outcome

    def _current_resolver(self) -> Resolver:
        """The resolver; a new one if resolv.conf was changed."""
        from supervisor.discovery.resolver import (
            Resolver,  # 40 ms to import: not for literal addresses
        )

        try:
            status = os.stat(self._means.files.resolv_conf)
            stamp = (status.st_mtime_ns, status.st_ino, status.st_size)
        except OSError:
            stamp = None
        if self._resolver is None or stamp != self._resolver_stamp:
            self._resolver = Resolver(
                self._nameserver,
                self._means.files,
                self._means.log,
                max_concurrent=self._means.max_lookups,
                search_memory=self._means.search_memory,
            )
            self._resolver_stamp = stamp
        return self._resolver


def _is_useless(outcome: Outcome) -> bool:
    """Whether one family got no answer, and this host has no way to any address of the other."""
    if not isinstance(outcome, Answer) or not outcome.unanswered:
        return False
    return not any(map(has_route, outcome.addresses))
