"""Reloads: one at a time, and one more for all that were asked for while it ran."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Awaitable, Callable, Sequence

from gateway.core.log import Log
from gateway.core.records import dataclass
from supervisor.core.admin.views import ReloadView
from supervisor.core.config import Config
from supervisor.core.config_error import ConfigError
from supervisor.core.reload_rules import keep_fixed
from supervisor.discovery.requests import ReloadFailedError
from supervisor.system.connections import dial_as, find_foreign_source


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """What a reload is made of; the master provides it.

    ``running()`` is the configuration in use and ``reread()`` makes the new one, of which
    ``fixed()`` names the fields that are not used.
    ``resolve(config, on_taken)`` returns when the new targets are resolved and used; it calls
    ``on_taken()`` for a configuration that can be used, and for no other, before it makes new
    endpoints known.
    ``apply(config)`` uses the configuration. ``on_begin()`` and ``on_end(error)`` are called around
    every reload; ``error`` is None for one that worked.
    """

    running: Callable[[], Config]
    reread: Callable[[], Config]
    fixed: Callable[[], Sequence[str]]
    resolve: Callable[[Config, Callable[[], None]], Awaitable[None]]
    apply: Callable[[Config], None]
    on_begin: Callable[[], None]
    on_end: Callable[[str | None], None]


class Reloader:
    """Reads the configuration again, resolves its targets, and applies it.

    ``view`` tells the status document about reloads. It goes on from the view of the image before
    an upgrade: a reload that the upgrade interrupted is done again, and then one that was asked for
    meanwhile, so that whoever waits for the number of either gets it. What the last reload of that
    image refused is over: this one has read the configuration itself, and uses it.
    """

    def __init__(self, steps: Steps, log: Log, view: ReloadView) -> None:
        self._steps = steps
        self._log = log
        self._task: asyncio.Task[None] | None = None
        self.view = dataclasses.replace(view, refused=False, needs_restart=())

    def ask(self) -> None:
        """Reload now, or once more after the reload that is under way."""
        self.remember()
        self.resume()

    def tell_kept(self, flag: str) -> None:
        """The start could not apply the flag's new value, and goes on with the one of before."""
        self.view = dataclasses.replace(self.view, needs_restart=(flag,))

    def remember(self) -> None:
        """Reload at :meth:`resume`: the gateway is still starting."""
        self.view = dataclasses.replace(self.view, asked=True)

    def resume(self) -> None:
        """The start is over: do the reload that it put off, or that an upgrade interrupted."""
        if self._task is None and (self.view.under_way or self.view.asked):
            self._task = asyncio.create_task(self._work(), name="reload")

    def cancel(self) -> None:
        """Give up a reload that is under way, because the gateway ends."""
        if self._task is not None:
            self._task.cancel()

    async def _work(self) -> None:
        try:
            if self.view.under_way:
                await self._reload()
            while self.view.asked:
                self.view = dataclasses.replace(self.view, asked=False)
                await self._reload()
        finally:
            self._task = None

    async def _reload(self) -> None:
        self.view = dataclasses.replace(self.view, under_way=True)
        in_vain, error = await self._attempt()
        result = "complete" if error is None else "failed"
        before = self.view.results
        self.view = ReloadView(
            last_at=time.time(),
            last_result=result,
            last_error=error,
            results={**before, result: before.get(result, 0) + 1},
            asked=self.view.asked,
            refused=error is not None,
            needs_restart=self.view.needs_restart if in_vain is None else in_vain,
        )
        self._steps.on_end(error)

    async def _attempt(self) -> tuple[tuple[str, ...] | None, str | None]:
        """The flags that were changed in vain, None if nothing is used; and what went wrong."""
        try:
            self._steps.on_begin()
            steps = self._steps
            config, needs_restart = keep_fixed(steps.running(), steps.reread(), steps.fixed())
            await self._resolve_and_apply(config)
        except (ConfigError, ReloadFailedError) as error:
            self._log.error("reload failed", error=str(error))
            return None, str(error)
        except Exception as error:  # noqa: BLE001 - the boundary: every reload ends and says how
            text = f"internal error: {error!r}"
            self._log.error("reload failed", error=text)
            return None, text
        self._log.info(
            "reload complete", **({"needs_restart": list(needs_restart)} if needs_restart else {})
        )
        return needs_restart, None

    async def _resolve_and_apply(self, config: Config) -> None:
        """Resolve and check TLS, already dialing as the new configuration says.

        An endpoint that requires what is new in it would fail the check of the old one. The rest
        counts for the new endpoints from their first moment, and for those that leave.
        """
        if foreign := find_foreign_source(config):
            raise ReloadFailedError(foreign)
        failures: list[Exception] = []

        def apply() -> None:
            try:
                self._steps.apply(config)
            except Exception as error:  # noqa: BLE001 - who resolved is to go on, whatever fails
                failures.append(error)

        dial_as(config)
        try:
            await self._steps.resolve(config, apply)
            if failures:
                raise failures[0]
        except BaseException:
            dial_as(self._steps.running())
            raise
