"""What the next master knows if this one crashes: kept in memory by the service manager.

After a restart the workers are replaced, because the program may be another one. After a crash the
same program starts again, and replacing workers would cut their sessions at the drain's deadline.
So a running master keeps a record in the descriptor store: which program it is, and what its
workers know. The next master that is the same program keeps the workers. A master that leaves in
order withdraws the record first.
"""

from __future__ import annotations

import dataclasses
import json
import os

from gateway.core.log import Log
from supervisor.core.admin.totals import Totals
from supervisor.core.handover_state import HandoverState, encode
from supervisor.workers.descriptor_store import DescriptorStore

RECORD_NAME = "crash-record"
"""Of its descriptor in the store."""


def open_record(store: DescriptorStore, log: Log) -> CrashRecord | None:
    """A record in ``store``; None, and the log says why, without a descriptor or memory for it."""
    try:
        return CrashRecord(store)
    except OSError as error:
        log.warn("cannot record the state for a crash", error=str(error))
        return None


class CrashRecord:
    """Owns the memory until :meth:`close`; the store has a duplicate until :meth:`withdraw`."""

    def __init__(self, store: DescriptorStore) -> None:
        """OSError: there is no descriptor for it."""
        self._store = store
        self._fd = os.memfd_create("crash-record")
        store.keep(RECORD_NAME, self._fd)

    def write(self, state: HandoverState) -> None:
        """Replace what the record says. A crash in the middle leaves one that is not understood."""
        kept = dataclasses.replace(
            state,
            descriptors={},
            totals=Totals(),
            events=(),
            restarts={},
            started_at=None,
            started_boot_s=None,
        )
        text = json.dumps(encode(kept), default=str).encode()
        os.pwrite(self._fd, text, 0)
        os.ftruncate(self._fd, len(text))

    def withdraw(self) -> None:
        """From now on the next master replaces the workers."""
        self._store.remove(RECORD_NAME)

    def close(self) -> None:
        os.close(self._fd)
