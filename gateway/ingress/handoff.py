"""Even load for few, long sessions: accepted clients handed to the least loaded worker.

The kernel's hash spreads few connections badly (16 over 8 workers: the fullest holds twice the
mean), and etcd's clients are exactly few, long connections. A worker that holds more sessions than
the least loaded one passes the accepted socket on, as a descriptor in a packet to the other's
inbox. The master holds every inbox, so a client in flight survives the death of its receiver.

How many clients are in flight is not counted by anybody, so no count can be wrong after a crash:
the kernel knows what waits in an inbox.

It costs the sender 5-6 us and the receiver 13 us, of which 2 us are the question whether there is a
number for the client, so it stops where it would not pay: while sessions come and go quickly, and
where there are so many that the hash is even enough.
"""

from __future__ import annotations

import array
import fcntl
import os
import socket
import termios

from gateway.core.outcome import EXHAUSTED
from gateway.descriptors import DescriptorsLostError, has_number_for_one, receive, send
from gateway.scoreboard import Scoreboard

MARGIN_DIVISOR = 16
"""A difference of a sixteenth is even enough; below 16 sessions every difference counts."""

CHURN_LIMIT_PER_S = 25.0
"""Above this many sessions ended per second in this worker, sessions are short: leave them."""

_CLIENT = b"+"
"""A packet carries a descriptor only if it carries a byte, too (unix(7))."""

_UNIX_CLIENT = b"u"
"""Such a packet with a client of a UNIX socket: who has no UNIX listener would not ask."""

_PLACE = b"!"
"""Without a descriptor: a place under --max-sessions is free, and the receiver's clients have
waited longest for one (see ``quota``)."""


class Handoff:
    """Decides for each accepted client, and carries clients to and from inboxes.

    Borrows ``inbox``; owns ``peers`` (slot to sending end).
    ``pays``: whether asking for a :meth:`receiver` is worth it at all just now; it costs nothing
    to look at, unlike the scoreboard.
    """

    def __init__(
        self,
        scoreboard: Scoreboard,
        *,
        row: int,
        inbox: socket.socket,
        peers: dict[int, socket.socket],
    ) -> None:
        self._scoreboard = scoreboard
        self._row = row
        self._inbox = inbox
        self._peers = peers
        # Measured now: when a client has come, there may be no descriptor left for that.
        self._packet_memory = _measure_packet()
        self._churn_per_s = 0.0
        self.pays = bool(peers)
        self.lost = 0
        """Clients that the kernel dropped because this process had no descriptor left."""
        self.short = False
        """The last :meth:`receive` ended because this process, or the host, has nothing left to
        take a client over with: clients may wait in the inbox."""
        self.unix_clients = False
        """Clients of UNIX sockets may come through the inbox."""
        self.cut_off = False
        """Every sending end of the inbox is closed: the others are gone, and so is the master."""
        inbox.setblocking(False)

    def add_peer(self, slot: int, sock: socket.socket) -> bool:
        """Slot ``slot`` exists now; a sending end that we had for it is closed: then False."""
        old = self._peers.get(slot)
        if old is not None:
            old.close()
        self._peers[slot] = sock
        self._judge()
        return old is None

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
        own += _waiting_in(self._inbox)
        if own == 0:
            return None
        scoreboard = self._scoreboard
        counts = scoreboard.row_sessions()
        best, best_load = None, own - own // MARGIN_DIVISOR
        # Starts after our own row, so that workers that see the same minimum choose apart.
        for step in range(1, len(counts)):
            row = (self._row + step) % len(counts)
            if counts[row] >= best_load or not scoreboard.takes_clients(row, now_ns):
                continue
            slot = scoreboard.slot(row)
            if slot not in self._peers:
                continue
            load = counts[row] + self._sent_to(self._peers[slot])
            if load < best_load:
                best, best_load = slot, load
        return best

    def stayer(self, now_ns: int) -> int | None:
        """The slot of the least loaded other worker that takes clients, whatever we have."""
        scoreboard = self._scoreboard
        staying = [
            (sessions, scoreboard.slot(row))
            for row, sessions in enumerate(scoreboard.row_sessions())
            if row != self._row
            and scoreboard.takes_clients(row, now_ns)
            and scoreboard.slot(row) in self._peers
        ]
        return min(staying)[1] if staying else None

    def in_flight(self) -> int:
        """Clients that wait in any of the inboxes; two system calls for three workers."""
        return _waiting_in(self._inbox) + sum(map(self._sent_to, self._peers.values()))

    def send(self, fd: int, slot: int, *, unix: bool = False) -> bool:
        """Put the socket into the slot's inbox; True: ``fd`` is closed here, it lives on there."""
        try:
            send(self._peers[slot], _UNIX_CLIENT if unix else _CLIENT, [fd])
        except OSError:  # its inbox is full, or it is being replaced: the client stays ours
            return False
        os.close(fd)
        return True

    def offer_place(self, slot: int) -> bool:
        """Tell the slot that a place is free for its clients; False: it could not be told."""
        try:
            return bool(send(self._peers[slot], _PLACE))
        except (KeyError, OSError):  # being replaced: whoever looks next takes the place
            return False

    def _sent_to(self, peer: socket.socket) -> int:
        """Packets that wait at the other end, whoever sent them: all share this sending end.

        SIOCOUTQ tells the memory that they take in the kernel, which is the same for each.
        """
        fcntl.ioctl(peer.fileno(), termios.TIOCOUTQ, _count)
        return _count[0] // self._packet_memory

    def receive(self, most: int) -> tuple[list[int], bool]:
        """Up to ``most`` clients from our inbox, and whether a place was offered to us.

        The descriptors are the caller's from now on. ``most``: how many are free by what is known
        here; where there are fewer, clients stay in the inbox (``short``).
        """
        taken: list[int] = []
        offered = False
        self.short = False
        while len(taken) < most:
            try:
                if not has_number_for_one(self._inbox):
                    self.short = True
                    break
                data, fds = receive(self._inbox, len(_CLIENT), 1)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno not in EXHAUSTED:
                    raise
                self.short = True
                break
            except DescriptorsLostError:
                self.lost += 1
                break
            if not data and not fds:
                self.cut_off = True
                break
            if data != _CLIENT:
                offered |= data == _PLACE
                self.unix_clients |= data == _UNIX_CLIENT
            taken += fds
        return taken, offered


_count = array.array("i", [0])


def _waiting_in(inbox: socket.socket) -> int:
    """Packets that wait to be received: their bytes, and each has one (FIONREAD)."""
    fcntl.ioctl(inbox.fileno(), termios.FIONREAD, _count)
    return _count[0]


def _measure_packet() -> int:
    """Bytes of kernel memory that one of our packets takes. OSError: no descriptor is left."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        send(ours, _CLIENT)
        fcntl.ioctl(ours.fileno(), termios.TIOCOUTQ, _count)
        return max(_count[0], 1)
