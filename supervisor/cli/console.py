"""The program's name, and how commands report errors."""

from __future__ import annotations

import os
from collections.abc import Iterable

from supervisor.core.printable import escape_unprintable

PROGRAM = "etcd-gateway"

COMPLETE_VARIABLE = "_ETCD_GATEWAY_COMPLETE"
"""Set by a shell that wants completions and not the command."""


def report(text: str) -> None:
    """Write one line to standard error; a closed standard error is no failure."""
    line = escape_unprintable(" ".join(text.split()))
    try:
        os.write(2, f"{PROGRAM}: {line}\n".encode("utf-8", "backslashreplace"))
    except OSError:
        return


def warn_of_misspelled(variables: Iterable[tuple[str, str]]) -> None:
    """Report variables that are no flag's, each with the one that was probably meant."""
    for name, meant in variables:
        report(f"warning: {name} is not a variable of the gateway, did you mean {meant}?")
