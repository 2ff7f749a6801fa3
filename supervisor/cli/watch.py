"""Showing what a gateway answers: once, or with ``--watch`` again until interrupted."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from supervisor.cli.admin_client import UnreachableError
from supervisor.cli.console import report
from supervisor.cli.tables import Output, Part, line
from supervisor.core.exit_codes import EXIT_UNREACHABLE

REFRESH_S = 2.0


Document = dict[str, Any]


def show(
    fetch: Callable[[], Document],
    exit_code: Callable[[Document], int],
    draw: Callable[[Document], Part],
    output: Output,
    *,
    as_json: bool,
    watch: bool,
) -> int:
    """Show one answer as a document or as tables, or answer after answer; the exit code."""
    if watch:
        return _watch(fetch, exit_code, draw, output, as_json=as_json)
    try:
        document = fetch()
    except UnreachableError as error:
        report(str(error))
        return EXIT_UNREACHABLE
    if as_json:
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
    else:
        output.print(draw(document))
    return exit_code(document)


def _watch(
    fetch: Callable[[], Document],
    exit_code: Callable[[Document], int],
    draw: Callable[[Document], Part],
    output: Output,
    *,
    as_json: bool,
) -> int:
    """Until interrupted; the exit code is that of the last answer.

    JSON comes one document a line; tables stay in their place on a terminal that can do so.
    """
    code = EXIT_UNREACHABLE
    with contextlib.suppress(KeyboardInterrupt), contextlib.ExitStack() as exits:
        in_place = output.can_redraw and not as_json
        if in_place:
            exits.callback(signal.signal, signal.SIGTERM, signal.signal(signal.SIGTERM, _leave))
        put: Callable[[Part], None] = (
            exits.enter_context(output.in_place()) if in_place else output.print
        )
        while True:
            try:
                document = fetch()
                code = exit_code(document)
                if as_json:
                    _write(document)
                else:
                    put(draw(document))
            except UnreachableError as error:
                code = EXIT_UNREACHABLE
                if as_json:
                    _write({"error": str(error)})
                else:
                    put(line(str(error), style="red"))
            time.sleep(REFRESH_S)
    return code


def _leave(number: int, frame: FrameType | None) -> None:
    """End as the signal would, but give the terminal its cursor and its own screen back."""
    del frame
    raise SystemExit(128 + number)


def _write(document: Document) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()
