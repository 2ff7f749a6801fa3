"""What the service manager is told in the course of the gateway's life, and when."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from supervisor.handover.systemd import Notify

PATIENCE_S = 15.0
"""How much time the service manager is asked for while something takes long, every tick anew."""


class ServiceNotifier:
    """``summary()`` is the STATUS line of this moment; ``healthy()``: the watchdog may be fed."""

    def __init__(
        self,
        notify: Notify,
        *,
        summary: Callable[[], str],
        healthy: Callable[[], bool],
    ) -> None:
        self._notify = notify
        self._summary = summary
        self._healthy = healthy
        self._ready = False
        self._watchdog: asyncio.TimerHandle | None = None

    async def tell_ready(self, watchdog_interval_s: float | None) -> None:
        """After everything in the descriptor store has arrived; then the watchdog is fed."""
        await self._notify.barrier()
        self._ready = True
        self._notify.ready(self._summary())
        if watchdog_interval_s is not None:
            self._feed(watchdog_interval_s)

    def tell_reloaded(self, error: str | None) -> None:
        """There is no word for a reload that failed: it is ready again, and the status says so."""
        text = self._summary()
        self._notify.ready(text if error is None else f"reload failed: {error}; {text}")

    def show_status(self) -> None:
        """The status may have changed."""
        if self._ready and self._notify.enabled:
            self._notify.status(self._summary())

    def ask_patience(self) -> None:
        """A start or a stop goes on."""
        self._notify.extend(PATIENCE_S)

    def close(self) -> None:
        if self._watchdog is not None:
            self._watchdog.cancel()
        self._notify.close()

    def _feed(self, interval_s: float) -> None:
        """That this runs proves that the loop turns; the workers' part is asked for."""
        loop = asyncio.get_running_loop()
        self._watchdog = loop.call_later(interval_s, self._feed, interval_s)
        if self._healthy():
            self._notify.watchdog()
