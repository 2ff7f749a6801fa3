"""System calls that answer an error, as under an old seccomp profile or an old kernel.

``python -m tests.refused_calls ERRNO NAME,... COMMAND...`` runs a command under them.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from collections.abc import Sequence

NUMBERS = {
    "socketpair": 53,
    "clone": 56,
    "sched_setaffinity": 203,
    "splice": 275,
    "prlimit64": 302,
    "memfd_create": 319,
    "pidfd_send_signal": 424,
    "pidfd_open": 434,
}
"""Of x86-64."""

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2
_LOAD, _JUMP_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000


class Program(ctypes.Structure):
    """A filter for seccomp(2); keeps the memory of its steps."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))

    def __init__(self, steps: Sequence[tuple[int, int, int, int]]) -> None:
        packed = b"".join(struct.pack("HBBI", *step) for step in steps)
        self._text = ctypes.create_string_buffer(packed)
        super().__init__(len(steps), ctypes.cast(self._text, ctypes.c_void_p))


def refuse(code: int, *names: str) -> None:
    """From now on these calls answer the errno ``code``, here and in all children (seccomp(2))."""
    steps = [(_LOAD, 0, 0, 0)]  # the number of the call
    for name in names:
        steps += [(_JUMP_EQUAL, 0, 1, NUMBERS[name]), (_RETURN, 0, 0, _ERRNO | code)]
    steps.append((_RETURN, 0, 0, _ALLOW))
    program = Program(steps)
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in (
        (_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0),
    ):
        if libc.prctl(*arguments) != 0:
            raise OSError(ctypes.get_errno(), "prctl")


if __name__ == "__main__":
    refuse(int(sys.argv[1]), *sys.argv[2].split(","))
    os.execvp(sys.argv[3], sys.argv[3:])
