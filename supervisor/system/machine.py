"""What tells this host from others, and this container from others of the host."""

from __future__ import annotations

import os
import socket

MACHINE_ID = "/etc/machine-id"
"""machine-id(5): 32 hexadecimal digits, made at installation."""

BOOT_ID = "/proc/sys/kernel/random/boot_id"

_LENGTH, _DIGITS = 32, frozenset("0123456789abcdef")


def identify(
    machine_id: str | os.PathLike[str] = MACHINE_ID, boot_id: str | os.PathLike[str] = BOOT_ID
) -> str:
    """What stays the same over restarts, for ``--host-seed``.

    The machine id; where there is none (containers), the host's name and the boot id.
    """
    text = _read(machine_id)
    # "uninitialized" and zeros are what an image has that was never started by itself.
    if len(text) == _LENGTH and _DIGITS.issuperset(text) and text.strip("0"):
        return text
    return f"{socket.gethostname()} {_read(boot_id)}".strip()


def pid_namespace() -> int | None:
    """The namespace in which our process ids count, by its number on this host; None if /proc does
    not say it."""
    try:
        return os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return None


def _read(path: str | os.PathLike[str]) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""
