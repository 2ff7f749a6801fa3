"""The board: one page of memory that all workers share, for what a message would tell too late.

Handing accepted sockets to the least loaded worker and a session limit for the whole gateway need
the other workers' counts as they are now, not as they were at the last report a second ago.
Every cell is an aligned 64-bit integer with exactly one writer, so nothing is locked: a reader
sees the old value or the new one.

Cells of slot s: which process fills it, how many sessions it holds, when it last turned its loop
(CLOCK_MONOTONIC, nanoseconds), whether it takes sessions, how many sockets it took from its inbox
in its slot's whole life, and how many sockets each other slot ever put there.
Where a worker and its successor overlap, the slot's cells belong to the one that entered last.
"""

from __future__ import annotations

import mmap
import os

from gateway.core.messages import MAX_SLOTS

SLOTS = MAX_SLOTS
"""Memory is touched as slots are used."""

LAYOUT = 1
"""Changes with the meaning of any cell: a master of another release makes a board of its own."""

_CELL_BYTES = 8
_CELLS = 1 + SLOTS * (SLOTS + 5)


class Board:
    """One process's view of the board; owns its mapping and the memfd behind it.

    The master makes it, forked workers inherit it, ``os.execve`` hands ``fd`` on; an inherited one
    of another layout is closed and replaced.
    """

    def __init__(self, fd: int | None = None) -> None:
        size = _CELLS * _CELL_BYTES
        if fd is not None and not _fits(fd, size):
            os.close(fd)
            fd = None
        if fd is None:
            fd = os.memfd_create("etcd-gateway-board")
            os.ftruncate(fd, size)
        self.fd = fd
        self._map = mmap.mmap(fd, size)
        cells = self._cells = memoryview(self._map).cast("q")
        cells[0] = LAYOUT
        columns = [cells[1 + n * SLOTS : 1 + (n + 1) * SLOTS] for n in range(5)]
        self._owner, self._sessions, self._beats_ns, self._accepting, self._taken = columns
        self._put = cells[1 + 5 * SLOTS :]

    # -- written by the slot's own worker -------------------------------------------------

    def enter(self, slot: int, pid: int) -> None:
        """A new worker fills the slot: no sessions yet, not accepting yet."""
        self._owner[slot] = pid
        self._sessions[slot] = 0
        self._accepting[slot] = 0

    def is_owner(self, slot: int, pid: int) -> bool:
        """Whether the slot is still this worker's, and no successor has entered it."""
        return self._owner[slot] == pid

    def owner(self, slot: int) -> int:
        """The process that entered the slot last; 0 if none ever did."""
        return self._owner[slot]

    def set_sessions(self, slot: int, count: int) -> None:
        self._sessions[slot] = count

    def beat(self, slot: int, now_ns: int) -> None:
        self._beats_ns[slot] = now_ns

    def set_accepting(self, slot: int, accepting: bool) -> None:
        self._accepting[slot] = accepting

    def took(self, slot: int) -> None:
        """The slot's worker took one socket from its inbox."""
        self._taken[slot] += 1

    def put(self, sender: int, receiver: int) -> None:
        """``sender`` put one socket into the inbox of ``receiver``."""
        self._put[receiver * SLOTS + sender] += 1

    # -- read by anybody ------------------------------------------------------------------

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

    def leave(self, slot: int) -> None:
        """The slot's worker is gone (called by the master, the cells have no other writer now)."""
        self._sessions[slot] = 0
        self._accepting[slot] = 0

    def close(self) -> None:
        """Give the mapping and the descriptor back."""
        for view in (
            self._owner,
            self._sessions,
            self._beats_ns,
            self._accepting,
            self._taken,
            self._put,
        ):
            view.release()
        self._cells.release()
        self._map.close()
        os.close(self.fd)


def _fits(fd: int, size: int) -> bool:
    """Whether this is a board of our layout."""
    if os.fstat(fd).st_size != size:
        return False
    return int.from_bytes(os.pread(fd, _CELL_BYTES, 0), "little") == LAYOUT
