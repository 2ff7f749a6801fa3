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

from gateway.core.records import dataclass
from supervisor.cli.admin_client import UnreachableError
from supervisor.cli.console import report
from supervisor.cli.tables import Output, Part, line
from supervisor.core.exit_codes import EXIT_UNREACHABLE

REFRESH_S = 2.0


Document = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Showing:
    """What is fetched and how it is shown; ``as_json``: as a document, instead of as tables.

    ``exit_code(document)`` is what the command ends with.
    """

    fetch: Callable[[], Document]
    exit_code: Callable[[Document], int]
    draw: Callable[[Document], Part]
    output: Output
    as_json: bool

    def once(self) -> int:
        """Show one answer; the exit code."""
        try:
            document = self.fetch()
        except UnreachableError as error:
            report(str(error))
            return EXIT_UNREACHABLE
        if self.as_json:
            sys.stdout.write(json.dumps(document, indent=2) + "\n")
        else:
            self.output.print(self.draw(document))
        return self.exit_code(document)

    def again_and_again(self) -> int:
        """Show answer after answer until interrupted; the exit code is that of the last one.

        JSON comes one document a line; tables stay in their place on a terminal that can do so.
        """
        code = EXIT_UNREACHABLE
        with contextlib.suppress(KeyboardInterrupt), contextlib.ExitStack() as exits:
            put = self._begin(exits)
            while True:
                try:
                    document = self.fetch()
                    code = self.exit_code(document)
                    part = None if self.as_json else self.draw(document)
                except UnreachableError as error:
                    code, document = EXIT_UNREACHABLE, {"error": str(error)}
                    part = line(str(error), style="red")
                if self.as_json:
                    _write(document)
                elif part is not None:
                    put(part)
                time.sleep(REFRESH_S)
        return code

    def _begin(self, exits: contextlib.ExitStack) -> Callable[[Part], None]:
        """What puts the tables on the terminal, until ``exits`` are closed."""
        if self.as_json or not self.output.can_redraw:
            return self.output.print
        exits.callback(signal.signal, signal.SIGTERM, signal.signal(signal.SIGTERM, _leave))
        return exits.enter_context(self.output.in_place())


def _leave(number: int, frame: FrameType | None) -> None:
    """End as the signal would, but give the terminal its cursor and its own screen back."""
    del frame
    raise SystemExit(128 + number)


def _write(document: Document) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()
