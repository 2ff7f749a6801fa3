"""The man pages: every flag and command in them, and nothing that a formatter stumbles over."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from supervisor.cli.commands import program
from supervisor.core.flags import FLAGS, FlagKind
from tests import man
from tests.generate import ROOT

PAGES = sorted((ROOT / "deploy" / "man").iterdir())


def read(path: Path) -> str:
    """The page as it would be read, without what only the formatter needs."""
    return path.read_text().replace("\\-", "-").replace("\\&", "").replace("\\e", "\\")


def test_every_flag_and_command_is_in_the_first_page() -> None:
    """Each has an entry of its own."""
    text = read(ROOT / "deploy/man/etcd-gateway.1")
    for flag in FLAGS:
        end = "" if flag.kind is FlagKind.SWITCH else "="
        assert re.search(rf'^\.BI? "?--{flag.name}{end}', text, re.MULTILINE), flag.name
    for name, command in program.commands.items():
        assert command.hidden or re.search(rf"^\.B {name}\b", text, re.MULTILINE), name


def test_every_key_is_in_the_second_page() -> None:
    """All flags are keys but the one that names the file."""
    text = read(ROOT / "deploy/man/etcd-gateway.toml.5")
    keys = re.findall(r"^\.BI ([a-z-]+) ", text, re.MULTILINE)
    assert keys == [flag.name for flag in FLAGS if flag.name != "config-file"]


@pytest.mark.skipif(shutil.which("groff") is None, reason="needs groff")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_formatter_has_no_complaint(page: Path) -> None:
    """With all its warnings on."""
    argv = ["groff", "-man", "-ww", "-z", "-Tutf8", str(page)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_text_commands_nothing() -> None:
    """Dots, quotes and backslashes of a help text stay text."""
    assert man._text(".TH x\n'x a\\b --c") == "\\&.TH x\n\\&'x a\\eb \\-\\-c"
