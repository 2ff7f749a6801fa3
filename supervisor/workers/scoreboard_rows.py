"""The rows of the scoreboard: each worker gets one at its fork, and the master takes it back."""

from __future__ import annotations

import asyncio
import os

from gateway.scoreboard import Scoreboard
from supervisor.core.workers.worker_id import WorkerId


class ScoreboardRows:
    """Owns the scoreboard, and writes the rows that no worker has.

    A row that is inherited and whose worker is not known to us, because the master before us died
    while it was starting or draining, counts until that process is gone.
    """

    def __init__(self, scoreboard: Scoreboard) -> None:
        self.scoreboard = scoreboard
        self._loop = asyncio.get_running_loop()
        self._rows: dict[WorkerId, int] = {}
        self._written_here: set[WorkerId] = set()
        """Workers of a release with another layout: their rows are filled from their reports."""
        self._others: dict[int, int] = {}
        """Pidfd of each worker that is not known to us, to its row."""

    def give(self, who: WorkerId) -> int:
        """A row for a worker that is about to be forked; OSError if none is free."""
        row = self._rows[who] = self.scoreboard.open_row(who.slot, who.gen)
        return row

    def take_back(self, who: WorkerId) -> None:
        """The worker is gone, or was never started."""
        self._written_here.discard(who)
        if (row := self._rows.pop(who, None)) is not None:
            self.scoreboard.close_row(row)

    def inherit(self, who: WorkerId, pid: int) -> None:
        """Find the row of a worker that a former master forked; else it gets one from us."""
        for row, slot, gen, entered in self.scoreboard.workers():
            if (slot, gen, entered) == (who.slot, who.gen, pid):
                self._rows[who] = row
                return
        self.scoreboard.enter(self.give(who), pid)
        self._written_here.add(who)

    def watch_others(self) -> None:
        """After all have been inherited: give each of the other rows back when its worker ends."""
        known = set(self._rows.values())
        for row, _, _, pid in list(self.scoreboard.workers()):
            if row in known or not pid:  # one that had not begun may still begin, and writes
                continue
            try:
                pidfd = os.pidfd_open(pid)
            except ProcessLookupError:
                self.scoreboard.close_row(row)
                continue
            except OSError:  # no descriptor is left: it counts until the next master looks
                continue
            try:
                self._loop.add_reader(pidfd, self._close_other, pidfd)
            except OSError:  # it cannot be watched, which comes to the same
                os.close(pidfd)
            else:
                self._others[pidfd] = row

    def beats(self, who: WorkerId) -> bool:
        """Whether the worker's beats are on this scoreboard; else reports are its signs of life."""
        return who not in self._written_here

    def beat_ns(self, who: WorkerId) -> int:
        """When the worker's loop last ran."""
        return self.scoreboard.beat_ns(self._rows[who])

    def sessions(self) -> dict[WorkerId, int]:
        """By worker, how many sessions it holds; also of those that are not known to us."""
        by_row = self.scoreboard.row_sessions()
        return {WorkerId(slot, gen): by_row[row] for row, slot, gen, _ in self.scoreboard.workers()}

    def report(self, who: WorkerId, sessions: int) -> None:
        """The worker said how many sessions it holds; most write that themselves."""
        if who in self._written_here:
            self.scoreboard.set_sessions(self._rows[who], sessions)

    def close(self) -> None:
        for pidfd in self._others:
            self._loop.remove_reader(pidfd)
            os.close(pidfd)
        self._others.clear()
        self.scoreboard.close()

    def _close_other(self, pidfd: int) -> None:
        self._loop.remove_reader(pidfd)
        os.close(pidfd)
        self.scoreboard.close_row(self._others.pop(pidfd))
