"""What tells this host from others, and stays the same over restarts: see ``--host-seed``."""

from __future__ import annotations

import re
import socket
from pathlib import Path

MACHINE_ID = Path("/etc/machine-id")
"""machine-id(5): 32 hexadecimal digits, made at installation."""

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def identify(machine_id: Path = MACHINE_ID, boot_id: Path = BOOT_ID) -> str:
    """The machine id; where there is none (containers), the host's name and the boot id."""
    text = _read(machine_id)
    # "uninitialized" and zeros are what an image has that was never started by itself.
    if re.fullmatch(r"[0-9a-f]{32}", text) and text.strip("0"):
        return text
    return f"{socket.gethostname()} {_read(boot_id)}".strip()


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
