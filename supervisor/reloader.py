"""Reloads in the master: one at a time, and however many were asked for meanwhile, one more."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable

from gateway.core.log import Log
from supervisor.core.admin.views import ReloadView
from supervisor.core.config import Config, ConfigError
from supervisor.core.reload_rules import keep_fixed
from supervisor.discovery.loop import DiscoveryLoop, ReloadFailedError


class Reloader:
    """Reads the configuration again, has everything resolved, then has it applied.

    ``apply(config)`` is called only for a configuration that can be used. ``on_begin()`` and
    ``on_end(error)`` frame every reload; ``error`` is None for one that worked. ``view`` is what
    is known of earlier reloads.
    """

    def __init__(
        self,
        reread: Callable[[], Config],
        log: Log,
        *,
        apply: Callable[[Config], None],
        on_begin: Callable[[], None],
        on_end: Callable[[str | None], None],
        view: ReloadView,
    ) -> None:
        self._reread = reread
        self._log = log
        self._apply = apply
        self._on_begin = on_begin
        self._on_end = on_end
        self._results = Counter(view.results)
        self._wanted = False
        self._task: asyncio.Task[None] | None = None
        self.view = view

    def ask(self, running: Callable[[], Config], discovery_loop: DiscoveryLoop) -> None:
        """Reload now, or once more after the reload at work."""
        self._wanted = True
        if self._task is None:
            self._task = asyncio.create_task(self._work(running, discovery_loop), name="reload")

    def cancel(self) -> None:
        """The gateway ends: a reload at work is of no use any more."""
        if self._task is not None:
            self._task.cancel()

    async def _work(self, running: Callable[[], Config], discovery_loop: DiscoveryLoop) -> None:
        try:
            while self._wanted:
                self._wanted = False
                self._on_begin()
                error = await self._once(running(), discovery_loop)
                result = "complete" if error is None else "failed"
                self._results[result] += 1
                self.view = ReloadView(
                    last_at=time.time(),
                    last_result=result,
                    last_error=error,
                    results=dict(self._results),
                )
                self._on_end(error)
        finally:
            self._task = None

    async def _once(self, running: Config, discovery_loop: DiscoveryLoop) -> str | None:
        """One reload; what went wrong, or None."""
        try:
            config, in_vain = keep_fixed(running, self._reread())
            await discovery_loop.reload(config)
        except (ConfigError, ReloadFailedError) as error:
            self._log.error("reload failed", error=str(error))
            return str(error)
        self._apply(config)
        self._log.info("reload complete", **({"needs_restart": list(in_vain)} if in_vain else {}))
        return None
