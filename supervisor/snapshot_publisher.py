"""The snapshot publisher: sends a changed snapshot to the workers, at once if the loop can bear it.

A snapshot of 3,000 endpoints takes 10 ms to make and to send, and when a network fails there are
3,000 changes within a moment. So a publication is followed by a pause in proportion to its cost, up
to MAX_PAUSE_S.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from gateway.core.messages import Snapshot
from gateway.timer import Timer

PAUSE_PER_COST = 9.0
"""The pause is this many times the CPU time of the publication, so that publishing takes a tenth of
the loop's time at most, unless MAX_PAUSE_S is shorter."""

MAX_PAUSE_S = 0.1
"""News wait no longer. Publications of more than 11 ms take more than a tenth of the time."""


class SnapshotPublisher:
    """``make()`` returns the snapshot of this moment; ``send(snapshot)`` gets new ones.

    ``record()`` brings what the next master will know up to date, as ``send`` does.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        make: Callable[[], Snapshot],
        send: Callable[[Snapshot], None],
        record: Callable[[], None],
        version: int,
    ) -> None:
        """``version``: of the snapshot that the workers have from the start."""
        self._loop = loop
        self._make = make
        self._send = send
        self._record = record
        self._unrecorded = False
        self._sent_version = version
        self._paused_until = 0.0
        self._timer = Timer(loop, self.publish)

    def ask(self, *, record: bool = False) -> None:
        """Something may have changed: publish now, or when the pause is over.

        ``record``: the next master is to know of it, also if workers need not.
        """
        self._unrecorded = self._unrecorded or record
        left_s = self._paused_until - self._loop.time()
        if left_s > 0:
            self._timer.start(left_s)
        else:
            self.publish()

    def publish(self) -> None:
        """Publish now; nothing is sent if nothing changed."""
        self.cancel()
        began_s = time.process_time()  # CPU time: waiting for a CPU is no cost
        snapshot = self._make()
        if snapshot.version != self._sent_version:
            self._send(snapshot)
            self._sent_version = snapshot.version  # one for which there was no memory is sent again
        elif self._unrecorded:
            self._record()
        self._unrecorded = False
        pause_s = PAUSE_PER_COST * (time.process_time() - began_s)
        self._paused_until = self._loop.time() + min(pause_s, MAX_PAUSE_S)

    def cancel(self) -> None:
        """Forget a publication that waits for the end of the pause."""
        self._timer.stop()
