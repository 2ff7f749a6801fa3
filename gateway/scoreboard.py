"""The scoreboard: memory that all processes of a gateway share, for what a message tells too late.

Handing accepted clients to the least loaded worker and a session limit for the whole gateway need
the other workers' counts as they are now, not as they were at the last report a second ago.

Each worker has a row of its own from its fork until the master has reaped it, also beside its
predecessor and its successor in the same slot. So each cell has one writer at any time: the worker
while it lives, and the master before and after. A cell is an aligned 64-bit integer; a reader sees
the old value or the new one.
"""

from __future__ import annotations

import errno
import mmap
import os
import sys
from collections.abc import Iterator

ROWS = 4096
"""Workers alive at once, draining ones included: sixteen generations of the most workers.

The kernel gives memory only to the pages of rows in use.
"""

LAYOUT = 5
"""The version of the layout. A master that inherits another layout makes a new scoreboard."""

STALE_NS = 350_000_000
"""A worker whose last beat is older (they come every 100 ms) may hang: nothing is sent to it."""

_CELL_BYTES = 8
_HEAD = 3
"""Cells before the columns, the master's: the layout, how many rows may be in use, and how many
clients workers accepted that are gone."""
_COLUMNS = 10
_SESSIONS_COLUMN = 3
_CELLS = _HEAD + ROWS * _COLUMNS

SIZE_BYTES = _CELLS * _CELL_BYTES
"""Of a scoreboard."""


