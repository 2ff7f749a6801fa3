"""What each signal makes the master do (docs/signals.md)."""

from __future__ import annotations

import signal
from collections.abc import Callable

from gateway.core import messages
from supervisor.core.admin.document import log_lines
from supervisor.gateway_view import make_view
from supervisor.master_handover import MasterHandover
from supervisor.parts import Parts
from supervisor.system import limits

UNCHANGED = "number of workers unchanged"


class SignalActions:
    """Sets the parts going; each signal is done with, or is a task, when :meth:`act` returns.

    ``is_looking()``: whether a start looks for its listen addresses.
    """

    def __init__(
        self, parts: Parts, handover: MasterHandover, *, is_looking: Callable[[], bool]
    ) -> None:
        self._parts = parts
        self._handover = handover
        self._is_looking = is_looking

    def act(self, number: signal.Signals) -> None:
        """Do what the signal asks for; one that is not named here ends the gateway."""
        parts = self._parts
        match number:
            case signal.SIGHUP:
                self._ask_reload()
            case signal.SIGUSR1:
                self._log_status()
            case signal.SIGUSR2:
                parts.tasks.start(parts.upgrade.attempt(), "upgrade")
            case signal.SIGTTIN:
                self._resize(+1)
            case signal.SIGTTOU:
                self._resize(-1)
            case _:
                parts.shutdown.on_signal(
                    number,
                    parts.pool,
                    now=parts.loop.time(),
                    handover=parts.config.handover,
                    drain_timeout_s=parts.config.drain_timeout_s,
                )
                parts.admin.forget_view()

    def _ask_reload(self) -> None:
        parts = self._parts
        if parts.shutdown.draining:
            parts.log.warn("no reload now", reason="draining")
        elif parts.pool is not None or self._is_looking() or parts.discovery_loop.is_searching:
            parts.reloader.ask()  # a start that finds nothing may have been given wrong names
        else:
            parts.log.info("the reload follows the start")
            parts.reloader.remember()

    def _log_status(self) -> None:
        for msg, fields in log_lines(make_view(self._parts)):
            self._parts.log.answer(msg, **fields)

    def _resize(self, by: int) -> None:
        """One worker more or less; while there is no pool, when it is made."""
        parts = self._parts
        pool, log = parts.pool, parts.log
        before = parts.plan_workers() if pool is None else pool.wanted
        if parts.shutdown.draining:
            log.warn(UNCHANGED, workers=before, reason="draining")
            return
        open_files = limits.open_files() if parts.workers_given else limits.raise_open_files()
        obstacle = self._find_obstacle(open_files, before + by) if by > 0 else ""
        after = before if obstacle else self._ask_for(by)
        self._handover.write_record()
        if after == before:
            reason = {"reason": obstacle} if obstacle else {"most": messages.MAX_SLOTS}
            log.warn(UNCHANGED, workers=after, **reason)
        else:
            parts.share_out_files(open_files, workers=after)
            log.info("number of workers changed", workers=after)

    def _ask_for(self, by: int) -> int:
        """Have so many workers more, as far as there may be; how many there are to be now."""
        parts = self._parts
        return parts.plan_more(by) if parts.pool is None else parts.pool.resize(by)

    def _find_obstacle(self, open_files: int, workers: int) -> str:
        """Why so many cannot be had; slots without a worker would take what others need."""
        listen = len(self._parts.listen or self._parts.config.listen_addr)
        return limits.find_obstacle(open_files, workers=workers, listen=listen)
