"""The program's name, and how commands report errors."""

from __future__ import annotations

import os

PROGRAM = "etcd-gateway"

COMPLETE_VARIABLE = "_ETCD_GATEWAY_COMPLETE"
"""Set by a shell that wants completions and not the command."""


def plain(text: str) -> str:
    """The text with escapes in place of what moves a cursor or begins a line.

    Names and errors come from elsewhere: from DNS, from endpoints, from whoever answers.
    """
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


def report(text: str) -> None:
    """Write one line to standard error; a closed standard error is no failure."""
    line = plain(" ".join(text.split()))
    try:
        os.write(2, f"{PROGRAM}: {line}\n".encode("utf-8", "backslashreplace"))
    except OSError:
        return
