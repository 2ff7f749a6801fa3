"""The tasks of a process, and the loop that they run on."""

from __future__ import annotations

import asyncio
import errno
import socket

import pytest

from supervisor import launch
from supervisor.cli import main
from supervisor.system.tasks import UNIX_SOCKETS, WATCHES, make_loop, run_in_loop
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


def test_unix_sockets_that_are_forbidden_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A unit with RestrictAddressFamilies= that leaves them out; no loop can be made then."""

    def forbid(*_: object) -> None:
        raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")

    monkeypatch.setattr(socket, "socketpair", forbid)
    with pytest.raises(OSError, match="Address family not supported") as caught:
        make_loop()
    assert caught.value.filename == UNIX_SOCKETS
    monkeypatch.setattr(main, "_run", lambda _: make_loop())
    with pytest.raises(OSError, match="Address family not supported") as caught:
        main.main(["start"])
    assert launch._describe_shortage(caught.value) == (
        "cannot start: Address family not supported by protocol (AF_UNIX), "
        "expected it to be allowed (RestrictAddressFamilies= of the unit)"
    )


def test_a_coroutine_runs_in_a_loop_or_is_not_made() -> None:
    """One that nobody runs would be warned of, which is an error here."""

    async def answer() -> int:
        return 42

    assert run_in_loop(answer) == 42
    with no_descriptors_left(), pytest.raises(OSError, match="Too many open files"):
        run_in_loop(answer)


def test_a_loop_is_made() -> None:
    """With descriptors."""
    loop = make_loop()
    assert isinstance(loop, asyncio.AbstractEventLoop)
    loop.close()
