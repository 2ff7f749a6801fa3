"""What the trial of an upgrade says when the new program does not start."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Sequence

import pytest

from gateway.core import messages, wire
from gateway.core.address import HostPort
from gateway.ingress.listener import open_listener
from gateway.worker_spec import WorkerSpec
from supervisor.core.config import Config
from supervisor.core.handover_state import HandoverState
from supervisor.handover import trial_start
from supervisor.workers.fork import Child
from tests.support import free_port


def fork_one_that_ended(_: Sequence[WorkerSpec], **_options: object) -> list[Child]:
    """It has said why, and nobody reads its pipe any more."""
    pipe_r, pipe_w = os.pipe()
    os.close(pipe_r)
    control, its = socket.socketpair()
    with its:
        its.sendall(wire.encode(messages.Failed("start", "ValueError('told so')")))
    pid = os.posix_spawn("/bin/true", ["true"], os.environ)
    return [Child(pid, os.pidfd_open(pid), pipe_w, control)]


def test_a_worker_that_ended_before_it_was_told_has_its_last_word(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The endpoints cannot be written to it, which is not why it ended."""
    monkeypatch.setattr(trial_start, "fork_workers", fork_one_that_ended)
    with pytest.raises(trial_start.TrialError, match="cannot start: start: ValueError"):
        trial_start._try_worker(Config(), HandoverState())


def test_more_workers_need_an_address_that_is_still_there() -> None:
    """192.0.2.0/24 is nobody's (RFC 5737); slots that have sockets go on with them."""
    gone = HostPort("192.0.2.1", 4000)
    state = HandoverState(listen=(str(gone),), descriptors={"listener.0.0": 3, "listener.1.0": 4})
    trial_start._bind_more(state, (gone,), workers=2)
    with pytest.raises(trial_start.TrialError, match=r"can listen on 192\.0\.2\.1:4000: Cannot"):
        trial_start._bind_more(state, (gone,), workers=3)


def test_more_workers_take_no_client_from_those_that_serve() -> None:
    """The trial binds beside them, and does not listen."""
    address = HostPort("127.0.0.1", free_port())
    state = HandoverState(listen=(str(address),), descriptors={"listener.0.0": 3})
    with open_listener(address, exclusive=True) as listener:
        trial_start._bind_more(state, (address,), workers=2)
        with socket.create_connection((address.host, address.port)):
            assert select.select([listener], [], [], 60)[0]
