"""The worker's one epoll: edge-triggered, inside the event loop, registered once per descriptor.

uvloop's own readiness costs a callback, a handle and a system call per change of interest; this
one costs an ``epoll_ctl`` per descriptor and one ``epoll_wait`` per batch (25.5 against 21.9 us of
CPU per round trip in the prototype). uvloop keeps the timers, the channel and the inbox, and of all
other descriptors sees a single one: the epoll itself.

uvloop calls the poller for one *turn* after another. A turn has a time budget, because timers and
the heartbeat run between turns only. It consists of batches: the events of one ``epoll_wait``,
then a slice of the work that watchers left over, then the listeners. What does not fit into the
budget comes first in the next turn.
"""

from __future__ import annotations

import asyncio
import os
import select
from collections import OrderedDict
from itertools import islice
from time import monotonic
from typing import Protocol

from gateway.unwatched import NO_ROOM_TO_WATCH, Unwatched

# The compiled relay makes these calls itself (calls.h); it looks for the three lines.
poll = select.epoll.poll
register = select.epoll.register
close_fd = os.close

IN = select.EPOLLIN
OUT = select.EPOLLOUT
ERR = select.EPOLLERR
HUP = select.EPOLLHUP
PRI = select.EPOLLPRI

RDHUP = select.EPOLLRDHUP

STREAM = IN | PRI | RDHUP | (select.EPOLLET & 0xFFFFFFFF)  # negative where a long has 32 bits
"""What a connected socket is registered for. PRI only so that urgent data cannot hide bytes.

Without OUT, which would be one useless event per socket at its start; who has bytes left over asks
for it with :meth:`Poller.want_out`, once.
"""

DIALING = STREAM | OUT
"""What a connecting socket is registered for."""

BATCH = 256
"""Events taken per ``epoll_wait``."""

CHUNK = 16
"""Events handled between two looks at the clock. The dearest are dials, at about 0.1 ms each."""

TURN_S = 0.004
"""How long a turn lasts before the event loop runs its timers and reads its messages.

Work of a watcher is not interrupted; it takes 0.3 ms per MiB, and an event moves a few at most.
"""

SLICE_S = 0.001
"""How long watchers go on with work left over before the next events are asked for.

So an event waits 1 ms behind the bulk flows, however many there are.
"""

BATCHES = 8
"""Batches of a turn that was called by the event loop, if they are short."""

WAIT_S = 0.004
"""How long an awake poller waits for the next event; a wait without one is a lull.

The kernel sets a timer for each wait. One that is due before its next tick (4 ms where CONFIG_HZ is
250) has the hardware set anew, which took 4 us of CPU twice in a round trip of one session.
"""

LULL_DESCRIPTORS = 256
"""A lull costs as much CPU as it does to have the event loop watch an epoll of so many descriptors.

The kernel walks through all of them, 0.07 us each, to exclude that an epoll watches itself
(ep_loop_check_proc in fs/eventpoll.c): 1.3 ms with 9,000 sessions, of which each has two. So an
awake poller goes to sleep when its lulls have cost as much as going to sleep costs.
"""

CLOSE_S = 0.0005
CLOSE_TURNS = 32
"""After CLOSE_TURNS turns in a row, each within CLOSE_S of the last, the poller stays awake: it
waits for events itself instead of being called by the event loop."""


class Watcher(Protocol):
    """Whoever owns a registered descriptor."""

    def on_event(self, mask: int) -> None:
        """Something happened. ``mask`` 0: go on with the work left over from the last time."""

    def on_crash(self, error: Exception) -> None:
        """``on_event`` raised, which is a bug; give up what the descriptor belongs to."""


