"""The tasks of a process, and the loop that they run on."""

from __future__ import annotations

import asyncio
import errno

import pytest

from supervisor import launch
from supervisor.cli import main
from supervisor.cli.main import WATCHES
from supervisor.system.tasks import make_loop
from tests.support import no_descriptors_left, watch_nothing


def test_a_loop_that_cannot_be_made_leaves_nothing_but_an_error() -> None:
    """Not the destructor's complaint about half a loop either, which would be a warning here."""
    with no_descriptors_left(), pytest.raises(OSError, match="Too many open files") as caught:
        make_loop()
    assert caught.value.errno == errno.EMFILE


def test_a_loop_that_may_watch_nothing_is_told_with_its_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And not as an output that could not be written, which fails with the same errno."""

    monkeypatch.setattr(asyncio, "new_event_loop", watch_nothing)
    with pytest.raises(OSError, match="No space left on device") as caught:
        make_loop()
    assert caught.value.filename == WATCHES
    monkeypatch.setattr(main, "_run", lambda _: make_loop())
    with pytest.raises(OSError, match="No space left on device") as caught:
        main.main(["start"])
    told = launch._describe_shortage(caught.value)
    assert told.startswith("cannot start: No space left on device (fs.epoll.max_user_watches)")


def test_a_loop_is_made() -> None:
    """With descriptors."""
    loop = make_loop()
    assert isinstance(loop, asyncio.AbstractEventLoop)
    loop.close()
