"""Tables and lines on a terminal: the one place that knows rich.

Without a terminal, tables are plain text in whole lines, as greppable as the output of ``ps``.
"""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator, Sequence

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from supervisor.core.printable import escape_unprintable

Part = RenderableType
"""Something that can be printed; made by the functions of this module."""

Cell = str | Text

PIPE_COLUMNS = 10_000
"""The width where there is no terminal: no line is broken, and no name is cut."""

COLORS = {
    "ready": "green", "active": "green", "degraded": "red", "inactive": "red", "backoff": "red",
    "refused": "red", "hangs": "red", "starting": "yellow", "draining": "yellow",
    "removed": "bright_black", "stalled": "red", "held-back": "yellow", "dialing": "yellow",
}  # fmt: skip
"""Of the words for states."""


def word(state: str) -> Text:
    """A state in its color."""
    return Text(escape_unprintable(state), COLORS.get(state, ""))


def line(*pieces: str | Text, style: str = "") -> Text:
    """One line of text."""
    return Text.assemble(*map(_shown, pieces), style=style)


def _shown(cell: Cell) -> Text:
    return Text(escape_unprintable(cell)) if isinstance(cell, str) else cell


def stack(parts: Sequence[Part]) -> Part:
    """The parts, one below the other."""
    return Group(*parts)


def make_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    *,
    left: Sequence[str],
    last: str = "",
    names: int = 1,
) -> Part:
    """A table without lines. Columns are right-aligned but for those in ``left``.

    The first ``names`` columns, and a column of texts with the heading ``last``, take several lines
    where a terminal is narrow. The others are cut only if that is not enough: a long name must not
    hide a state or an error.
    """
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for number, column in enumerate(columns):
        table.add_column(
            column,
            justify="left" if column in left else "right",
            no_wrap=number >= names,
            overflow="fold" if number < names else "ellipsis",
        )
    if last:
        table.add_column(last, overflow="fold")
    for row in rows:
        table.add_row(*map(_shown, row))
    return table


class Output:
    """Standard output: a terminal of some size, or a pipe of whole lines."""

    def __init__(self) -> None:
        console = Console(highlight=False, markup=False)
        # FORCE_COLOR and TTY_COMPATIBLE make rich take a pipe for a terminal: they ask for colors,
        # and not for tables that are cut to 24 lines.
        self.is_terminal = console.is_terminal and sys.stdout.isatty()
        self.can_redraw = self.is_terminal and not console.is_dumb_terminal
        """Whether the cursor can be moved; rich would show nothing at all where it cannot."""
        self._console = (
            console
            if self.is_terminal
            else Console(width=PIPE_COLUMNS, highlight=False, markup=False)
        )

    @property
    def width(self) -> int:
        return self._console.width

    @property
    def room(self) -> int | None:
        """The lines that fit on the terminal beside the next prompt; None without a terminal."""
        return self._console.height - 1 if self.is_terminal else None

    def print(self, part: Part) -> None:
        self._console.print(part)

    def count_lines(self, part: Part) -> int:
        """How many lines the part takes."""
        return len(self._console.render_lines(part, pad=False))

    @contextlib.contextmanager
    def in_place(self) -> Iterator[Callable[[Part], None]]:
        """A function that shows a part in place of the one before, on a screen of its own."""
        live = Live(console=self._console, screen=True, auto_refresh=False)
        try:
            with _held_signals():
                live.start()
            yield lambda part: live.update(part, refresh=True)
        finally:
            with _held_signals():
                live.stop()


@contextlib.contextmanager
def _held_signals() -> Iterator[None]:
    """Let Ctrl-C and TERM wait: halfway to another screen and back, the terminal stays there."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
