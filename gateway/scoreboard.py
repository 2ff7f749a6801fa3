"""The scoreboard: memory that all workers share, for what a message would tell too late.

Handing accepted sockets to the least loaded worker and a session limit for the whole gateway need
the other workers' counts as they are now, not as they were at the last report a second ago.
Every cell is an aligned 64-bit integer with exactly one writer, so nothing is locked: a reader
sees the old value or the new one.

Cells of slot s: which process fills it, how many sessions it holds, when it last turned its loop
(CLOCK_MONOTONIC, nanoseconds), whether it takes sessions, how many sockets it took from its inbox
in its slot's whole life, since when clients wait there for the limit of sessions to let them in,
when it last told the log that the limit is reached, how many sockets each other slot ever put
into its inbox, and how many clients its slot ever accepted.
Where a worker and its successor overlap, the slot's cells belong to the one that entered last.
"""

from __future__ import annotations

import mmap
import os

from gateway.core.messages import MAX_SLOTS

SLOTS = MAX_SLOTS
"""Room for all that there may be; the kernel gives memory only to the pages of slots in use."""

LAYOUT = 3
"""The version of the layout. A master that inherits another layout makes a new scoreboard."""

_CELL_BYTES = 8
_COLUMNS = 8
_CELLS = 1 + SLOTS * (SLOTS + _COLUMNS)


class Scoreboard:
    """One process's view of the scoreboard; owns its mapping and the memfd behind it.

    The master makes it, forked workers inherit it, ``os.execve`` passes ``fd`` on; an inherited one
    of another layout is closed and replaced.
    """

    def __init__(self, fd: int | None = None) -> None:
        size = _CELLS * _CELL_BYTES
        if fd is not None and not _fits(fd, size):
            os.close(fd)
            fd = None
        if fd is None:
            fd = os.memfd_create("etcd-gateway-scoreboard")
            os.ftruncate(fd, size)
        self.fd = fd
        self._map = mmap.mmap(fd, size)
        cells = self._cells = memoryview(self._map).cast("q")
        cells[0] = LAYOUT
        columns = [cells[1 + n * SLOTS : 1 + (n + 1) * SLOTS] for n in range(_COLUMNS)]
        self._owner, self._sessions, self._beats_ns, self._accepting, self._taken = columns[:5]
        self._waits_ns, self._told_ns, self._accepted = columns[5:]
        self._put = cells[1 + _COLUMNS * SLOTS :]

    # -- written by the slot's own worker -------------------------------------------------

    def enter(self, slot: int, pid: int) -> None:
        """A new worker fills the slot: no sessions yet, not accepting yet."""
        self._owner[slot] = pid
        self.leave(slot)

    def set_sessions(self, slot: int, count: int) -> None:
        self._sessions[slot] = count

    def beat(self, slot: int, now_ns: int) -> None:
        self._beats_ns[slot] = now_ns

    def set_accepting(self, slot: int, accepting: bool) -> None:
        self._accepting[slot] = accepting

    def set_waiting(self, slot: int, since_ns: int) -> None:
        """Clients wait in the slot for a place since then; 0: none."""
        self._waits_ns[slot] = since_ns

    def tell(self, slot: int, now_ns: int) -> None:
        """The slot's worker tells the log that the limit of sessions is reached."""
        self._told_ns[slot] = now_ns

    def count_client(self, slot: int) -> None:
        """The slot's worker accepted one client; counted for --max-session-rate only."""
        self._accepted[slot] += 1

    def took(self, slot: int) -> None:
        """The slot's worker took one socket from its inbox."""
        self._taken[slot] += 1

    def put(self, sender: int, receiver: int) -> None:
        """``sender`` put one socket into the inbox of ``receiver``."""
        self._put[receiver * SLOTS + sender] += 1

    # -- written by the master, while nobody fills the slot ---------------------------------

    def leave(self, slot: int) -> None:
        """The slot's worker is gone: its cells have no other writer now."""
        self._sessions[slot] = 0
        self._accepting[slot] = 0
        self._waits_ns[slot] = 0

    # -- read by anybody ------------------------------------------------------------------

    def is_owner(self, slot: int, pid: int) -> bool:
        """Whether the slot is still this worker's, and no successor has entered it."""
        return self._owner[slot] == pid

    def owner(self, slot: int) -> int:
        """The process that entered the slot last; 0 if none ever did."""
        return self._owner[slot]

    def sessions(self, slots: int) -> list[int]:
        """Sessions of the first ``slots`` slots, sockets in flight not counted."""
        return self._sessions[:slots].tolist()

    def beat_ns(self, slot: int) -> int:
        return self._beats_ns[slot]

    def accepting(self, slot: int) -> bool:
        return bool(self._accepting[slot])

    def load(self, slot: int, slots: int) -> int:
        """Sessions of one slot and the sockets that wait in its inbox."""
        start = slot * SLOTS
        in_flight = sum(self._put[start : start + slots]) - self._taken[slot]
        return self._sessions[slot] + max(in_flight, 0)

    def in_flight(self, slots: int) -> int:
        """Sockets that wait in any of the inboxes."""
        put = sum(sum(self._put[slot * SLOTS : slot * SLOTS + slots]) for slot in range(slots))
        return max(put - sum(self._taken[:slots]), 0)

    def waiting(self, slots: int) -> list[int]:
        """Since when clients wait for a place, by slot; 0: none do."""
        return self._waits_ns[:slots].tolist()

    def accepted(self, slots: int) -> int:
        """Clients that all slots ever accepted."""
        return sum(self._accepted[:slots].tolist())

    def told_ns(self, slots: int) -> int:
        """When a worker last told the log that the limit of sessions is reached."""
        return max(self._told_ns[:slots].tolist())

    def close(self) -> None:
        """Give the mapping and the descriptor back."""
        for view in (
            self._owner,
            self._sessions,
            self._beats_ns,
            self._accepting,
            self._taken,
            self._waits_ns,
            self._told_ns,
            self._accepted,
            self._put,
        ):
            view.release()
        self._cells.release()
        self._map.close()
        os.close(self.fd)


def _fits(fd: int, size: int) -> bool:
    """Whether this is a scoreboard of our layout."""
    if os.fstat(fd).st_size != size:
        return False
    return int.from_bytes(os.pread(fd, _CELL_BYTES, 0), "little") == LAYOUT
