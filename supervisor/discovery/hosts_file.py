"""The hosts file: read when it changed, in slices, so that a large one does not stop the loop."""

from __future__ import annotations

import asyncio
import os
import stat
import time
from collections.abc import Iterator

from gateway.core.log import Log
from supervisor.core.discovery.system_names import HostsTable

MAX_BYTES = 64 * 1024 * 1024
"""Of a hosts file; what is beyond is ignored, and the log says so. Block lists have 3 to 30 MB."""

SLICE_CHARACTERS = 16 * 1024
"""Parsed before the loop may go on with something else: about a millisecond."""

RACY_NS = 100_000_000
"""A file changed so shortly before it was read may change again within the same timestamp."""


class HostsFile:
    """Answers which addresses a name has in the file, which is read again when it changed."""

    def __init__(self, path: str, log: Log | None = None) -> None:
        self.path = path
        self._log = log
        self._stamp: Stamp = None
        self._told_cut: Stamp = None
        self._table = HostsTable()
        self._reading = asyncio.Lock()

    async def addresses(self, name: str) -> tuple[str, ...]:
        """The literal addresses of a name in lower case without a trailing dot."""
        if _stamp(self.path) != self._stamp:
            async with self._reading:
                stamp = _stamp(self.path)
                if stamp != self._stamp:  # else another question has read it meanwhile
                    self._table = await self._read() if stamp else HostsTable()
                    self._stamp = stamp if not _is_racy(stamp) else RACY
        return self._table.addresses(name)

    async def _read(self) -> HostsTable:
        table = HostsTable()
        for lines in self._slices():
            table.add(lines)
            await asyncio.sleep(0)
        return table

    def _slices(self) -> Iterator[list[str]]:
        """The lines of the file in slices; a file that cannot be opened has none."""
        try:
            with open(self.path, encoding="utf-8", errors="replace") as file:
                left = MAX_BYTES
                while lines := file.readlines(SLICE_CHARACTERS):
                    left -= sum(map(len, lines))
                    if left < 0:
                        self._tell_cut()
                        return
                    yield lines
        except OSError:
            return

    def _tell_cut(self) -> None:
        stamp = _stamp(self.path)
        if self._log is not None and stamp != self._told_cut:
            self._told_cut = stamp
            self._log.warn(
                "hosts file is too long, the rest is ignored", path=self.path, read_bytes=MAX_BYTES
            )


Stamp = tuple[int, ...] | None
RACY: Stamp = ()


def _is_racy(stamp: Stamp) -> bool:
    return stamp is not None and abs(time.time_ns() - stamp[0]) < RACY_NS


def _stamp(path: str) -> Stamp:
    """What changes when the file does; None if there is no regular file (a pipe would block)."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    return (status.st_mtime_ns, status.st_ino, status.st_dev, status.st_size)
