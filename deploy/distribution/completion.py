"""Print the completion script of a shell as the installed command does: ``... SHELL``."""

from __future__ import annotations

import sys

from supervisor.cli import commands

if __name__ == "__main__":
    sys.exit(commands.run(["completion", *sys.argv[1:]]))
