"""The demo's processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial

import pytest

from supervisor.demo.children import _end_with_parent


@pytest.mark.parametrize(("parent", "code"), [(os.getpid, 0), (os.getppid, -signal.SIGTERM)])
def test_a_child_whose_parent_died_in_the_meantime_ends(
    parent: Callable[[], int], code: int
) -> None:
    """The kernel tells only of a death after it was asked to."""
    begin = partial(_end_with_parent, parent())
    process = subprocess.Popen([sys.executable, "-c", ""], preexec_fn=begin)  # noqa: PLW1509
    assert process.wait(60) == code
