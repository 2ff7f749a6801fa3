"""What the service manager is told, and when."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from supervisor.handover.systemd import Notify

PATIENCE_S = 15.0
"""How much more time is asked for at each tick of a start or a stop that takes long."""

LOOKS = 20
"""How often within an interval it is looked whether workers live again that did not when the
watchdog was to be fed: it is fed then, and not at the next turn, when it may be too late."""


class ServiceNotifier:
    """``summary()`` is the STATUS line now; ``healthy()`` says whether to feed the watchdog.

    ``reloading``: the image before has said RELOADING=1 for a reload that this one does again.
    """

    def __init__(
        self,
        notify: Notify,
        *,
        summary: Callable[[], str],
        healthy: Callable[[], bool],
        reloading: bool = False,
    ) -> None:
        self._notify = notify
        self._summary = summary
        self._healthy = healthy
        self._ready = False
        self._reload_said = reloading
        self._reload_unsaid = False
        self._reload_error: str | None = None
        self._watchdog: asyncio.TimerHandle | None = None

    def feed_watchdog(self, interval_s: float | None) -> None:
        """Begin to feed the watchdog, once; None: there is none.

        The first image waits for READY=1, because systemd does. The next one must not: its watchdog
        runs, and workers of the image before serve meanwhile.
        """
        if interval_s is not None and self._watchdog is None:
            self._feed(interval_s)

    async def tell_ready(self) -> None:
        """Say READY=1 once the descriptor store is complete.

        A service manager that sent HUP before waits for the word of a reload, and it may wait for
        good (``Type=notify-reload`` with ``TimeoutStartSec=infinity``). A reload that the image
        before has begun is under way: READY=1 is said at its end.
        """
        await self._notify.barrier()
        self._ready = True
        if self._reload_said:
            return
        if self._reload_unsaid:
            self._notify.reloading()
        self._notify.ready(self._status())

    def tell_reloading(self) -> None:
        """A reload begins. Of one before READY=1 it is told with that, as a part of the start."""
        if self._reload_said:
            return
        if self._ready:
            self._notify.reloading()
        else:
            self._reload_unsaid = True

    def tell_reloaded(self, error: str | None) -> None:
        """Say READY=1 after a reload; that one failed can only be said in the status.

        It stays there until one works: the file is not what runs. READY=1 is not said before the
        start is over, for it would be taken for the end of the start.
        """
        self._reload_error = error
        self._reload_said = False
        if self._ready:
            self._notify.ready(self._status())

    def show_status(self) -> None:
        """Send the status if it has changed."""
        if self._ready and self._notify.enabled:
            self._notify.status(self._status())

    def _status(self) -> str:
        text = self._summary()
        failed = self._reload_error is not None
        return f"reload failed: {self._reload_error}; {text}" if failed else text

    def ask_patience(self) -> None:
        """Ask for more time, because a start or a stop goes on."""
        self._notify.extend(PATIENCE_S)

    def close(self) -> None:
        if self._watchdog is not None:
            self._watchdog.cancel()
        self._notify.close()

    def _feed(self, interval_s: float) -> None:
        """Feed the watchdog: this call proves that the loop runs; ``healthy`` knows the workers."""
        loop = asyncio.get_running_loop()
        healthy = self._healthy()
        wait_s = interval_s if healthy else interval_s / LOOKS
        self._watchdog = loop.call_later(wait_s, self._feed, interval_s)
        if healthy:
            self._notify.watchdog()
