"""What every command has in common: the program's name, its exit codes, how it reports."""

from __future__ import annotations

import os

PROGRAM = "etcd-gateway"

EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_NO_ENDPOINT = 69
"""sysexits EX_UNAVAILABLE: there is nothing to relay to."""
EXIT_INTERRUPTED = 130
"""128 + SIGINT, as a shell reports it."""


def report(text: str) -> None:
    """One line on standard error, whatever is in the text, if there is anyone to read it."""
    line = " ".join(text.split())
    try:
        os.write(2, f"{PROGRAM}: {line}\n".encode("utf-8", "backslashreplace"))
    except OSError:
        return
