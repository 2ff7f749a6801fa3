"""What a master takes over of the descriptors that the service manager kept."""

from __future__ import annotations

import fcntl
import os
import socket
from contextlib import ExitStack

import pytest

from supervisor.handover import systemd
from supervisor.handover.inheritance import take_over
from supervisor.workers.inherited import InheritedDescriptors

FIRST = 600
"""A number from which on nobody has a descriptor."""


def take_kept(monkeypatch: pytest.MonkeyPatch, named: list[tuple[str, int]]) -> list[int]:
    """The numbers under which a process gets duplicates of these, kept under these names."""
    monkeypatch.setattr(systemd, "FIRST_FD", FIRST)
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", str(len(named)))
    monkeypatch.setenv("LISTEN_FDNAMES", ":".join(name for name, _ in named))
    return [fcntl.fcntl(fd, fcntl.F_DUPFD, FIRST) for _, fd in named]


def test_what_is_not_as_it_is_called_is_closed_and_nothing_else_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One descriptor of somebody else's in the store does not cost those that are ours."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        streams = stack.enter_context(socket.socket(socket.AF_UNIX))
        inbox = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        pipe_r, pipe_w = os.pipe()
        pidfd = os.pidfd_open(os.getpid())
        for fd in (pipe_r, pipe_w, pidfd):
            stack.callback(os.close, fd)
        good = [
            ("listener.0.0", listener.fileno()),
            ("inbox-r.0", inbox.fileno()),
            ("inbox-w.0", inbox.fileno()),
            ("ctl.0.1", streams.fileno()),
            ("pipe.0.1", pipe_w),
            ("pid.0.1", pidfd),
        ]
        bad = [
            ("listener.0.0", pipe_r),
            ("listener.0.5", pipe_r),
            ("listener.7.0", streams.fileno()),
            ("inbox-r.7", streams.fileno()),
            ("ctl.7.1", pidfd),
            ("pipe.7.1", pidfd),
            ("pid.7.1", inbox.fileno()),
            ("unix.0.1.2", listener.fileno()),
            ("unready.7.1", pipe_r),
        ]
        fds = take_kept(monkeypatch, [*bad, *good])
        inherited: InheritedDescriptors = take_over(os.environ).inherited
        usable = fds[len(bad) :]
        for fd in usable:
            stack.callback(os.close, fd)
            os.fstat(fd)
        for fd in fds[: len(bad)]:
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(fd)
    assert list(inherited.slots) == [0]
    slot = inherited.slots[0]
    assert [*slot.listeners.values(), slot.inbox_r, slot.inbox_w] == usable[:3]
    assert list(slot.workers[1].values()) == usable[3:]
    assert (inherited.shared, inherited.unready) == ([], [])
    assert set(inherited.dropped) == {name for name, _ in bad} - {"listener.0.0"}


def test_what_has_a_name_that_is_not_ours_waits_to_be_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It may be the socket of a socket unit."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        (fd,) = take_kept(monkeypatch, [("gateway.socket", sock.fileno())])
    try:
        assert take_over(os.environ).inherited.unknown == {"gateway.socket": fd}
    finally:
        os.close(fd)