class Scoreboard:
    """One process's view of the scoreboard; owns its mapping and the memfd behind it.

    The master makes it, forked workers inherit it, ``os.execve`` passes ``fd`` on; an inherited one
    of another layout is closed and replaced.
    """

    def __init__(self, fd: int | None = None) -> None:
        if fd is not None and not _fits(fd):
            os.close(fd)
            fd = None
        if fd is None:
            fd = os.memfd_create("etcd-gateway-scoreboard")
            os.ftruncate(fd, SIZE_BYTES)
        self.fd = fd
        self._map = mmap.mmap(fd, SIZE_BYTES)
        cells = self._cells = memoryview(self._map).cast("q")
        cells[0] = LAYOUT
        columns = [cells[_HEAD + n * ROWS : _HEAD + (n + 1) * ROWS] for n in range(_COLUMNS)]
        self._columns = columns
        self._slots, self._gens, self._pids, self._sessions = columns[:4]
        self._beats_ns, self._accepting, self._waits_ns, self._told_ns = columns[4:8]
        self._accepted, self._rate_marks = columns[8:]

    # -- written by the master, while no worker has the row ---------------------------------

    def open_row(self, slot: int, gen: int) -> int:
        """A row for a worker that is about to be forked; OSError if none is free."""
        count = self._cells[1]
        row = next((row for row in range(count) if not self._gens[row]), count)
        if row == ROWS:
            raise OSError(errno.ENOSPC, f"all {ROWS} rows of the scoreboard are in use")
        self._slots[row] = slot
        self._gens[row] = gen
        self._cells[1] = max(count, row + 1)
        return row

    def close_row(self, row: int) -> None:
        """The row's worker is gone: what it held is free."""
        accepted = self._accepted[row]
        for column in self._columns:
            column[row] = 0
        self._cells[2] += accepted
        count = self._cells[1]
        while count and not self._gens[count - 1]:
            count -= 1
        self._cells[1] = count

    # -- written by the row's worker --------------------------------------------------------

    def enter(self, row: int, pid: int) -> None:
        """The worker lives: no sessions yet, not accepting yet."""
        self._pids[row] = pid

    def set_sessions(self, row: int, count: int) -> None:
        self._sessions[row] = count

    def claim(self, row: int, count: int, most: int) -> bool:
        """Set the row's sessions to ``count`` if all rows together then have at most ``most``.

        Two workers may do so at the same time. Each first writes and then adds up, and the write
        goes through the file, whose lock puts the two into an order: so the second sees the first
        one's claim. Both may see one session too many, and then both undo theirs.
        """
        was = self._sessions[row]
        offset = (_HEAD + _SESSIONS_COLUMN * ROWS + row) * _CELL_BYTES
        os.pwrite(self.fd, count.to_bytes(_CELL_BYTES, sys.byteorder), offset)
        if self.total_sessions() <= most:
            return True
        self._sessions[row] = was
        return False

    def beat(self, row: int, now_ns: int) -> None:
        """The worker's loop ran at that instant (CLOCK_MONOTONIC)."""
        self._beats_ns[row] = now_ns

    def set_accepting(self, row: int, accepting: bool) -> None:
        """Whether the worker takes clients that others hand over."""
        self._accepting[row] = accepting

    def set_waiting(self, row: int, since_ns: int) -> None:
        """Clients wait here for a place since then; 0: none."""
        self._waits_ns[row] = since_ns

    def tell(self, row: int, now_ns: int) -> None:
        """The worker tells the log that clients have to wait."""
        self._told_ns[row] = now_ns

    def count_client(self, row: int) -> None:
        """The worker accepted one client; counted for --max-session-rate only."""
        self._accepted[row] += 1

    def set_rate_mark(self, row: int, mark: int) -> None:
        """The worker's mark for --max-session-rate, see ``core.rate``; 0: none."""
        self._rate_marks[row] = mark

    # -- read by anybody --------------------------------------------------------------------

    @property
    def rows(self) -> int:
        """All rows in use are below this number."""
        return self._cells[1]

    def workers(self) -> Iterator[tuple[int, int, int, int]]:
        """Row, slot, generation and process of each row in use; no process yet: 0."""
        for row in range(self.rows):
            if gen := self._gens[row]:
                yield row, self._slots[row], gen, self._pids[row]

    def slot(self, row: int) -> int:
        return self._slots[row]

    def row_sessions(self) -> list[int]:
        """Sessions by row."""
        return self._sessions[: self.rows].tolist()

    def total_sessions(self) -> int:
        """Sessions of all workers, draining ones included."""
        return sum(self._sessions[: self.rows].tolist())

    def beat_ns(self, row: int) -> int:
        return self._beats_ns[row]

    def accepting(self, row: int) -> bool:
        return bool(self._accepting[row])

    def takes_clients(self, row: int, now_ns: int) -> bool:
        """Whether the worker takes clients that others hand over, and its loop ran lately."""
        return self.accepting(row) and now_ns - self._beats_ns[row] <= STALE_NS

    def any_takes_clients(self, now_ns: int, *, beside: int) -> bool:
        """The same of any worker but that of row ``beside``."""
        return any(self.takes_clients(row, now_ns) for row in range(self.rows) if row != beside)

    def accepted(self) -> int:
        """Clients that workers ever accepted, those included that are gone."""
        return self._cells[2] + sum(self._accepted[: self.rows].tolist())

    def rate_marks(self, since_ns: int) -> list[int]:
        """The marks of the workers that take clients, and whose loop ran since then."""
        return [
            mark
            for row, mark in enumerate(self._rate_marks[: self.rows].tolist())
            if mark and self._accepting[row] and self._beats_ns[row] >= since_ns
        ]

    def has_taker(self, slot: int, *, beside: int) -> bool:
        """Whether another worker of this slot, not that of row ``beside``, takes clients."""
        return any(
            self._accepting[row] and self._slots[row] == slot
            for row in range(self.rows)
            if row != beside
        )

    def waiting(self) -> list[int]:
        """Since when clients wait for a place, by row; 0: none do."""
        return self._waits_ns[: self.rows].tolist()

    def waiting_since_ns(self, row: int) -> int:
        return self._waits_ns[row]

    def told_ns(self) -> int:
        """When a worker last told the log that clients have to wait; 0: none has."""
        return max(self._told_ns[: self.rows].tolist(), default=0)

    def close(self) -> None:
        """Give the mapping and the descriptor back."""
        for column in self._columns:
            column.release()
        self._cells.release()
        self._map.close()
        os.close(self.fd)


def _fits(fd: int) -> bool:
    """Whether this is a scoreboard of our layout."""
    if os.fstat(fd).st_size != SIZE_BYTES:
        return False
    return int.from_bytes(os.pread(fd, _CELL_BYTES, 0), sys.byteorder) == LAYOUT
