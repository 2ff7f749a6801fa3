"""Installations of the gateway beside each other, or one in the place of another."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


LONGEST_FIRST_LINE = 127
"""What every kernel reads of it (execve(2))."""


def make_first_line(python: str) -> str:
    """Has a script run by this Python, as pip writes it: by the shell where the path has spaces."""
    line = f"#!{python}"
    if " " not in line and len(os.fsencode(line)) <= LONGEST_FIRST_LINE:
        return line
    return f"#!/bin/sh\n'''exec' \"{python}\" \"$0\" \"$@\"\n' '''"


class Installation:
    """A copy of the program in a folder of its own; ``script`` is its command."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.script = folder / "etcd-gateway"
        folder.mkdir(parents=True)
        self.install()
        self.script.write_text(
            f"{make_first_line(sys.executable)}\n"
            "import os, sys\n"
            "sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))\n"
            "from etcd_gateway import main\n"
            "sys.exit(main())\n"
        )
        self.script.chmod(0o755)

    def install(self) -> None:
        """Write the program's files anew, as an installer does: old ones are replaced.

        The compiled ones come along, and stay valid: they know a source by its time and length.
        """
        for package in ("gateway", "supervisor"):
            # A program that runs from here may write a file beneath __pycache__ meanwhile.
            shutil.rmtree(self.folder / package, ignore_errors=True)
            shutil.copytree(
                ROOT / package,
                self.folder / package,
                ignore=shutil.ignore_patterns("*.pyc.*"),  # those that another test writes just now
                dirs_exist_ok=True,
            )
        shutil.copy(ROOT / "supervisor/launch.py", self.folder / "etcd_gateway.py")

    def insert(self, module: str, code: str) -> None:
        """Have a module begin with other code, behind its ``from __future__`` line."""
        path = self.folder / module
        head, mark, rest = path.read_text().partition("from __future__ import annotations\n")
        path.write_text(f"{head}{mark}{code}\n{rest}")

    def shadow(self, package: str, code: str) -> None:
        """Have a library found here, with this code in it."""
        (self.folder / f"{package}.py").write_text(code)


def point(link: Path, to: Path) -> None:
    """Make ``link`` lead to ``to`` in one step."""
    fresh = link.with_name(f"{link.name}.new")
    fresh.symlink_to(to)
    os.replace(fresh, link)
