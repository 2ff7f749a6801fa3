"""The worker's one epoll: edge-triggered, inside the event loop, registered once per descriptor.

uvloop's own readiness costs a callback, a handle and a system call per change of interest; this
one costs an ``epoll_ctl`` per descriptor and one ``epoll_wait`` per batch (25.5 against 21.9 us of
CPU per round trip in the prototype). uvloop keeps the timers, the pipes and the signals, and sees
a single readable descriptor: the epoll itself.
"""

from __future__ import annotations

import asyncio
import os
import select
from time import monotonic
from typing import Protocol

IN = select.EPOLLIN
OUT = select.EPOLLOUT
ERR = select.EPOLLERR
HUP = select.EPOLLHUP

RDHUP = select.EPOLLRDHUP

STREAM = IN | select.EPOLLPRI | RDHUP | select.EPOLLET
"""What a connected socket is registered for. PRI only so that urgent data cannot hide bytes.

Without OUT, which would be one useless event per socket at its start; who has bytes left over asks
for it with :meth:`Poller.want_out`, once.
"""

DIALING = STREAM | OUT
"""What a connecting socket is registered for."""

BATCH = 256
"""Events taken per ``epoll_wait``."""

ROUNDS = 8
"""Batches handled before the event loop gets its turn (timers, control messages)."""


WAIT_S = 0.001
"""How long an awake poller waits for the next event before it goes to sleep."""

TURN_S = 0.002
"""How long an awake poller works before the event loop gets its turn."""

CLOSE_S = 0.0005
CLOSE_TURNS = 32
"""So many turns in a row, each so soon after the last, and the poller stays awake."""


class Watcher(Protocol):
    """Whoever owns a registered descriptor."""

    def on_event(self, mask: int) -> None:
        """Something happened. ``mask`` 0: go on with the work left over from the last turn."""

    def on_crash(self, error: Exception) -> None:
        """``on_event`` raised, which is a bug; give up what the descriptor belongs to."""


class Poller:
    """Owns the epoll descriptor, and closes descriptors for their owners.

    A descriptor given to :meth:`close` during a batch is closed at the end of it, so that its
    number cannot be used again while events of the old one are still waiting in the batch.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._epoll = select.epoll(select.EPOLL_CLOEXEC)
        self._watchers: dict[int, Watcher] = {}
        self._closing: list[int] = []
        self._again: dict[Watcher, None] = {}  # a set that keeps its order
        self._last: list[Watcher] = []
        self._turning = False
        self._turn_due = False
        self._awake = False
        self._close_turns = 0
        self._turned_at = 0.0
        loop.add_reader(self._epoll.fileno(), self._turn)

    def add(self, fd: int, watcher: Watcher, events: int = STREAM) -> None:
        """Register ``fd``; what is already pending is reported in the next batch."""
        self._epoll.register(fd, events)
        self._watchers[fd] = watcher

    def want_out(self, fd: int) -> None:
        """Report also when ``fd`` takes bytes (again); at once if it does now."""
        self._epoll.modify(fd, DIALING)

    def replace(self, fd: int, watcher: Watcher) -> None:
        """Another owner for a registered descriptor, without a system call."""
        self._watchers[fd] = watcher

    def remove(self, fd: int) -> None:
        """Unregister, leave open. Needed for a descriptor that has duplicates elsewhere."""
        if self._watchers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def close(self, fd: int) -> None:
        """Close a descriptor without duplicates (the kernel unregisters it then)."""
        self._watchers.pop(fd, None)
        if self._turning:
            self._closing.append(fd)
        else:
            os.close(fd)

    def again(self, watcher: Watcher) -> None:
        """Call ``watcher.on_event(0)`` in the next round: its budget is used up, its work not."""
        self._again[watcher] = None
        if not self._turning and not self._turn_due:
            self._turn_due = True
            self._loop.call_soon(self._turn)

    def last(self, watcher: Watcher) -> None:
        """Call ``watcher.on_event(0)`` at the end of this very round."""
        self._last.append(watcher)

    def shut(self) -> None:
        """Close the epoll; the watchers' descriptors stay with their owners."""
        if not self._epoll.closed:
            self._loop.remove_reader(self._epoll.fileno())
            self._epoll.close()
            self._watchers.clear()
            self._again.clear()

    def _turn(self) -> None:
        self._turn_due = False
        if self._epoll.closed:
            return
        self._turning = True
        try:
            if self._awake:
                self._work()
            else:
                for _ in range(ROUNDS):
                    if self._round(0) < 2 and not self._again:
                        break
                self._notice()
        finally:
            self._turning = False
        if (self._again or self._awake) and not self._turn_due:
            self._turn_due = True
            self._loop.call_soon(self._turn)

    def _work(self) -> None:
        """A turn while awake: wait here instead of in the event loop; asleep after a lull."""
        until = monotonic() + TURN_S
        while not self._epoll.closed:
            if not self._round(0 if self._again else WAIT_S) and not self._again:
                self._awake = False
                self._close_turns = 0
                if not self._epoll.closed:
                    self._loop.add_reader(self._epoll.fileno(), self._turn)
                return
            if monotonic() > until:
                return

    def _notice(self) -> None:
        """Wake up when turns follow each other closely.

        An epoll watched by another one pays for it with each event (0.13 us), and the loop's turn
        costs as much as a small read; both end while the loop does not watch.
        """
        now = monotonic()
        self._close_turns = self._close_turns + 1 if now - self._turned_at < CLOSE_S else 0
        self._turned_at = now
        if self._close_turns >= CLOSE_TURNS and not self._epoll.closed:
            self._awake = True
            self._loop.remove_reader(self._epoll.fileno())

    def _round(self, wait_s: float) -> int:
        """One batch; how many events it had."""
        again, self._again = self._again, {}
        events = self._epoll.poll(wait_s, BATCH)
        watcher_of = self._watchers.get
        for fd, mask in events:
            watcher = watcher_of(fd)
            if watcher is not None:
                try:
                    watcher.on_event(mask)
                except Exception as error:  # noqa: BLE001 - a session's boundary
                    watcher.on_crash(error)
        for watcher in again:
            try:
                watcher.on_event(0)
            except Exception as error:  # noqa: BLE001 - a session's boundary
                watcher.on_crash(error)
        last = self._last
        if last:
            self._last = []
            for watcher in last:
                try:
                    watcher.on_event(0)
                except Exception as error:  # noqa: BLE001 - a session's boundary
                    watcher.on_crash(error)
        closing = self._closing
        if closing:
            for fd in closing:
                os.close(fd)
            closing.clear()
        return len(events)
