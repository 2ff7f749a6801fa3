"""A model of what the kernel keeps: listeners, inboxes, and clients.

The TCP listeners are one SO_REUSEPORT group, each with a queue of its own; there may be one of a
UNIX socket, from whose queue every worker accepts.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.simulation.clock import Clock

if TYPE_CHECKING:
    from tests.simulation.process import Process


UNIX = -1
"""The slot of the listener that all workers share."""

CLOSED = "the last holder of its listener closed it"
ORPHANED = "its worker was killed, and a master that was killed before had not had its listener"
"""``docs/known-issues.md``, "Sessions"."""


class Client:
    """One client; ``place`` is who has it: ``queue``, ``inbox``, ``worker``, or ``over``."""

    __slots__ = ("number", "place", "since")

    def __init__(self, number: int, now: float) -> None:
        self.number = number
        self.place = "queue"
        self.since = now


class Listener:
    """A listening socket: it lives while anybody holds it, a message on its way included."""

    __slots__ = (
        "acceptors", "first", "had", "holders", "queue", "shut", "slot", "two_s", "unserved_s",
        "waited_s",
    )  # fmt: skip

    def __init__(self, slot: int) -> None:
        self.slot = slot
        self.queue: deque[Client] = deque()
        self.holders: set[object] = set()
        self.acceptors: dict[Process, Callable[[Listener], None]] = {}
        """Who accepts from it, each with what wakes it."""
        self.shut = False
        self.had = False
        """Whether a master ever held it."""
        self.unserved_s = self.two_s = 0.0
        """How long nobody, or more than one, has accepted from it without a reason."""
        self.first = 0
        self.waited_s = 0.0
        """Who waits longest, and for how long without a reason."""


class Inbox:
    """A slot's inbox: clients in flight between workers. The master holds it, so it never ends."""

    __slots__ = ("queue", "readers", "slot", "unread_s")

    def __init__(self, slot: int) -> None:
        self.slot = slot
        self.queue: deque[Client] = deque()
        self.readers: dict[Process, Callable[[], None]] = {}
        self.unread_s = 0.0


class Kernel:
    """Listeners, inboxes and clients; ``lost(client, why)`` hears of each that nobody has."""

    def __init__(
        self, clock: Clock, draw: random.Random, lost: Callable[[Client, str], None]
    ) -> None:
        self._clock = clock
        self._draw = draw
        self._lost = lost
        self.listeners: list[Listener] = []
        self.inboxes: dict[int, Inbox] = {}
        self.clients: dict[int, Client] = {}
        self._serial = 0

    def listen(self, slot: int, holder: object) -> Listener:
        listener = Listener(slot)
        listener.holders.add(holder)
        self.listeners.append(listener)
        return listener

    def release(self, listener: Listener, holder: object, *, killed: bool = False) -> None:
        """One holder less; the last one takes the queue with it, as close(2) does."""
        listener.holders.discard(holder)
        listener.acceptors.pop(holder, None)  # type: ignore[call-overload]
        if not listener.holders and listener in self.listeners:
            self.listeners.remove(listener)
            orphaned = killed and not listener.had
            self._reset_queue(listener, ORPHANED if orphaned else CLOSED)

    def shut(self, listener: Listener) -> None:
        """shutdown(2): nobody connects any more; who waits is reset, but on a UNIX socket."""
        listener.shut = True
        if listener.slot != UNIX:
            self._reset_queue(listener, "its listener was shut")

    def connect(self, *, unix: bool = False) -> Client | None:
        """A client arrives; None: connection refused."""
        group = [each for each in self.listeners if not each.shut and (each.slot == UNIX) is unix]
        if not group:
            return None
        self._serial += 1
        client = self.clients[self._serial] = Client(self._serial, self._clock.now)
        listener = self._draw.choice(group)
        listener.queue.append(client)
        for wake in tuple(listener.acceptors.values()):
            wake(listener)
        return client

    def inbox(self, slot: int) -> Inbox:
        found = self.inboxes.get(slot)
        if found is None:
            found = self.inboxes[slot] = Inbox(slot)
        return found

    def send(self, client: Client, slot: int) -> None:
        client.place, client.since = "inbox", self._clock.now
        inbox = self.inboxes[slot]
        inbox.queue.append(client)
        for wake in tuple(inbox.readers.values()):
            wake()

    def end(self, client: Client) -> None:
        client.place = "over"
        del self.clients[client.number]

    def _reset_queue(self, listener: Listener, why: str) -> None:
        while listener.queue:
            self._lost(listener.queue.popleft(), why)
