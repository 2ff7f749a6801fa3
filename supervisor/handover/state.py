"""The handover state in memory: written for the next image, and read as the one before wrote it."""

from __future__ import annotations

import json
import os

from supervisor.core.handover_document import decode, encode
from supervisor.core.handover_state import HandoverState

HANDOVER_VARIABLE = "ETCD_GATEWAY_HANDOVER"
"""The descriptor of the handover state, in memory. It is set until the next image has its workers
under its care; ``launch`` goes back to the old image if that is not to be."""


def read_state(document: int) -> HandoverState:
    """Decode a document; it may be read again, and stays open. What is none says nothing."""
    try:
        size = os.fstat(document).st_size
        return decode(json.loads(os.pread(document, size, 0)))
    except (ValueError, RecursionError, OSError):
        return HandoverState()


def to_bytes(state: HandoverState) -> bytes:
    """The document that :func:`read_state` decodes."""
    return json.dumps(encode(state), default=str).encode()


def write_state(state: HandoverState) -> int:
    """A descriptor that outlives ``execve``; a variable itself holds 128 KiB at most (execve(2)),
    which the facts about 200 endpoints fill. OSError: there is no memory or descriptor for it."""
    document = os.memfd_create("handover", 0)
    try:
        with open(document, "wb", closefd=False) as file:
            file.write(to_bytes(state))
    except BaseException:
        os.close(document)
        raise
    return document
