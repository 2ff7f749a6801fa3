"""What ``--watch`` does, whatever is watched: ask, show, and ask again until interrupted."""

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
from supervisor.cli.tables import Output, Part, line
from supervisor.core.exit_codes import EXIT_UNREACHABLE

REFRESH_S = 2.0


def watch(
    fetch: Callable[[], dict[str, Any]],
    exit_code: Callable[[dict[str, Any]], int],
    draw: Callable[[dict[str, Any]], Part],
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
        show: Callable[[Part], None] = (
            exits.enter_context(output.in_place()) if in_place else output.print
        )
        while True:
            try:
                document = fetch()
                code = exit_code(document)
                if as_json:
                    _write(document)
                else:
                    show(draw(document))
            except UnreachableError as error:
                code = EXIT_UNREACHABLE
                if as_json:
                    _write({"error": str(error)})
                else:
                    show(line(str(error), style="red"))
            time.sleep(REFRESH_S)
    return code


def _leave(number: int, frame: FrameType | None) -> None:
    """End as the signal would, but give the terminal its cursor and its own screen back."""
    del frame
    raise SystemExit(128 + number)


def _write(document: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()
