"""What every command has in common: the program's name and how it reports an error."""

from __future__ import annotations

import os

PROGRAM = "etcd-gateway"


def report(text: str) -> None:
    """One line on standard error, whatever is in the text, if there is anyone to read it."""
    line = " ".join(text.split())
    try:
        os.write(2, f"{PROGRAM}: {line}\n".encode("utf-8", "backslashreplace"))
    except OSError:
        return
