"""The usage page says what the command line does."""

from __future__ import annotations

import re
import tomllib

from supervisor.core.config import build
from supervisor.core.flags import FLAGS
from tests import usage
from tests.generate import DOCS


def test_the_page_is_current() -> None:
    """``docs/usage.md`` is what the flags say now; ``make docs`` writes it anew."""
    assert (DOCS / "usage.md").read_text() == usage.render()


def test_every_flag_and_variable_is_on_the_page() -> None:
    """Each flag has its row, with its variable."""
    page = usage.render()
    assert all(f"`--{flag.name}" in page and f"`{flag.variable}`" in page for flag in FLAGS)


def test_arguments_of_commands_are_on_the_page() -> None:
    """``completion`` takes one; flags have rows of their own."""
    assert "`etcd-gateway completion SHELL`" in usage.render()


def test_the_example_is_a_config_file() -> None:
    """The example of a config file can be used as it stands."""
    example = re.search(r"```toml\n(.*?)```", usage.render(), re.DOTALL)
    assert example is not None
    assert build({}, {}, tomllib.loads(example[1])).workers == 4
