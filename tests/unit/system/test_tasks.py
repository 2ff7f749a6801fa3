"""The tasks of a process, and the loop that they run on."""

from __future__ import annotations

import asyncio
import errno

import pytest

from supervisor.system.tasks import make_loop
from tests.support import no_descriptors_left


def test_a_loop_that_cannot_be_made_leaves_nothing_but_an_error() -> None:
    """Not the destructor's complaint about half a loop either, which would be a warning here."""
    with no_descriptors_left(), pytest.raises(OSError, match="Too many open files") as caught:
        make_loop()
    assert caught.value.errno == errno.EMFILE


def test_a_loop_is_made() -> None:
    """With descriptors."""
    loop = make_loop()
    assert isinstance(loop, asyncio.AbstractEventLoop)
    loop.close()
