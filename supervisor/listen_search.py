"""The first step of a start: which addresses the gateway listens on.

It may take as long as DNS does. A reload meanwhile gives the start another configuration, of which
everything is used that nothing was made of yet.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from gateway.core.address import Address
from gateway.process_title import set_title
from supervisor.core.config import Config
from supervisor.core.reload_rules import flag_name
from supervisor.discovery.listen_addresses import (
    UnresolvedListenError,
    resolve_listen,
    wait_for_listen,
)
from supervisor.discovery.requests import ReloadFailedError
from supervisor.discovery.targets import BadTargetError
from supervisor.handover.inherited_listen import (
    find_listen,
    find_listen_after_restart,
    keep_listen,
)
from supervisor.handover.upgrade import OLD_WORKERS_GO_ON
from supervisor.parts import Parts
from supervisor.system.connections import find_foreign_source

RETRY_S = 5.0
"""Between two looks whether this host has the address to dial from, or whether a name is there."""

KEPT = "the listen addresses stay as they were"


class ListenSearch:
    """Finds the listen addresses for ``parts``; ``is_on`` while a reload can change them."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._reloaded = asyncio.Event()
        self.is_on = False

    async def find(self) -> tuple[Address, ...]:
        """The listen addresses as literals. Raises BadTargetError."""
        # An upgrade has been tried with its configuration, and finds the addresses at once.
        self.is_on = not self._parts.left.goes_back
        try:
            while True:
                set_title("master", ",".join(map(str, self._parts.config.listen_addr)))
                found = await self._try()
                if not self._reloaded.is_set():
                    return found
                self._reloaded.clear()
        finally:
            self.is_on = False

    async def go_on_with(self, config: Config, on_taken: Callable[[], None]) -> None:
        """A reload while :attr:`is_on`: look for the addresses of ``config``.

        ReloadFailedError: they can never be, or those of before were found meanwhile.
        """
        try:
            await resolve_listen(config.listen_addr, config.nameserver)
        except BadTargetError as error:
            raise ReloadFailedError(str(error)) from None
        except UnresolvedListenError:
            pass  # it is they that are waited for now
        if not self.is_on:
            raise ReloadFailedError("the listen addresses of before were found, reload again")
        self._parts.discovery_loop.begin_with(config)
        on_taken()
        self._reloaded.set()

    async def _try(self) -> tuple[Address, ...]:
        """The addresses of the configuration in use; none as soon as a reload has changed it."""
        looking = asyncio.ensure_future(self._look())
        waiting = asyncio.ensure_future(self._reloaded.wait())
        try:
            await asyncio.wait((looking, waiting), return_when=asyncio.FIRST_COMPLETED)
            return () if self._reloaded.is_set() else looking.result()
        finally:
            looking.cancel()
            waiting.cancel()
            await asyncio.gather(looking, waiting, return_exceptions=True)

    async def _look(self) -> tuple[Address, ...]:
        parts = self._parts
        parts.left.fit(parts.config, parts.loop.time())
        await self._wait_for_source()
        while True:
            try:
                return await self._find_once()
            except BadTargetError as error:
                if not (parts.left.crashed and parts.left.took_over):
                    raise
                # Its workers serve, and nobody asked for this start: a reload is the way out.
                parts.log.error(OLD_WORKERS_GO_ON, error=str(error))
            await asyncio.sleep(RETRY_S)

    async def _find_once(self) -> tuple[Address, ...]:
        """Raises BadTargetError: they can never be."""
        parts = self._parts
        # What is bound already does not depend on DNS.
        config, state = parts.config, parts.left.state
        if state.listen and parts.left.restarted:
            return await find_listen_after_restart(config, state, parts.log)
        if state.listen:
            try:
                return await find_listen(config, state)
            except BadTargetError as error:
                if not state.failure:
                    raise
                # This image is gone back to, and its file was changed meanwhile: it has no other.
                parts.log.error(KEPT, error=str(error))
                parts.config = keep_listen(config, state)
                parts.reloader.tell_kept(flag_name("listen_addr"))
                return await find_listen(parts.config, state)
        return await wait_for_listen(
            config.listen_addr, config.nameserver, parts.log, draw=random.randrange
        )

    async def _wait_for_source(self) -> None:
        """Workers that can dial nobody do not take over from those of a former master.

        Those of this very configuration can dial nobody either, and an upgrade has been tried.
        """
        parts = self._parts
        while parts.left.replaces(parts.image):
            if not (foreign := find_foreign_source(parts.config)):
                return
            parts.log.error(OLD_WORKERS_GO_ON, error=foreign)
            await asyncio.sleep(RETRY_S)
