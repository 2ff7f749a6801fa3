"""Tables on a terminal: what is left of them."""

from __future__ import annotations

import io
import signal
import sys

import pytest

from supervisor.cli.tables import Output

OTHER_SCREEN, OWN_SCREEN = "\x1b[?1049h", "\x1b[?1049l"
HIDDEN_CURSOR, SHOWN_CURSOR = "\x1b[?25l", "\x1b[?25h"


class Terminal(io.StringIO):
    """A terminal whose user presses Ctrl-C when something has been written."""

    def __init__(self, moment: str) -> None:
        super().__init__()
        self._moment = moment

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        length = super().write(text)
        if self._moment in text:
            signal.raise_signal(signal.SIGINT)
        return length


@pytest.mark.parametrize("moment", [OTHER_SCREEN, HIDDEN_CURSOR, SHOWN_CURSOR, OWN_SCREEN])
def test_ctrl_c_at_any_moment_gives_the_terminal_back(
    moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while the other screen is begun, or left."""
    terminal = Terminal(moment)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdout", terminal)
    with pytest.raises(KeyboardInterrupt), Output().in_place():
        pass
    written = terminal.getvalue()
    assert written.rindex(OTHER_SCREEN) < written.rindex(OWN_SCREEN)
    assert written.rindex(HIDDEN_CURSOR) < written.rindex(SHOWN_CURSOR)
