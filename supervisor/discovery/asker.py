"""Asks DNS what is due, and keeps what it said."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING

from gateway.core.log import Log
from supervisor.core.backoff import Draw
from supervisor.core.config import Config
from supervisor.core.discovery.answers import CONFIRM_S, Answers, Refresh
from supervisor.core.discovery.questions import Negative, Outcome, Question
from supervisor.core.discovery.search import SearchMemory
from supervisor.core.discovery.system_names import Files
from supervisor.core.discovery.trace import Step
from supervisor.discovery.parallel import run_in_parallel

if TYPE_CHECKING:
    from supervisor.discovery.resolver import Resolver


class Asker:
    """The questions of one configuration; ``answers`` are what is held of them.

    ``before`` is the Asker of the configuration before: its answers are kept, and its resolver if
    the nameservers are the same. ``max_lookups``: for how many at once there are descriptors.
    ``search_memory`` says which names of the search list the answers that are in use are of.
    """

    def __init__(
        self,
        config: Config,
        *,
        log: Log | None,
        files: Files,
        draw: Draw,
        max_lookups: int,
        traced: bool,
        before: Asker | None,
        search_memory: SearchMemory | None,
    ) -> None:
        self.answers: Answers = before.answers.copy() if before else Answers()
        self._search_memory = search_memory or SearchMemory()
        self.steps: dict[Question, tuple[Step, ...]] | None = {} if traced else None
        """How each answer was found, if ``traced``."""
        self._nameserver = config.nameserver
        self._log = log
        self._files = files
        self._draw = draw
        self._max_lookups = max_lookups
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
                question, looked.outcome, now=now(), refresh=self._refresh, draw=self._draw
            )
            believed = isinstance(self.answers.lookup(question), Negative)
            if believed and self._search_memory.forget(question.name):
                await ask(question)  # now a later name of the search list may take the place

        await run_in_parallel([partial(ask, each) for each in asked], late=late)
        return asked

    async def look_up(self, question: Question) -> Outcome:
        """What DNS says now, whatever was asked before; it is not kept."""
        return (await self._current_resolver().look_up(question)).outcome

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
                self._nameserver,
                self._files,
                self._log,
                max_concurrent=self._max_lookups,
                search_memory=self._search_memory,
            )
            self._resolver_stamp = stamp
        return self._resolver
