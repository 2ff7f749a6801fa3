"""Even load for few, long sessions: accepted sockets handed to the least loaded worker.

The kernel's hash spreads few connections badly (16 over 8 workers: the fullest holds twice the
mean), and etcd's clients are exactly few, long connections. A worker that holds more sessions than
the least loaded one passes the accepted socket on, as a descriptor in a datagram to the other's
inbox. The master holds every inbox, so a socket in flight survives the death of its receiver.

It costs the sender 5-6 us and the receiver 11 us, so it stops where it would not pay: while
sessions come and go quickly, and where there are so many that the hash is even enough.
"""

from __future__ import annotations

import os
import socket

from gateway.descriptors import DescriptorsLostError, receive, send
from gateway.scoreboard import Scoreboard

MARGIN_DIVISOR = 16
"""A difference of a sixteenth is even enough; below 16 sessions every difference counts."""

CHURN_LIMIT_PER_S = 25.0
"""Above this many sessions ended per second in this worker, sessions are short: leave them."""

STALE_NS = 350_000_000
"""A worker whose last beat is older (they come every 100 ms) may hang: nothing is sent to it."""

_DATAGRAM = b"+"
"""A datagram carries a descriptor only if it carries a byte, too (unix(7))."""

_TURN = b"!"
"""Without a descriptor: a place is free, and the receiver's clients are next (see ``quota``)."""


class Handoff:
    """Decides for each accepted client, and carries sockets to and from inboxes.

    Borrows ``inbox``; owns ``peers`` (slot to sending end).
    ``pays``: whether asking for a :meth:`receiver` is worth it at all just now; it costs nothing
    to look at, unlike the scoreboard.
    """

    def __init__(
        self,
        scoreboard: Scoreboard,
        *,
        slot: int,
        slots: int,
        inbox: socket.socket,
        peers: dict[int, socket.socket],
    ) -> None:
        self._scoreboard = scoreboard
        self._slot = slot
        self._slots = slots
        self._inbox = inbox
        self._peers = peers
        self._churn_per_s = 0.0
        self._received = 0
        self.pays = bool(peers)
        self.cut_off = False
        """Every sending end of the inbox is closed: the others are gone, and so is the master."""
        inbox.setblocking(False)

    def add_peer(self, slot: int, sock: socket.socket) -> None:
        """Slot ``slot`` exists now; a sending end that we had for it is closed."""
        if old := self._peers.get(slot):
            old.close()
        self._peers[slot] = sock
        self._slots = max(self._slots, slot + 1)
        self._judge()

    def tick(self, ended: int, interval_s: float) -> None:
        """``ended`` sessions ended here in the last ``interval_s`` seconds."""
        weight = min(interval_s, 1.0)
        self._churn_per_s += weight * (ended / interval_s - self._churn_per_s)
        self._judge()

    def _judge(self) -> None:
        self.pays = bool(self._peers) and self._churn_per_s <= CHURN_LIMIT_PER_S

    def receiver(self, own: int, now_ns: int) -> int | None:
        """The slot that should get a client accepted here, where ``own`` sessions are; None: us."""
        if not self.pays:
            return None
        # What waits in our inbox is ours already.
        own = max(own, self._scoreboard.load(self._slot, self._slots))
        if own == 0:
            return None
        counts = self._scoreboard.sessions(self._slots)
        least_that_pays = own - own // MARGIN_DIVISOR
        best, best_load = None, least_that_pays
        # Starts after our own slot, so that workers that see the same minimum choose apart.
        for step in range(1, self._slots):
            slot = (self._slot + step) % self._slots
            if counts[slot] >= best_load or slot not in self._peers:
                continue
            if (
                not self._scoreboard.accepting(slot)
                or now_ns - self._scoreboard.beat_ns(slot) > STALE_NS
            ):
                continue
            load = self._scoreboard.load(slot, self._slots)
            if load < best_load:
                best, best_load = slot, load
        return best

    def send(self, fd: int, slot: int) -> bool:
        """Put the socket into the slot's inbox; True: ``fd`` is closed here, it lives on there."""
        try:
            send(self._peers[slot], _DATAGRAM, [fd])
        except OSError:  # its inbox is full, or it is being replaced: the client stays ours
            return False
        self._scoreboard.put(self._slot, slot)
        os.close(fd)
        return True

    def give_turn(self, slot: int) -> bool:
        """Tell the slot that a place is free and its clients are next."""
        try:
            return bool(send(self._peers[slot], _TURN))
        except (KeyError, OSError):  # being replaced: whoever looks next takes the place
            return False

    def receive(self) -> tuple[list[int], bool]:
        """All sockets that wait in our inbox, the caller's from now on; and: is it our turn?

        They count as waiting until :meth:`received_are_served`: counted twice for a moment, and
        never not at all, they draw no more clients here.
        """
        taken: list[int] = []
        turn = False
        while True:
            try:
                data, fds = receive(self._inbox, len(_DATAGRAM), 1)
            except BlockingIOError:
                return taken, turn
            except DescriptorsLostError:
                self._received += 1
                continue
            if not data and not fds:
                self.cut_off = True
                return taken, turn
            if data == _TURN:
                turn = True
                continue
            self._received += 1
            # Without a descriptor: none was free here and the kernel dropped the socket. The
            # worker keeps a reserve and reads nothing while it is full, so this is the last resort.
            taken += fds

    def received_are_served(self) -> None:
        """What was received is among the slot's sessions now."""
        for _ in range(self._received):
            self._scoreboard.took(self._slot)
        self._received = 0
