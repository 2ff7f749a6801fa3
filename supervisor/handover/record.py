"""The handover record: what the next master knows, kept in memory by the service manager.

A running master keeps it up to date, for the case that it crashes. Then the same program starts
again and keeps the workers, because replacing them would cut their sessions at the drain's
deadline: so the record says which program it is, and what its workers know. Until workers of its
own are ready it does not say which program it is: those that serve may be of another program, or of
another configuration, and the next master replaces them as this one would have.

A master that leaves for the next one says so in the record. The next one replaces the workers,
because it may be another program with another configuration, and goes on with the endpoints until
DNS answers.
"""

from __future__ import annotations

import os

from gateway.core.log import Log
from supervisor.core.handover_state import HandoverState
from supervisor.core.next_master import after_crash, after_restart
from supervisor.handover.state import to_bytes
from supervisor.workers.descriptor_store import DescriptorStore

CANNOT_RECORD = "cannot record the state for the next master"

RECORD_NAME = "handover-record"
"""Of its descriptor in the store."""


def open_record(store: DescriptorStore, log: Log) -> HandoverRecord | None:
    """A record in ``store``; None, and the log says why, without a descriptor or memory for it."""
    try:
        return HandoverRecord(store)
    except OSError as error:
        log.warn(CANNOT_RECORD, error=str(error))
        return None


def write_record(fd: int, state: HandoverState) -> None:
    """Have the record say ``state``; the store has a duplicate of ``fd``."""
    text = to_bytes(state)
    os.pwrite(fd, text, 0)
    os.ftruncate(fd, len(text))


class HandoverRecord:
    """Owns the memory until :meth:`close`; the store has a duplicate until :meth:`withdraw`."""

    def __init__(self, store: DescriptorStore) -> None:
        """OSError: there is no descriptor for it."""
        self._store = store
        self._leaving = False
        self._fd = os.memfd_create(RECORD_NAME)
        store.keep(RECORD_NAME, self._fd)

    def write(self, state: HandoverState, *, ours: bool) -> None:
        """Replace what the record says. A crash in the middle leaves one that is not understood.

        ``ours``: whether the workers that serve are of this program and configuration. Those of a
        former master are replaced after a crash, too.
        """
        kept = after_crash(state) if ours and not self._leaving else after_restart(state)
        write_record(self._fd, kept)

    def leave(self, state: HandoverState) -> None:
        """From now on the next master replaces the workers, and follows its own configuration."""
        self._leaving = True
        try:
            self.write(state, ours=False)
        except OSError:  # no memory for it: the next master begins as the first one did
            self.withdraw()

    def withdraw(self) -> None:
        """There is no next master, or it is to know nothing."""
        self._store.remove(RECORD_NAME)

    def close(self) -> None:
        os.close(self._fd)