class Poller:
    """Owns the epoll descriptor, and closes descriptors for their owners.

    A descriptor given to :meth:`close` during a batch is closed when the batch's events have been
    handled, so that its number is not used again while events of the old one still wait.

    Where the kernel has no room to watch one more descriptor, it waits in ``unwatched``.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._epoll = select.epoll(select.EPOLL_CLOEXEC)
        self._watchers: dict[int, Watcher] = {}
        self.closing: list[int] = []
        """Descriptors that were given to :meth:`close` and are still open; always the same list."""
        self._postponed: dict[int, int] = {}
        """Events that did not fit into the turn's budget: descriptor to mask, oldest first."""
        self._again: OrderedDict[Watcher, None] = OrderedDict()
        self._last: dict[Watcher, None] = {}
        self.called_last = 0
        """How many watchers are called at the end of this batch."""
        self._turning = False
        self._turn_due = False
        self.awake = False
        """It waits for events itself, and the event loop does not watch the epoll."""
        self._lulls = 0
        self._close_turns = 0
        self._turned_at = 0.0
        self.unwatched = Unwatched(
            loop, self._epoll, alive=self._watchers.keys(), on_failed=self._fail
        )
        loop.add_reader(self._epoll.fileno(), self._turn)

    def add(self, fd: int, watcher: Watcher, events: int = STREAM) -> None:
        """Register ``fd``; what is already pending is reported in the next batch."""
        self._watchers[fd] = watcher
        try:
            register(self._epoll, fd, events)
        except OSError as error:
            if error.errno not in NO_ROOM_TO_WATCH:
                del self._watchers[fd]
                raise
            self.unwatched.wait(fd, events, NO_ROOM_TO_WATCH[error.errno])

    def want_out(self, fd: int) -> None:
        """Report also when ``fd`` takes bytes (again); at once if it does now."""
        try:
            self._epoll.modify(fd, DIALING)
        except FileNotFoundError:
            if not self.unwatched.change(fd, DIALING):
                raise

    def replace(self, fd: int, watcher: Watcher) -> None:
        """Another owner for a registered descriptor, without a system call."""
        self._watchers[fd] = watcher

    def remove(self, fd: int) -> None:
        """Unregister, leave open. Needed for a descriptor that has duplicates elsewhere."""
        if self._watchers.pop(fd, None) is not None:
            waited = self.unwatched.forget(fd)
            try:
                self._epoll.unregister(fd)
            except FileNotFoundError:
                if not waited:
                    raise
            self._postponed.pop(fd, None)

    def close(self, fd: int) -> None:
        """Close a descriptor without duplicates (the kernel unregisters it then)."""
        self._watchers.pop(fd, None)
        self.closing.append(fd)
        if not self._turning:
            self._close_due()

    def again(self, watcher: Watcher) -> None:
        """Call ``watcher.on_event(0)`` later: its budget is used up, its work is not.

        Watchers are called in the order in which they asked.
        """
        self._again[watcher] = None
        if not self._turning and not self._turn_due:
            self._turn_due = True
            self._loop.call_soon(self._turn)

    def last(self, watcher: Watcher) -> None:
        """Call ``watcher.on_event(0)`` at the end of this batch; of the next one, if it is just
        being called at the end of this."""
        self._last[watcher] = None

    def shut(self) -> None:
        """Close the epoll; the watchers' descriptors stay with their owners."""
        if not self._epoll.closed:
            self._loop.remove_reader(self._epoll.fileno())
            self._epoll.close()
            self.unwatched.close()
            self._watchers.clear()
            self._again.clear()
            self._last.clear()
            self._postponed.clear()

    def _turn(self) -> None:
        self._turn_due = False
        if self._epoll.closed:
            return
        self._turning = True
        try:
            if self.awake:
                self._poll_until_idle()
            else:
                self._poll_some()
        finally:
            self._turning = False
            if (self._again or self._postponed or self._last or self.awake) and not self._turn_due:
                self._turn_due = True
                self._loop.call_soon(self._turn)

    def _poll_some(self) -> None:
        """A turn that the event loop called: one batch, or a few if they are short."""
        now = monotonic()
        until = now + TURN_S
        for _ in range(BATCHES):
            if self._handle_batch(0, until) < 2 and not (self._again or self._last):
                break
            if monotonic() >= until:
                break
        self._judge_pace(now)

    def _poll_until_idle(self) -> None:
        """A turn while awake: wait here instead of in the event loop, until a lull."""
        until = monotonic() + TURN_S
        while True:
            busy = bool(self._again or self._postponed or self._last)
            if not self._handle_batch(0 if busy else WAIT_S, until) and not busy:
                self._lulls += 1
                if self._lulls * LULL_DESCRIPTORS > len(self._watchers):
                    self._sleep()
                return
            if self._epoll.closed or monotonic() >= until:
                return

    def _sleep(self) -> None:
        """Leave the waiting to the event loop, which calls for the next turn.

        It stays awake if the event loop's own epoll has no room for ours.
        """
        if not self._epoll.closed:
            try:
                self._loop.add_reader(self._epoll.fileno(), self._turn)
            except OSError:
                self._lulls = 0
                return
        self.awake = False
        self._close_turns = 0

    def _judge_pace(self, now: float) -> None:
        """Stay awake when turns follow each other closely.

        An epoll watched by another one pays for it with each event (0.13 us), and a turn of the
        event loop costs as much as a small read; both end while the loop does not watch.
        """
        self._close_turns = self._close_turns + 1 if now - self._turned_at < CLOSE_S else 0
        self._turned_at = monotonic()
        if self._close_turns >= CLOSE_TURNS and not self._epoll.closed and not self.unwatched.short:
            self.awake = True
            self._lulls = 0
            self._loop.remove_reader(self._epoll.fileno())

    def _handle_batch(self, wait_s: float, until: float) -> int:
        """The events of one ``epoll_wait`` and what follows from them; how many there were.

        While events are postponed no others are asked for: each is postponed once at most, and
        those that the kernel keeps cost nothing.
        """
        count = self._handle_postponed(until) if self._postponed else 0
        if not self._postponed:
            events = poll(self._epoll, wait_s, BATCH)
            count += len(events)
            if len(events) <= CHUNK:
                self._handle(events)
            else:
                self._handle_in_chunks(events, until)
        if self.closing:
            self._close_due()
        if self._again:
            self._go_on(len(self._again))
        if self._last:
            self._call_last()
        if self.closing:
            self._close_due()
        return count

    def _handle(self, events: list[tuple[int, int]]) -> None:
        watcher_of = self._watchers.get
        for fd, mask in events:
            watcher = watcher_of(fd)
            if watcher is not None:
                try:
                    watcher.on_event(mask)
                except Exception as error:  # noqa: BLE001 - a session's boundary
                    self._crash(watcher, error)

    def _handle_in_chunks(self, events: list[tuple[int, int]], until: float) -> None:
        """Handle events while the budget lasts, and postpone the others.

        Edge-triggered events come once, so none may be forgotten; but a descriptor that is closed
        meanwhile takes its own with it.
        """
        for start in range(0, len(events), CHUNK):
            self._handle(events[start : start + CHUNK])
            if monotonic() >= until:
                watchers = self._watchers
                self._postponed.update(
                    event for event in events[start + CHUNK :] if event[0] in watchers
                )
                return

    def _handle_postponed(self, until: float) -> int:
        """Handle postponed events while the budget lasts, the oldest first; how many."""
        postponed = self._postponed
        count = 0
        while postponed:
            oldest = [(fd, postponed.pop(fd)) for fd in tuple(islice(postponed, CHUNK))]
            self._handle(oldest)
            count += len(oldest)
            if monotonic() >= until:
                break
        return count

    def _go_on(self, most: int) -> None:
        """Let watchers go on with their work, ``most`` of them, until the slice is over."""
        until = monotonic() + SLICE_S
        again = self._again
        for _ in range(most):
            watcher, _ = again.popitem(last=False)
            self._call(watcher)
            if not again or monotonic() >= until:
                return

    def _call_last(self) -> None:
        last, self._last = self._last, {}
        self.called_last = len(last)
        for watcher in last:
            self._call(watcher)

    def _call(self, watcher: Watcher) -> None:
        try:
            watcher.on_event(0)
        except Exception as error:  # noqa: BLE001 - a session's boundary
            self._crash(watcher, error)

    def _fail(self, fd: int, error: Exception) -> None:
        """A descriptor that waited for room can never be watched."""
        self._crash(self._watchers[fd], error)

    def _crash(self, watcher: Watcher, error: Exception) -> None:
        """Tell the watcher; if that fails as well, the log, and go on with the others."""
        try:
            watcher.on_crash(error)
        except Exception as another:  # noqa: BLE001 - nobody else is there to take it
            self._loop.call_exception_handler(
                {"message": "a watcher could not be given up", "exception": another}
            )

    def _close_due(self) -> None:
        closing = tuple(self.closing)
        self.closing.clear()
        for fd in closing:
            self._postponed.pop(fd, None)
            try:
                close_fd(fd)
            except OSError as error:
                self._loop.call_exception_handler(
                    {"message": f"descriptor {fd} could not be closed", "exception": error}
                )
