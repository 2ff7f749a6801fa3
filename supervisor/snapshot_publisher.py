"""Pushing: whole snapshots to the workers, at once, and with a rest where they are dear."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from gateway.core.messages import Snapshot

REST = 9.0
"""After a push the next one waits for this many times what it cost, so that pushing never takes
more than a tenth of the loop: one with 3,000 endpoints costs 10 ms, and when a network dies there
are 3,000 reasons for one."""

MAX_REST_S = 0.1


class SnapshotPublisher:
    """``make()`` gives the snapshot as things are; ``send(snapshot)`` gets those that are new."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        make: Callable[[], Snapshot],
        send: Callable[[Snapshot], None],
        version: int,
    ) -> None:
        """``version``: of the snapshot that the workers were born with."""
        self._loop = loop
        self._make = make
        self._send = send
        self._sent_version = version
        self._rested_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def ask(self) -> None:
        """Something may have changed: push at once, or when the last push has rested."""
        if self._timer is not None:
            return
        if self._loop.time() < self._rested_at:
            self._timer = self._loop.call_at(self._rested_at, self.push)
        else:
            self.push()

    def push(self) -> None:
        """Push now; nothing is sent if nothing changed."""
        self.cancel()
        began_s = time.process_time()  # not the clock: waiting for a CPU is no cost
        snapshot = self._make()
        if snapshot.version != self._sent_version:
            self._sent_version = snapshot.version
            self._send(snapshot)
        rest_s = REST * (time.process_time() - began_s)
        self._rested_at = self._loop.time() + min(rest_s, MAX_REST_S)

    def cancel(self) -> None:
        """Forget a push that waits."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
