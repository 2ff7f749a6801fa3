"""What the trial of an upgrade says when the new program does not start."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence

import pytest

from gateway.core import messages, wire
from gateway.worker_spec import WorkerSpec
from supervisor.core.config import Config
from supervisor.core.handover_state import HandoverState
from supervisor.handover import trial_start
from supervisor.workers.fork import Child


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
